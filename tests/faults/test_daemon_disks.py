"""Disks for logs and state that are full, read-only, forbidden or hung: health and RPCs go on, the loss is shown."""

import ctypes
import json
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from devd.daemon.demo.rig import Rig
from tests.faults.worlds import END_S, FILES, SIM, files, scenario, sim, until
from tests.support.hungfuse import HungFile

TWO = "[{name: one}, {name: sick, script: [{for: 600ms, do: pass}, {for: 400ms, do: fail}]}]"
MNT_DETACH = 2
PROMPT_S = 4.0
"""Below what a scribe gets to answer: whoever waits for a hung one takes longer. Usual are milliseconds."""
PAGE_BYTES = 4096
_libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a filesystem of a few pages."""
    if os.geteuid() != 0:
        pytest.skip("mounts a filesystem")
    directory = tmp_path / "small"
    directory.mkdir()
    if _libc.mount(b"small", os.fsencode(directory), b"tmpfs", 0, b"size=64k") != 0:
        pytest.skip(f"tmpfs is not to be had here: {os.strerror(ctypes.get_errno())}")
    yield directory
    _libc.umount2(os.fsencode(directory), MNT_DETACH)


@pytest.fixture
def hung_disk(tmp_path: Path) -> Iterator[HungFile]:
    """Mount a filesystem on which every look at a new name hangs."""
    if os.geteuid() != 0:
        pytest.skip("mounts a filesystem")
    with ExitStack() as mounts:
        try:
            yield mounts.enter_context(HungFile(tmp_path / "mnt", "lookup"))
        except PermissionError as error:
            pytest.skip(f"FUSE is not to be had here: {error}")


def counters(rig: Rig) -> dict[str, Any]:
    """Return the daemon's counters."""
    return dict(rig.status()["daemon"]["counters"])


async def goes_on(rig: Rig) -> None:
    """Wait for two turns of the sick device at the kubelet, and make an Allocate."""
    before = len(rig.turns(SIM, "sick"))
    await until(lambda: len(rig.turns(SIM, "sick")) >= before + 2, "its turns at the kubelet")
    assert (await rig.kubelet.allocate(SIM)).ids
    assert [health for _at_s, health in rig.turns(SIM, "one")] == ["Healthy"]


def fill(directory: Path) -> Path:
    """Fill a disk to its last byte; return the file that does it."""
    ballast = directory / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (PAGE_BYTES, 1):
            try:
                while file.write(b"\0" * size):
                    pass
            except OSError:
                continue
    return ballast


def all_whole(log_dir: Path) -> bool:
    """Return whether each line of all journals is whole. A broken one would stay so."""
    lines = [one for file in log_dir.glob("*.log") for one in file.read_text(encoding="utf-8").splitlines()]
    try:
        return bool(lines) and all(json.loads(line)["device"] for line in lines)
    except ValueError:
        return False


@pytest.mark.root
def test_full_disk_costs_lines_that_are_counted_and_nothing_else(small_disk: Path) -> None:
    """With no room for journals and state both losses show; with room again the newest state is written, all whole."""

    async def play(rig: Rig) -> None:
        await rig.end_daemon()
        rig.log_dir, rig.state_dir = small_disk / "log", small_disk / "state"
        rig.start_daemon()
        await rig.healthy(SIM, 1)
        ballast = fill(small_disk)
        rig.order("cordon", "one", reason="while the disk is full")
        await until(lambda: counters(rig)["journal"]["lost"] > 0, "lost journal lines")
        await until(lambda: counters(rig)["state"]["waiting"] > 0, "state that waits")
        # It waits from the order on, its error comes with the first try; a line is lost before its error is told.
        await until(lambda: "ENOSPC" in counters(rig)["state"]["error"], "the state's error")
        await until(lambda: bool(counters(rig)["journal"]["error"]), "the journal's error")
        rig.order("uncordon", "one")
        await until(lambda: rig.device("one")["health"] == "Healthy", "the order's effect")
        before = len(rig.turns(SIM, "sick"))
        await until(lambda: len(rig.turns(SIM, "sick")) >= before + 2, "its turns at the kubelet")
        assert (await rig.kubelet.allocate(SIM)).ids
        rig.order("cordon", "one", reason="the last word")
        ballast.unlink()
        await until(lambda: counters(rig)["state"]["waiting"] == 0, "the disk has taken all")
        kept = json.loads((rig.state_dir / "devices" / "one.json").read_text(encoding="utf-8"))
        assert kept["cordon"] == "the last word"
        # The sick device goes on falling: what is being written at this moment is written whole a moment later.
        await until(lambda: not list((rig.state_dir / "devices").glob("*.new")), "no file half written")
        await until(lambda: all_whole(rig.log_dir), "no line but whole ones")
        await until(lambda: counters(rig)["state"]["error"] == "", "the end of the trouble")

    scenario(sim(TWO), play)


