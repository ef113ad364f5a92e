"""The state directory at a start: read-only, slow, obstructed, damaged, a newer devd's; and what piles up nowhere."""

import json
import os
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devd.daemon import memory
from devd.daemon.demo.rig import Rig
from tests.faults.worlds import SIM, answers, scenario, sim, until

TWO = "[{name: one}, {name: two}]"

SLOW = """
import runpy, sys, time
from pathlib import Path
from devd.daemon import memory_store
read = memory_store.MemoryStore._load
def slowly(self):
    while not Path(sys.argv[0] + ".go").exists():
        time.sleep(0.02)
    return read(self)
memory_store.MemoryStore._load = slowly
runpy.run_module("devd", run_name="__main__")
"""
"""A devd whose disk does not answer before a file is there."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a small filesystem."""
    if os.geteuid() != 0:
        pytest.skip("mounts a filesystem")
    directory = tmp_path / "small"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(directory)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("tmpfs is not to be had here")
    yield directory
    subprocess.run(["umount", "-l", str(directory)], check=True)


def turn_read_only(disk: Path) -> None:
    """Let nobody write to a disk any more."""
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)


def state(rig: Rig) -> dict[str, Any]:
    """Return how the store stands."""
    return dict(rig.status()["daemon"]["counters"]["state"])


def kept(rig: Rig, device: str) -> dict[str, Any]:
    """Return what is written of a device."""
    return dict(json.loads((rig.state_dir / "devices" / f"{device}.json").read_text(encoding="utf-8")))


def rewrite(file: Path, **changes: object) -> None:
    """Change fields of a file as another devd would."""
    facts = json.loads(file.read_bytes())
    del facts["checksum"]
    facts |= changes
    facts["checksum"] = zlib.crc32(memory._line(facts))
    file.write_bytes(memory._line(facts))


async def cordoned(rig: Rig) -> None:
    """Cordon the first of two devices, and end devd when that is written."""
    await until(lambda: answers(rig) and rig.device("one")["health"] == "Healthy", "the first verdict")
    rig.order("cordon", "one", reason="fan is broken")
    await until(lambda: state(rig)["waiting"] == 0, "the disk has taken it")
    await rig.end_daemon()


async def still_cordoned(rig: Rig) -> None:
    """Wait until both devices are judged; the first one's cordon stands, the other is offered."""
    await until(lambda: rig.device("two")["health"] == "Healthy", "the other")
    await until(lambda: rig.device("one")["last_probe"] is not None, "a probe of the first")
    assert rig.device("one")["health"] == "Unhealthy"
    assert rig.device("one")["cordon"] == "fan is broken"


@pytest.mark.root
def test_cordon_is_known_on_a_read_only_disk(small_disk: Path) -> None:
    """What can be read is known, although nothing can be written: not even who holds the lock."""

    async def play(rig: Rig) -> None:
        await rig.end_daemon()
        rig.state_dir = small_disk / "state"
        rig.start_daemon()
        await cordoned(rig)
        turn_read_only(small_disk)
        rig.start_daemon()
        await still_cordoned(rig)
        await until(lambda: "EROFS" in state(rig)["error"], "the error")

    scenario(sim(TWO), play)


def test_obstructed_file_costs_its_own_device_alone() -> None:
    """A damaged file that cannot be set aside is left in place, and cordons its device; the others are known."""

    async def play(rig: Rig) -> None:
        await cordoned(rig)
        directory = rig.state_dir / "devices"
        (directory / "two.json").write_bytes(b"x")
        (directory / "two.json.corrupt").mkdir()
        rig.start_daemon()
        await until(lambda: answers(rig) and rig.device("two")["last_probe"] is not None, "a probe")
        await until(lambda: rig.device("one")["last_probe"] is not None, "a probe of the first")
        assert rig.device("one")["cordon"] == "fan is broken"
        assert "cannot be set aside" in rig.device("two")["reason"]
        await until(lambda: state(rig)["failed"] > 0, "a write that failed")
        assert (directory / "two.json").read_bytes() == b"x"
        (directory / "two.json.corrupt").rmdir()
        await until(lambda: state(rig)["waiting"] == 0, "the disk has taken all")
        assert (directory / "two.json.corrupt").read_bytes() == b"x"
        assert kept(rig, "one")["cordon"] == "fan is broken"

    scenario(sim(TWO), play)


@pytest.mark.parametrize("early", [False, True], ids=["answers", "never"])
def test_slow_disk_overwrites_nothing(early: bool) -> None:  # noqa: FBT001 - pytest passes by name
    """Until the disk answers no device is started and no file is written; then all is as if it had been in time."""

    async def play(rig: Rig) -> None:
        await cordoned(rig)
        program, before = rig.program, kept(rig, "one")
        slow = rig.root / "slow.py"
        slow.write_text(SLOW, encoding="utf-8")
        rig.program = (str(slow),)
        rig.start_daemon()
        await until(lambda: answers(rig) and len(rig.status()["devices"]) == 2, "the devices")
        for one in rig.status()["devices"]:
            assert "its state has not been read yet" in one["reason"]
            assert one["pid"] is None
        rig.order("cordon", "two", reason="newer than what is read")
        if early:
            await rig.end_daemon()
            assert kept(rig, "one") == before
            rig.program = program
            rig.start_daemon()
            await still_cordoned(rig)
            return
        slow.with_name("slow.py.go").touch()
        await until(lambda: rig.device("one")["last_probe"] is not None, "a probe")
        assert rig.device("one")["cordon"] == "fan is broken"
        await until(lambda: rig.device("two")["reason"].startswith("cordoned: newer"), "the newer word")
        await until(lambda: state(rig)["waiting"] == 0 and not state(rig)["error"], "the disk has taken all")
        assert kept(rig, "one")["cordon"] == "fan is broken"
        assert kept(rig, "two")["cordon"] == "newer than what is read"
        rig.order("uncordon", "one")
        await rig.healthy(SIM, 1)

    scenario(sim(TWO), play)


