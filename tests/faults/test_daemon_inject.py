"""``devd inject``: simulated devices misbehave at an operator's word, as the kubelet sees it."""

import subprocess
import sys
from pathlib import Path

import pytest

from devd.daemon.demo.rig import Rig
from tests.faults.worlds import FILES, SIM, files, scenario, sim, until

THREE = "[{name: one}, {name: two}, {name: three}]"


def devd(rig: Rig, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command line against the rig's daemon."""
    command = [sys.executable, "-m", "devd", words[0], "--runtime-dir", str(rig.layout.root), *words[1:]]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)


def test_failure_is_injected_and_taken_back() -> None:
    """One device fails with the operator's reason until it is told to stop; the others do not notice."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 3)
        done = devd(rig, "inject", "one", "fail", "--reason", "a rehearsal")
        assert (done.returncode, done.stderr) == (0, "")
        await rig.unhealthy(SIM, 1)
        one = rig.device("one")
        assert "a rehearsal" in one["reason"]
        assert one["injected"] == "fail"
        assert [rig.device(name)["health"] for name in ("two", "three")] == ["Healthy"] * 2
        assert devd(rig, "inject", "one", "none").returncode == 0
        await rig.healthy(SIM, 3)
        assert rig.device("one")["injected"] is None
        told = await rig.journal_has("one", "injected", 2)
        assert [one["detail"] for one in told] == ["fail", "nothing any more"]

    scenario(sim(THREE), play)


def test_hang_outlives_its_worker_and_ends_in_time() -> None:
    """A hang for some seconds comes back with each new worker; when its time is up the device is well by itself."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 3)
        assert devd(rig, "inject", SIM, "hang", "--for", "6").returncode == 0
        await rig.unhealthy(SIM, 3)
        await until(lambda: all(rig.device(name)["restarts"] >= 2 for name in ("one", "two", "three")), "a second hang")
        await rig.healthy(SIM, 3)
        assert rig.device("two")["injected"] is None

    scenario(sim(THREE), play)


def test_crash_is_recorded_like_any_other() -> None:
    """An injected crash is a real segmentation fault: the journal has its signal."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 3)
        assert devd(rig, "inject", "three", "crash").returncode == 0
        crashes = await rig.journal_has("three", "crash", 1)
        assert "SIGSEGV" in crashes[0]["detail"]
        assert devd(rig, "inject", "three", "none").returncode == 0
        await rig.healthy(SIM, 3)

    scenario(sim(THREE), play)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("four", "fail"), "no device and no resource 'four'"),
        (("one", "melt"), "unknown fault 'melt': this daemon knows fail, hang"),
        (("one", "fail", "--for", "0"), "seconds from"),
    ],
)
def test_senseless_orders_are_refused(words: tuple[str, ...], said: str) -> None:
    """What cannot be injected is refused by name, and nothing happens to any device."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 3)
        told = devd(rig, "inject", *words)
        assert told.returncode in (1, 2)
        assert said in told.stderr
        assert all(one["injected"] is None for one in rig.status()["devices"])

    scenario(sim(THREE), play)


def test_real_devices_take_no_fault(tmp_path: Path) -> None:
    """A device whose probe is real is refused, with what to do instead."""
    (tmp_path / "dev0").write_text("x")

    async def play(rig: Rig) -> None:
        await rig.healthy(FILES)
        told = devd(rig, "inject", rig.status()["devices"][0]["id"], "fail")
        assert told.returncode == 1
        assert "simulated devices alone" in told.stderr
        assert "devd cordon" in told.stderr

    scenario(files(tmp_path / "dev*"), play)
