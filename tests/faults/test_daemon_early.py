"""devd is told to end, or to read its configuration again, while it is still starting."""

import os
import signal
from pathlib import Path

import pytest

from devd.daemon.demo.rig import Rig
from tests.faults.worlds import END_S, SIM, scenario, sim, until
from tests.support.hungfuse import HungFile

SUPPORT = Path(__file__).resolve().parents[1] / "support"
ONE = "[{name: one}]"


def left(rig: Rig) -> list[str]:
    """Return what of devd is still there."""
    sockets = [one.name for one in rig.plugins.iterdir() if one.name.startswith("devd")]
    return sockets + ([str(rig.layout.root)] if rig.layout.root.exists() else [])


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_end_before_anything_was_begun_is_an_orderly_one(name: str) -> None:
    """A signal that comes while modules are loaded ends devd with code 0; nothing is left, and nothing is told."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 1)
        await rig.end_daemon()
        before = rig.log_text()
        rig.program = (str(SUPPORT / "early.py"), name)
        process = rig.start_daemon()
        await until(lambda: process.poll() is not None, "its end")
        assert process.returncode == 0
        assert rig.log_text() == before
        assert left(rig) == []

    scenario(sim(ONE), play)


def test_hangup_while_starting_ends_nobody() -> None:
    """SIGHUP asks for what is about to be done anyway."""

    async def play(rig: Rig) -> None:
        await rig.end_daemon()
        rig.program = (str(SUPPORT / "early.py"), "SIGHUP")
        rig.start_daemon()
        await rig.healthy(SIM, 1)
        assert rig.status()["daemon"]["config_error"] in (None, "")

    scenario(sim(ONE), play)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a filesystem")
def test_end_while_the_state_is_read_is_an_orderly_one(tmp_path: Path) -> None:
    """A disk for the state that hangs holds up neither the start nor an end in the middle of it."""
    try:
        disk = HungFile(tmp_path / "mnt", "lookup")
    except PermissionError as error:
        pytest.skip(f"FUSE is not to be had here: {error}")

    async def play(rig: Rig) -> None:
        await rig.end_daemon()
        rig.state_dir = tmp_path / "mnt" / "state"
        process = rig.start_daemon()
        await until(disk.hangs, "the disk to be asked")
        os.kill(process.pid, signal.SIGTERM)
        await until(lambda: "devd ended before it served" in rig.log_text(), "the orderly end", END_S)
        await until(lambda: left(rig) == [], "the end of its directory")
        # The process itself is gone once the kernel lets go of the thread that reads.
        disk.release()
        code, _took_s = await rig.end_daemon(signal.SIGCONT)  # it has had its SIGTERM
        assert code == 0, rig.log_text()
        assert "Traceback" not in rig.log_text()

    try:
        scenario(sim(ONE), play)
    finally:
        disk.close()