def test_newer_file_is_set_aside_whole_and_its_device_cordoned() -> None:
    """What an older devd does not understand it neither believes nor destroys."""

    async def play(rig: Rig) -> None:
        await cordoned(rig)
        file = rig.state_dir / "devices" / "one.json"
        rewrite(file, version=memory.VERSION + 1, cordon={"by": "somebody"})
        data = file.read_bytes()
        rig.start_daemon()
        await rig.healthy(SIM, 1)
        await until(lambda: "a newer devd wrote it" in rig.device("one")["reason"], "the reason")
        assert file.with_name("one.json.newer").read_bytes() == data
        assert "one.json.newer" in rig.log_text()

    scenario(sim(TWO), play)


def test_unknown_fields_are_written_again_as_they_were() -> None:
    """A newer devd's field outlives an older one's writes, which says so."""

    async def play(rig: Rig) -> None:
        await cordoned(rig)
        rewrite(rig.state_dir / "devices" / "one.json", mood={"as": ["it", "was"]})
        rig.start_daemon()
        await still_cordoned(rig)
        rig.order("cordon", "one", reason="noise")
        await until(lambda: kept(rig, "one")["cordon"] == "noise", "the disk has taken it")
        assert kept(rig, "one")["mood"] == {"as": ["it", "was"]}
        assert "one: its state has fields of a newer devd" in rig.log_text()

    scenario(sim(TWO), play)


def test_file_that_cannot_be_written_holds_up_no_other() -> None:
    """The next device's word is written while the first one's waits."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 2)
        await until(lambda: state(rig)["waiting"] == 0, "the disk has taken all")
        obstacle = rig.state_dir / "devices" / "one.json.new"
        obstacle.mkdir()
        rig.order("cordon", "one", reason="first")
        await until(lambda: "EISDIR" in state(rig)["error"], "the error")
        rig.order("cordon", "two", reason="second")
        await until(lambda: kept(rig, "two")["cordon"] == "second", "the other's word", 4.0)
        await until(lambda: state(rig)["waiting"] == 1, "the first one's alone")
        assert "one.json.new" in state(rig)["error"]
        obstacle.rmdir()
        await until(lambda: state(rig)["waiting"] == 0 and not state(rig)["error"], "the disk has taken all")
        assert kept(rig, "one")["cordon"] == "first"

    scenario(sim(TWO), play)


def test_damaged_state_cordons_no_helper() -> None:
    """A scout's file is set aside like any other; it is no device, and nobody could uncordon it."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 2)
        await until(lambda: state(rig)["waiting"] == 0, "the disk has taken all")
        await rig.end_daemon(9)
        (file,) = (rig.state_dir / "devices").glob("scout*.json")
        file.write_bytes(b"x")
        rig.start_daemon()
        await rig.healthy(SIM, 2)
        (resource,) = rig.status()["resources"]
        assert resource["discovery"]["health"] == "Healthy"
        assert resource["discovery"]["reason"] == ""
        assert file.with_name(file.name + ".corrupt").exists()

    scenario(sim(TWO), play)


def test_held_device_says_after_a_restart_what_it_fell_for() -> None:
    """The cause of the hold is a part of what is remembered."""
    script = ", ".join(["{for: 600ms, do: pass}, {for: 400ms, do: fail, reason: link down}"] * 2)
    more = "    flap: {count: 2, within: 60s, hold: 30s}\n"

    async def play(rig: Rig) -> None:
        await until(lambda: rig.device("one")["reason"].startswith("held back"), "the hold")
        await until(lambda: state(rig)["waiting"] == 0, "the disk has taken all")
        rig.config.write_text(sim("[{name: one}]", more=more), encoding="utf-8")
        await rig.end_daemon()
        rig.start_daemon()
        await until(lambda: rig.device("one")["reason"].startswith("held back"), "the hold")
        assert rig.device("one")["reason"].endswith("last: link down")

    scenario(sim(f"[{{name: one, script: [{script}, {{do: pass}}]}}]", more=more), play)


def test_restart_of_a_worker_is_written_once() -> None:
    """The dead worker's mark stands until the next one's takes its place: one write each, not two."""
    more = "    restart: {intensity: 1000, backoff: 300ms, backoff_max: 300ms}\n"

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 1)
        await until(lambda: state(rig)["waiting"] == 0, "the disk has taken all")
        before = kept(rig, "one")["worker"]
        rig.inject("one", "exit")
        await until(lambda: rig.device("one")["phase"] == "backoff", "the pause")
        assert kept(rig, "one")["worker"] == before
        await until(lambda: kept(rig, "one")["worker"][0] != before[0], "the next one's mark")

    scenario(sim("[{name: one}]", more=more), play)
