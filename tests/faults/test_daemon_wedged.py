"""A device whose driver holds its worker in uninterruptible sleep: fenced, until the kernel lets go."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from devd.daemon.demo.rig import Rig
from tests.faults.worlds import END_S, FILES, GRACE_S, SIM, alive, answers, files, scenario, until
from tests.support.hungfuse import HungFile

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts a filesystem"),
]

WELL = f"""
  - name: {SIM}
    driver: sim
    match: {{devices: [{{name: well}}]}}
    probe: {{kind: sim, period: 200ms, timeout: 500ms}}
"""


@pytest.fixture
def make_hung(tmp_path: Path) -> Iterator[Callable[[str], HungFile]]:
    """Return a function that mounts a file on which one call never returns."""
    with ExitStack() as mounts:

        def make(call: str) -> HungFile:
            try:
                return mounts.enter_context(HungFile(tmp_path / "mnt", call))
            except PermissionError as error:
                pytest.skip(f"FUSE is not to be had here: {error}")

        yield make


@pytest.fixture
def hung(make_hung: Callable[[str], HungFile]) -> HungFile:
    """Mount a file whose open never returns."""
    return make_hung("open")


PROBES = {
    "open": "kind: open",
    "read": "kind: read, bytes: 1",
    "stat": "kind: exists",
    "ioctl": "kind: ioctl, request: 0xAE00",
}


def children_named_like(pid: int) -> list[int]:
    """Return the pids of all live processes with a process's name and parent: its incarnations, if there were two."""
    mine = _name_and_parent(pid)
    others = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [other for other in others if alive(other) and _name_and_parent(other) == mine]


