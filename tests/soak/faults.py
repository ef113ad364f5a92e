"""The faults of a soak: each makes one thing go wrong at a random place, and leaves it to devd."""

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

from devd.daemon.demo.kubelet_rules import AdmissionError, ContainerStartError
from devd.daemon.demo.rig import Rig
from devd.ipc.errors import IpcError
from tests.soak import world

Fault = Callable[["Chaos"], Awaitable[None]]


class Chaos:
    """One rig and one source of chance; ``counts`` tells how often each fault was made."""

    def __init__(self, rig: Rig, files: Path, chance: random.Random) -> None:
        self.rig = rig
        self.files = files
        self.chance = chance
        self.counts: dict[str, int] = {}

    async def one(self) -> None:
        """Make one fault."""
        fault = self.chance.choice(FAULTS)
        self.counts[fault.__name__] = self.counts.get(fault.__name__, 0) + 1
        await fault(self)

    def worker(self) -> int | None:
        """Return the pid of some worker or scout."""
        pids = [one["pid"] for one in self.rig.status()["devices"] if one["pid"]]
        return self.chance.choice(pids) if pids else None

    def signal(self, number: int) -> None:
        """Send a signal to some worker."""
        pid = self.worker()
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


async def kill_worker(chaos: Chaos) -> None:
    """SIGKILL to a worker."""
    chaos.signal(signal.SIGKILL)


async def stop_worker(chaos: Chaos) -> None:
    """SIGSTOP to a worker."""
    chaos.signal(signal.SIGSTOP)


async def kill_fork_server(chaos: Chaos) -> None:
    """SIGKILL to the fork server."""
    pid = chaos.rig.status()["daemon"]["forkserver"]["pid"]
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def stop_front(chaos: Chaos) -> None:
    """SIGSTOP to the front, for a while."""
    os.kill(chaos.rig.pid, signal.SIGSTOP)
    await asyncio.sleep(chaos.chance.random() * 3)
    os.kill(chaos.rig.pid, signal.SIGCONT)


async def restart_kubelet(chaos: Chaos) -> None:
    """Restart the kubelet."""
    await chaos.rig.kubelet.restart()


async def cancel_streams(chaos: Chaos) -> None:
    """End the kubelet's streams."""
    chaos.rig.kubelet.cancel_streams()


async def order(chaos: Chaos) -> None:
    """Give some order of an operator."""
    devices = [one["id"] for one in chaos.rig.status()["devices"]]
    if devices:
        verb = chaos.chance.choice(["restart", "cordon", "uncordon", "uncordon", "probe"])
        with contextlib.suppress(RuntimeError):  # refused: there is no worker to ask, or no device any more
            chaos.rig.order(verb, chaos.chance.choice(devices))


async def reconfigure(chaos: Chaos) -> None:
    """Write a wrong configuration, another one, or the first again."""
    text = chaos.chance.choice(
        [
            world.config(chaos.files),
            world.config(chaos.files).replace("period: 300ms", "period: 350ms"),
            world.config(chaos.files).replace("driver: node", "driver: nothing"),
            "resources: [",
        ]
    )
    fresh = chaos.rig.config.with_suffix(".new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(chaos.rig.config)


async def plug(chaos: Chaos) -> None:
    """Take a file away, put it back, or put another in its place."""
    path = chaos.files / f"dev-{chaos.chance.randrange(world.FILE_COUNT)}"
    if path.exists() and chaos.chance.random() < 0.5:
        path.unlink()
        return
    fresh = path.with_name("fresh")
    fresh.touch()
    fresh.replace(path)


async def start_container(chaos: Chaos) -> None:
    """Admit a container and start it, as far as the device allows."""
    with contextlib.suppress(AdmissionError, ContainerStartError):
        held = await chaos.rig.kubelet.allocate(world.WELL, pod="soak")
        try:
            await chaos.rig.kubelet.pre_start(world.WELL, held.ids)
        finally:
            chaos.rig.kubelet.free("soak")


async def garbage(chaos: Chaos) -> None:
    """Send garbage to the daemon's sockets."""
    for path in (chaos.rig.layout.control, chaos.rig.layout.health):
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_unix_connection(path)
            writer.write(chaos.chance.randbytes(512))
            writer.close()
            await writer.wait_closed()


FAULTS: tuple[Fault, ...] = (
    kill_worker,
    kill_worker,
    stop_worker,
    kill_fork_server,
    stop_front,
    restart_kubelet,
    cancel_streams,
    order,
    order,
    reconfigure,
    plug,
    plug,
    start_container,
    start_container,
    garbage,
)

REFUSALS = (IpcError, LookupError)
"""What asking a daemon that is stopped or busy may raise: the next fault comes all the same."""
