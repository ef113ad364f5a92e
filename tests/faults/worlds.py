"""Configurations the daemon tests share, and a way to run one scenario."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from devd.daemon.demo.rig import Rig
from devd.ipc.errors import IpcError

SIM = "test.devd.io/sim"
FILES = "test.devd.io/files"
GRACE_S = 20.0
"""Generous: tests prove that a thing happens; benchmarks measure how soon."""
END_S = 10.0
"""Twice what an orderly end may take, for a busy machine; the benchmark measures it."""
LOOK_EVERY_S = 0.02


def sim(devices: str, *, period: str = "200ms", timeout: str = "500ms", more: str = "", kubelet: str = "") -> str:
    """Return a configuration of one resource of simulated devices; ``devices`` is the YAML of match.devices."""
    head = f"kubelet: {{{kubelet}}}\n" if kubelet else ""
    return f"""{head}resources:
  - name: {SIM}
    driver: sim
    match: {{devices: {devices}}}
    probe: {{kind: sim, period: {period}, timeout: {timeout}}}
{more}"""


def files(pattern: Path | str, *, probe: str = "{kind: exists, period: 200ms, timeout: 500ms}", more: str = "") -> str:
    """Return a configuration that offers plain files as devices."""
    return f"""resources:
  - name: {FILES}
    driver: node
    match: {{path: "{pattern}", type: any}}
    probe: {probe}
    discovery: {{period: 1s, linger: 2s}}
{more}"""


def scenario(config: str, play: Callable[[Rig], Awaitable[None]]) -> None:
    """Run one scenario against a real devd and the stub kubelet; the kubelet must have nothing to complain about."""

    async def run() -> None:
        async with Rig(config) as rig:
            await play(rig)
            assert rig.kubelet.violations == []

    asyncio.run(run())


async def until(condition: Callable[[], bool], what: str, timeout_s: float = GRACE_S) -> None:
    """Wait for a condition that no event tells of. Raises AssertionError naming it."""
    deadline_s = time.monotonic() + timeout_s
    while not _holds(condition):
        assert time.monotonic() < deadline_s, f"{what}: not within {timeout_s:g} s"
        await asyncio.sleep(LOOK_EVERY_S)


def _holds(condition: Callable[[], bool]) -> bool:
    """Return whether it holds; it does not for a device that devd does not list yet, nor before devd answers."""
    try:
        return condition()
    except (LookupError, IpcError):
        return False


def answers(rig: Rig) -> bool:
    """Return whether devd answers."""
    try:
        rig.status()
    except IpcError:
        return False
    return True


def alive(pid: int) -> bool:
    """Return whether a process exists and is no zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] != "Z"


def descriptors(pid: int) -> int:
    """Return how many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - a count is all that is wanted