def _name_and_parent(pid: int) -> tuple[str, str] | None:
    """Return name and parent's pid; None for a process that is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return None
    name, _, rest = text.partition("(")[2].rpartition(")")
    return name, rest.split()[1]


def all_probed(rig: Rig) -> bool:
    """Return whether each device has been probed."""
    return all(one["last_probe"] is not None for one in rig.status()["devices"])


@pytest.mark.parametrize("call", list(PROBES))
def test_wedged_worker_fences_its_device_alone(make_hung: Callable[[str], HungFile], call: str) -> None:
    """A worker that SIGKILL cannot end fences its device, says where it hangs, harms no other, is replaced later."""
    hung = make_hung(call)
    config = files(hung.path, probe=f"{{{PROBES[call]}, period: 200ms, timeout: 500ms}}", more=WELL)
    config = config.replace("discovery: {period: 1s,", "discovery: {period: 4s,")

    async def play(rig: Rig) -> None:
        await until(lambda: answers(rig) and len(rig.status()["devices"]) == 2, "the devices")
        if call == "stat":
            # The one call that its worker's own start makes too: a hang there is told in other words, and later.
            await until(lambda: all_probed(rig), "the first probes")
        name = next(one["id"] for one in rig.status()["devices"] if one["resource"] == FILES)
        hung.begin()
        await until(lambda: rig.device(name)["wedged"], "the fence")
        device = rig.device(name)
        assert device["health"] == "Unhealthy"
        assert device["phase"] == "stopping"
        assert call in device["reason"].partition(" has not returned")[0]
        assert f"{hung.path} has not returned" in device["reason"]
        assert "fenced" in device["reason"]
        assert "in uninterruptible sleep (D)" in device["reason"]
        assert "kernel stack" in device["reason"]
        assert (await rig.journal_has(name, "wedged", 1))[0]["detail"]
        assert children_named_like(device["pid"]) == [device["pid"]]
        # Nobody else touches it: the scan goes on beside it, and past it.
        scanned = _scan_pid(rig), _scan_age_s(rig)
        await until(lambda: _scan_age_s(rig) < scanned[1], "another scan")
        assert _scan_pid(rig) == scanned[0]
        assert rig.device(name)["pid"] == device["pid"]
        # The fence holds for as long as it is looked at: probes of the neighbour are the clock.
        probes = rig.device("well")["last_probe"]["at"]
        await until(lambda: rig.device("well")["last_probe"]["at"] > probes, "another probe of the neighbour")
        assert rig.device(name)["incarnation"] == device["incarnation"]
        await rig.healthy(SIM, 1, GRACE_S)
        hung.release()
        await until(lambda: not alive(device["pid"]), "the end of the wedged worker")
        # The end of the FUSE server is the end of the file as well: another worker probes it, or the scan, which may
        # look there again from now on, was faster and found it gone.
        await until(lambda: probed_anew_or_gone(rig.device(name), device["incarnation"]), "its report")
        assert {health for _at_s, health in rig.turns(SIM, "well")} == {"Healthy"}

    scenario(config, play)


def probed_anew_or_gone(shown: dict[str, Any], incarnation: int) -> bool:
    """Return whether a worker after this incarnation serves the device, or there is no device any more."""
    phase: str = shown["phase"]
    return phase == "absent" or (phase == "serving" and int(shown["incarnation"]) > incarnation)


def _discovery(rig: Rig) -> dict[str, Any]:
    return next(dict(one["discovery"]) for one in rig.status()["resources"] if one["name"] == FILES)


def _scan_pid(rig: Rig) -> int:
    return int(_discovery(rig)["pid"])


def _scan_age_s(rig: Rig) -> float:
    return float(_discovery(rig)["age_s"])


def test_orders_on_a_fenced_device_say_what_they_wait_for(hung: HungFile) -> None:
    """'devd restart' names the process it waits for and is done once that is gone; 'devd probe' is refused with it."""
    config = files(hung.path, probe="{kind: open, period: 200ms, timeout: 500ms}", more=WELL)

    async def play(rig: Rig) -> None:
        await until(lambda: answers(rig) and len(rig.status()["devices"]) == 2, "the devices")
        name = next(one["id"] for one in rig.status()["devices"] if one["resource"] == FILES)
        hung.begin()
        await until(lambda: rig.device(name)["wedged"], "the fence")
        pid = rig.device(name)["pid"]
        restart, probe = _devd(rig, "restart", name), _devd(rig, "probe", name)
        assert (restart.returncode, probe.returncode) == (0, 1)
        assert f"{name}: restart ordered, and not done before process {pid} is gone" in restart.stdout
        assert f"{name}: no worker can be asked before process {pid} is gone" in probe.stderr
        assert "ordered;" in _devd(rig, "restart", "well").stdout
        hung.release()
        await until(lambda: rig.device(name)["pid"] not in (None, pid), "the worker that was ordered")

    scenario(config, play)


def _devd(rig: Rig, verb: str, device: str) -> subprocess.CompletedProcess[str]:
    """Give an order as an operator does."""
    command = [sys.executable, "-m", "devd", verb, device, "--runtime-dir", str(rig.layout.root)]
    return subprocess.run(command, capture_output=True, text=True, timeout=GRACE_S, check=False)


def test_orderly_end_does_not_wait_for_a_wedged_worker(hung: HungFile) -> None:
    """SIGTERM ends devd within 5 s and with code 0 although one worker cannot end; that one goes when it can."""
    config = files(hung.path, probe="{kind: open, period: 200ms, timeout: 500ms}", more=WELL)

    async def play(rig: Rig) -> None:
        await until(lambda: answers(rig) and bool(rig.status()["devices"]), "the devices")
        name = next(one["id"] for one in rig.status()["devices"] if one["resource"] == FILES)
        await until(lambda: rig.device(name)["wedged"], "the fence")
        wedged, others = rig.device(name)["pid"], rig.worker_pids()
        code, took_s = await rig.end_daemon()
        assert code == 0, rig.log_text()
        assert took_s < END_S
        assert [pid for pid in others if alive(pid)] == [wedged]
        assert not rig.layout.root.exists()
        hung.release()
        await until(lambda: not alive(wedged), "the wedged worker's end")

    scenario(config, play)
