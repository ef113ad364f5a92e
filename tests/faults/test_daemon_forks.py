"""The fork server cannot start, or cannot fork: workers that run go on, and what is missing is told."""

import os
import shutil
import signal
from pathlib import Path

import pytest

from devd.daemon.demo.rig import Rig
from tests.faults.worlds import SIM, alive, scenario, sim, until

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("daemon", "workers", "ipc", "proto")


def copy_of_devd(where: Path) -> Path:
    """Install devd beside the test, so that files of it can be taken away."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, where / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "devd", where / "devd", symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    return where


def test_missing_program_file_costs_no_worker_that_runs() -> None:
    """With the fork server's own file gone its death costs no worker; the error is told; both come back."""

    async def play(rig: Rig) -> None:
        await rig.end_daemon()
        install = copy_of_devd(rig.root / "install")
        rig.environment = {"PYTHONPATH": str(install), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONSAFEPATH": "1"}
        rig.start_daemon()
        await rig.healthy(SIM, 2)
        workers = [one["pid"] for one in rig.status()["devices"]]
        file = install / "workers" / "forkserver.py"
        file.rename(file.with_suffix(".gone"))
        server = rig.status()["daemon"]["forkserver"]["pid"]
        os.kill(server, signal.SIGKILL)
        await until(lambda: "No module named devd.workers.forkserver" in _raw_log(rig), "the error")
        assert all(alive(pid) for pid in workers)
        os.kill(workers[0], signal.SIGKILL)
        await until(lambda: not alive(workers[0]), "one worker's end")
        probes = rig.device("two")["last_probe"]["at"]
        await until(lambda: rig.device("two")["last_probe"]["at"] > probes, "a probe of the other")
        file.with_suffix(".gone").rename(file)
        await until(lambda: rig.device("one")["pid"] not in (None, workers[0]), "a new worker", timeout_s=60)
        await rig.healthy(SIM, 2)
        assert [word for _at_s, word in rig.turns(SIM, "two")] == ["Healthy"]
        assert rig.device("two")["restarts"] == 0

    scenario(sim("[{name: one}, {name: two}]"), play)


def _raw_log(rig: Rig) -> str:
    return (rig.root / "devd.log").read_text(encoding="utf-8", errors="replace")


@pytest.mark.parametrize("awaited", ["end", "order"])
def test_stopped_fork_server_is_given_up_and_costs_no_worker(awaited: str) -> None:
    """A fork server that is stopped while a worker's end, or a new worker, is waited for is ended and replaced."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 2)
        server, old, other = (
            rig.status()["daemon"]["forkserver"]["pid"],
            *(rig.device(n)["pid"] for n in ("one", "two")),
        )
        if awaited == "end":
            os.kill(server, signal.SIGSTOP)
            os.kill(old, signal.SIGKILL)
        else:
            os.kill(old, signal.SIGKILL)
            await until(lambda: rig.device("one")["phase"] == "backoff", "its pause")
            os.kill(server, signal.SIGSTOP)
        await until(lambda: rig.status()["daemon"]["forkserver"]["pid"] not in (None, server), "a new fork server")
        assert f"the fork server has not answered for 2 s: process {server} is stopped (T)" in _raw_log(rig)
        await until(lambda: rig.device("one")["pid"] not in (None, old), "a new worker")
        await until(lambda: rig.device("one")["phase"] == "serving", "its report")
        assert not alive(server)
        assert rig.device("two")["pid"] == other
        assert {word for one in ("one", "two") for _at_s, word in rig.turns(SIM, one)} == {"Healthy"}

    # The lease is long: on a busy machine a fork server may take seconds to be there.
    more = "    restart: {backoff: 3s, backoff_max: 3s}\n"
    scenario(sim("[{name: one}, {name: two}]", period="1s", timeout="30s", more=more), play)