@pytest.mark.root
def test_hung_disk_holds_up_nothing(hung_disk: HungFile) -> None:
    """Journals and state on a disk that stops to answer: devd goes on, says so, and still ends in order.

    The process itself is gone only once the kernel lets go of its two threads.
    """

    async def play(rig: Rig) -> None:
        await rig.end_daemon()
        disk = Path(hung_disk.path).parent
        rig.log_dir = disk / "log"
        rig.start_daemon()
        await rig.healthy(SIM, 1)
        await until(lambda: counters(rig)["state"]["waiting"] == 0, "the disk has taken all")
        (rig.state_dir / "devices").rename(rig.state_dir / "devices.old")
        (rig.state_dir / "devices").symlink_to(disk / "devices")
        rig.order("restart", "sick")
        await goes_on(rig)
        await until(lambda: counters(rig)["state"]["waiting"] > 0, "state that waits")
        await until(lambda: counters(rig)["journal"]["waiting"] > 0, "journal lines that wait")
        os.kill(rig.pid, signal.SIGTERM)
        await until(lambda: "devd ended" in rig.log_text(), "the orderly end")
        await until(lambda: not rig.layout.root.exists(), "the end of its directory")  # which comes after that line
        hung_disk.release()
        code, _ = await rig.end_daemon(signal.SIGCONT)  # it has had its SIGTERM
        assert code == 0

    scenario(sim(TWO), play)


@pytest.mark.root
def test_no_device_is_touched_before_its_state_is_read(hung_disk: HungFile) -> None:
    """State on a disk that hangs at the start: devices are held with the reason, and an operator gives them back."""

    async def play(rig: Rig) -> None:
        await rig.end_daemon()
        rig.state_dir = Path(hung_disk.path).parent / "state"
        rig.start_daemon()
        try:
            await until(lambda: len(rig.status()["devices"]) == 2, "the devices")
            await until(lambda: "no answer from the disk" in counters(rig)["state"]["error"], "the state's error")
            await rig.kubelet.wait_for(lambda: _listed(rig) == ["Unhealthy"] * 2, END_S, "the kubelet knows of it")
            one = rig.device("one")
            assert "its state has not been read yet" in one["reason"]
            assert "devd uncordon one" in one["reason"]
            assert (one["pid"], one["incarnation"], one["wedged"]) == (None, 0, False)
            rig.order("uncordon", "one")
            await rig.healthy(SIM, 1)
            assert (await rig.kubelet.allocate(SIM)).ids == ("one",)
            assert rig.device("sick")["incarnation"] == 0
            await until(lambda: counters(rig)["state"]["waiting"] > 0, "state that waits")
        finally:
            # A process with a thread in a dead disk cannot end.
            hung_disk.release()

    scenario(sim(TWO), play)


