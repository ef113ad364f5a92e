"""The daemon's own life: start, end, being killed, a second one beside it, what it leaves behind."""

import os
import signal
import subprocess
import time

from devd.daemon.demo.rig import Rig
from tests.faults.worlds import END_S, GRACE_S, SIM, alive, answers, scenario, sim, until

WELL = "[{name: one}, {name: two}]"


def leftovers(rig: Rig) -> list[str]:
    """Return sockets of devd, and its runtime directory, if they are still there."""
    found = [str(path) for path in (*rig.plugins.iterdir(), *rig.registry.iterdir()) if path.name.startswith("devd")]
    return found + ([str(rig.layout.root)] if rig.layout.root.exists() else [])


def test_orderly_end_leaves_nothing() -> None:
    """SIGTERM ends devd with code 0 within 5 s; no process, socket or directory of it is left."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 2)
        pids = rig.worker_pids()
        assert len(pids) == 4  # two workers, a scout, the fork server
        code, took_s = await rig.end_daemon()
        assert code == 0, rig.log_text()
        assert took_s < END_S
        assert [pid for pid in pids if alive(pid)] == []
        assert leftovers(rig) == []

    scenario(sim(WELL), play)


def test_orderly_end_while_a_probe_hangs() -> None:
    """A probe that hangs does not hold up the end."""

    async def play(rig: Rig) -> None:
        await until(lambda: answers(rig), "an answer")
        await until(lambda: bool(rig.status()["devices"]), "the device")
        await until(lambda: rig.device("hangs")["pid"] is not None, "its worker")
        pids = rig.worker_pids()
        code, took_s = await rig.end_daemon()
        assert code == 0
        assert took_s < END_S
        assert [pid for pid in pids if alive(pid)] == []
        assert leftovers(rig) == []

    scenario(sim("[{name: hangs, script: [{do: hang}]}]", period="1s", timeout="10s"), play)


def test_killed_front_takes_its_workers_along() -> None:
    """After SIGKILL to the front all its processes are gone soon, one that hangs in its probe too; a new one serves."""
    devices = "[{name: one}, {name: hangs, script: [{for: 1s, do: pass}, {do: hang}]}]"

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 2)
        await until(lambda: rig.device("hangs")["last_probe"]["age_s"] > 1.5, "the hang under way")
        pids, lists = rig.worker_pids(), len(rig.kubelet.resources[SIM].lists)
        code, _took_s = await rig.end_daemon(signal.SIGKILL)
        assert code == -signal.SIGKILL
        await until(lambda: not any(alive(pid) for pid in pids), "the end of its processes")
        rig.start_daemon()
        await rig.kubelet.wait_for(lambda: len(rig.kubelet.resources[SIM].lists) > lists, GRACE_S, "another list")
        await until(lambda: answers(rig), "an answer")
        await until(lambda: rig.device("one")["health"] == "Healthy", "health under the new daemon")
        assert await rig.healthy(SIM, 1) < GRACE_S

    scenario(sim(devices, timeout="30s"), play)


def test_second_daemon_on_one_directory_refuses_and_names_the_first() -> None:
    """A second devd on the same runtime directory ends with code 1, names the holder, and harms nothing."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 2)
        done = subprocess.run(rig.command(), capture_output=True, text=True, timeout=30, check=False)  # noqa: ASYNC221
        assert done.returncode == 1
        assert f"another devd (pid {rig.pid})" in done.stderr
        assert "--runtime-dir" in done.stderr
        assert rig.kubelet.allocatable(SIM) == 2
        assert len(rig.status()["devices"]) == 2

    scenario(sim(WELL), play)


def test_second_daemon_on_one_kubelet_refuses() -> None:
    """A second devd that would take over a live resource's socket ends with code 1 and says who holds it."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 2)
        command = rig.command()
        command[command.index("--runtime-dir") + 1] = str(rig.root / "run2")
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: ASYNC221
        assert done.returncode == 1
        assert str(rig.pid) in done.stderr
        assert rig.kubelet.allocatable(SIM) == 2
        assert not (rig.root / "run2").exists()

    scenario(sim(WELL), play)


def test_wrong_configuration_is_refused_at_start() -> None:
    """The daemon refuses a wrong configuration with code 2 and the same words as 'devd check'."""
    config = sim(WELL).replace("driver: sim", "driver: sym")

    async def play(rig: Rig) -> None:
        assert rig.daemon is not None
        await until(lambda: rig.daemon is not None and rig.daemon.poll() is not None, "its end")
        assert rig.daemon.returncode == 2
        assert "driver" in rig.log_text()
        assert "sym" in rig.log_text()

    scenario(config, play)


def test_fork_server_death_costs_no_worker() -> None:
    """When the fork server is killed the workers go on, a new one starts, and new workers come from it."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 2)
        before = rig.status()
        server = before["daemon"]["forkserver"]["pid"]
        os.kill(server, signal.SIGKILL)
        await until(lambda: rig.status()["daemon"]["forkserver"]["pid"] not in (None, server), "a new fork server")
        after = rig.status()
        assert after["daemon"]["forkserver"]["restarts"] == 1
        assert [one["pid"] for one in after["devices"]] == [one["pid"] for one in before["devices"]]
        # A worker that the old one had made is waited for by the front itself.
        old = rig.device("one")["pid"]
        os.kill(old, signal.SIGKILL)
        await until(lambda: rig.device("one")["pid"] not in (None, old), "a worker of the new fork server")
        await until(lambda: rig.device("one")["phase"] == "serving", "its report")
        assert rig.device("one")["last_exit"] == "killed by SIGKILL"
        assert [health for _at_s, health in rig.turns(SIM, "one")] == ["Healthy"]

    # The lease is long: on a busy machine a fork server may take seconds to be there.
    scenario(sim(WELL, period="1s", timeout="20s"), play)


def test_status_says_when_nobody_runs_and_when_nobody_answers() -> None:
    """'devd status' exits 3 without a daemon and 4, within 2 s, with one that is stopped."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 2)
        command = [*rig.command()[:3], "status", "--runtime-dir"]
        nobody = subprocess.run(  # noqa: ASYNC221 - the kubelet beside it has nothing to do
            [*command, str(rig.root / "nobody")], capture_output=True, text=True, timeout=30, check=False
        )
        assert nobody.returncode == 3
        assert "no daemon runs" in nobody.stderr
        os.kill(rig.pid, signal.SIGSTOP)
        try:
            began_s = time.monotonic()
            silent = subprocess.run(  # noqa: ASYNC221 - the kubelet beside it has nothing to do
                [*command, str(rig.layout.root)], capture_output=True, text=True, timeout=30, check=False
            )
            took_s = time.monotonic() - began_s
        finally:
            os.kill(rig.pid, signal.SIGCONT)
        assert silent.returncode == 4
        assert "does not answer" in silent.stderr
        assert took_s < GRACE_S

    scenario(sim(WELL), play)
