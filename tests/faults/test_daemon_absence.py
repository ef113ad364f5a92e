"""The front itself is away, starved, blocked, or its clock jumps: no device is blamed for it."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

from devd.daemon.demo.rig import Rig
from devd.ipc import environment
from tests.faults.worlds import GRACE_S, SIM, scenario, sim, until

SUPPORT = Path(__file__).resolve().parents[1] / "support"
AWAY_S = 30.0
STARVED_ROUNDS = 20
"""Of 0.5 s each: a hang is found after 1.85 s of them."""
YEARS_S = 5 * 365 * 86400
TWO = "[{name: one}, {name: two}]"


def unturned(rig: Rig) -> bool:
    """Return whether the kubelet saw both devices Healthy and never anything else."""
    return all([health for _at_s, health in rig.turns(SIM, one)] == ["Healthy"] for one in ("one", "two"))


def health(rig: Rig, *more: str) -> subprocess.CompletedProcess[str]:
    """Run 'devd health' as a liveness probe does."""
    command = [sys.executable, "-m", "devd", "health", "--runtime-dir", str(rig.layout.root), *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=GRACE_S, check=False)


async def probed_again(rig: Rig) -> None:
    """Wait until both devices were probed twice more: whatever is to come of the past has come."""
    for name in ("one", "two"):
        for _ in range(2):
            before = rig.device(name)["last_probe"]["at"]
            await until(lambda name=name, at=before: rig.device(name)["last_probe"]["at"] != at, "a probe")  # type: ignore[misc]


def test_front_stopped_for_half_a_minute_blames_no_device() -> None:
    """After 30 s of SIGSTOP, dozens of leases long, no device turns; an Allocate at that very moment is granted."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 2)
        os.kill(rig.pid, signal.SIGSTOP)
        waiting = asyncio.create_task(rig.kubelet.allocate(SIM))
        await asyncio.sleep(AWAY_S)  # it is the fault itself, not a wait for something
        os.kill(rig.pid, signal.SIGCONT)
        assert (await waiting).ids
        await probed_again(rig)
        assert unturned(rig)
        assert rig.status()["daemon"]["counters"]["stalls"] >= 1
        assert rig.status()["daemon"]["counters"]["loop_blocks"] == 0

    scenario(sim(TWO), play)


def test_starved_front_blames_no_device() -> None:
    """A front that gets a twentieth of the time it needs, in pieces, turns no device."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 2)
        for _ in range(12):
            os.kill(rig.pid, signal.SIGSTOP)
            await asyncio.sleep(0.6)  # the fault itself
            os.kill(rig.pid, signal.SIGCONT)
            await asyncio.sleep(0.03)  # as above
        await probed_again(rig)
        assert unturned(rig)

    scenario(sim(TWO), play)


def test_starved_front_still_finds_what_hangs() -> None:
    """A front that is there for a third of the time finds a hang in not much more of its own time than one that is."""
    rounds = 0

    async def play(rig: Rig) -> None:
        nonlocal rounds
        await rig.healthy(SIM, 2)
        rig.inject("one", "hang")
        while len(rig.turns(SIM, "one")) < 2:
            os.kill(rig.pid, signal.SIGSTOP)
            await asyncio.sleep(1.0)  # the fault itself
            os.kill(rig.pid, signal.SIGCONT)
            await asyncio.sleep(0.5)  # as above
            rounds += 1
            assert rounds < STARVED_ROUNDS, "a device that hangs stays Healthy"
        assert "hung: sim hang one has not returned" in rig.device("one")["reason"]
        assert [word for _at_s, word in rig.turns(SIM, "two")] == ["Healthy"]

    scenario(sim(TWO), play)


def test_blocked_loop_is_noticed_and_written_down() -> None:
    """A loop that stands still fails 'devd health', says in the log where it stands, and turns no device after it."""

    async def play(rig: Rig) -> None:
        await rig.end_daemon()
        rig.program = (str(SUPPORT / "planted.py"),)
        rig.start_daemon()
        await rig.healthy(SIM, 2)
        assert health(rig).returncode == 0
        os.kill(rig.pid, signal.SIGUSR1)
        await until(lambda: "stand_still (planted.py:" in rig.log_text(), "the place in the log")
        blocked = await asyncio.to_thread(health, rig)
        os.kill(rig.pid, signal.SIGUSR2)
        assert blocked.returncode == 4
        assert "does not answer" in blocked.stderr
        await until(lambda: "the event loop goes on" in rig.log_text(), "its end")
        assert health(rig).returncode == 0
        await probed_again(rig)
        assert rig.status()["daemon"]["counters"]["loop_blocks"] == 1
        turns = {word for one in ("one", "two") for _at_s, word in rig.turns(SIM, one)}
        assert turns == {"Healthy"}

    scenario(sim(TWO), play)


@pytest.fixture(scope="module")
def clock_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the library that moves a process's wall clock."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler is to be had")
    library = tmp_path_factory.mktemp("clock") / "clock.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SUPPORT / "clock.c"), "-ldl"]
    subprocess.run(command, check=True)
    return library


@pytest.mark.parametrize("jump_s", [YEARS_S, -YEARS_S])
def test_wall_clock_that_jumps_turns_nothing(clock_library: Path, jump_s: int) -> None:
    """The wall clock of devd and its workers jumps by years, forth or back: only the dates shown change."""

    async def play(rig: Rig) -> None:
        await rig.end_daemon()
        offset = rig.root / "offset"
        offset.write_text("0", encoding="ascii")
        rig.environment = {
            "LD_PRELOAD": str(clock_library),
            "CLOCK_OFFSET": str(offset),
            environment.MORE: "CLOCK_OFFSET",
        }
        rig.start_daemon()
        await rig.healthy(SIM, 2)
        before = len(rig.turns(SIM, "one"))
        offset.write_text(str(jump_s), encoding="ascii")
        await until(lambda: abs(_age_s(rig)) > YEARS_S / 2, "the jump in what is shown")
        await probed_again(rig)
        assert len(rig.turns(SIM, "one")) == before
        assert rig.device("one")["restarts"] == 0
        assert rig.device("one")["lease_s"] < 10
        assert rig.status()["daemon"]["uptime_s"] < 1000
        assert (await rig.kubelet.allocate(SIM)).ids

    scenario(sim(TWO), play)


def _age_s(rig: Rig) -> float:
    return time.time() - datetime.fromisoformat(rig.device("one")["last_probe"]["at"]).timestamp()