def _listed(rig: Rig) -> list[str]:
    """Return the healths of the present list at the kubelet."""
    state = rig.kubelet.resources.get(SIM)
    return [device.health for device in state.devices.values()] if state is not None and state.stream_alive else []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_forbidden_disk_is_shown() -> None:
    """Directories that may not be written: devd serves, and says what it cannot keep."""

    async def play(rig: Rig) -> None:
        await rig.end_daemon()
        locked = rig.root / "locked"
        locked.mkdir(mode=0o500)
        rig.log_dir, rig.state_dir = locked / "log", locked / "state"
        rig.start_daemon()
        await rig.healthy(SIM, 1)
        await goes_on(rig)
        await until(lambda: "EACCES" in counters(rig)["state"]["error"], "the error")
        await until(lambda: counters(rig)["journal"]["lost"] > 0, "lost journal lines")

    scenario(sim(TWO), play)


@pytest.mark.root
def test_read_only_disk_is_shown(small_disk: Path) -> None:
    """A disk that turns read-only under devd: the same."""
    ms_rdonly, ms_remount = 1, 32

    async def play(rig: Rig) -> None:
        await rig.end_daemon()
        rig.log_dir, rig.state_dir = small_disk / "log", small_disk / "state"
        rig.start_daemon()
        await rig.healthy(SIM, 1)
        assert _libc.mount(b"small", os.fsencode(small_disk), b"tmpfs", ms_rdonly | ms_remount, b"size=64k") == 0
        rig.order("cordon", "one")
        await until(lambda: "EROFS" in counters(rig)["state"]["error"], "the error")
        await until(lambda: counters(rig)["journal"]["lost"] > 0, "lost journal lines")
        rig.order("uncordon", "one")
        before = len(rig.turns(SIM, "sick"))
        await until(lambda: len(rig.turns(SIM, "sick")) >= before + 2, "its turns at the kubelet")

    scenario(sim(TWO), play)


def named(folder: Path) -> str:
    """Return a configuration of one device that is offered by CDI as well."""
    folder.mkdir()
    (folder / "null").symlink_to("/dev/null")
    return files(folder / "*", more="    cdi: auto\n")


@pytest.mark.root
def test_hung_directory_of_specifications_costs_names_alone(hung_disk: HungFile, tmp_path: Path) -> None:
    """The scribe hangs and is killed, again and again; devices are probed, offered and given by their nodes."""

    async def play(rig: Rig) -> None:
        await rig.end_daemon()
        rig.cdi_dir = Path(hung_disk.path).parent
        rig.start_daemon()
        await rig.healthy(FILES, 1)
        for number in range(20):
            given = await rig.kubelet.allocate(FILES, pod=f"p{number}")
            rig.kubelet.free(f"p{number}")
            assert given.duration_s < PROMPT_S
            assert given.response.devices
            assert not given.response.cdi_devices
        await until(lambda: "hung: " in rig.status()["daemon"]["cdi"]["reason"], "the reason")
        (one,) = rig.status()["devices"]
        assert one["health"] == "Healthy"
        assert {health for _at_s, health in rig.turns(FILES, one["id"])} == {"Healthy"}
        hung_disk.release()

    scenario(named(tmp_path / "d"), play)


@pytest.mark.root
def test_full_directory_of_specifications_costs_names_alone(small_disk: Path, tmp_path: Path) -> None:
    """ENOSPC is told, the old state stands, no half file is left; once there is room the names are given."""

    async def play(rig: Rig) -> None:
        await rig.end_daemon()
        rig.cdi_dir = small_disk
        ballast = fill(small_disk)
        rig.start_daemon()
        await rig.healthy(FILES, 1)
        assert not (await rig.kubelet.allocate(FILES, pod="first")).response.cdi_devices
        rig.kubelet.free("first")
        await until(lambda: "ENOSPC" in rig.status()["resources"][0]["cdi"]["problem"], "the problem")
        # Half a file is there while it is tried, again and again; what was left of one would stay.
        await until(lambda: os.listdir(small_disk) == [ballast.name], "no half file")  # noqa: PTH208 - names alone
        ballast.unlink()
        await until(lambda: rig.status()["resources"][0]["cdi"]["named"] == 1, "the name")
        assert len((await rig.kubelet.allocate(FILES)).response.cdi_devices) == 1

    scenario(named(tmp_path / "d"), play)
