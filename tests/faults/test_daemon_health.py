"""What the kubelet sees of devices that fail, hang, crash and come back, from a real daemon."""

import os
import signal
import time

from devd.daemon.demo.rig import Rig
from tests.faults.worlds import GRACE_S, SIM, alive, scenario, sim, until

HEALTHY, UNHEALTHY = "Healthy", "Unhealthy"


def test_failing_probe_shows_with_its_reason_and_recovers() -> None:
    """A probe that fails makes the device Unhealthy with the probe's reason; good probes bring it back."""
    script = "[{for: 1500ms, do: pass}, {for: 1500ms, do: fail, reason: link down}]"

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM)
        await rig.unhealthy(SIM, timeout_s=GRACE_S)

        def told() -> bool:
            """Return whether the status says so; the script goes on, and comes there again."""
            device = rig.device("flap")
            return (device["health"], device["reason"], device["restarts"]) == (UNHEALTHY, "link down", 0)

        await until(told, "the probe's reason")
        await rig.healthy(SIM, timeout_s=GRACE_S)
        seen = [health for _at_s, health in rig.turns(SIM, "flap")]
        # Where the start takes longer than the first step, the kubelet's first word is of the second.
        seen = seen[seen.index(HEALTHY) :]
        assert seen[:3] == [HEALTHY, UNHEALTHY, HEALTHY]

    scenario(sim(f"[{{name: flap, script: {script}}}]"), play)


def test_every_cause_is_in_the_log_once() -> None:
    """A device that never was Healthy has its cause in its journal; a new cause adds a line, an old one does not."""
    script = "[{for: 1s, do: fail, reason: a1}, {for: 1s, do: fail, reason: a2}, {do: fail, reason: fan}]"

    async def play(rig: Rig) -> None:
        await until(lambda: rig.device("sick")["reason"] == "fan", "the last cause", GRACE_S)
        told = [one["detail"] for one in await rig.journal_has("sick", "verdict", 2)]
        assert told == ["Unhealthy: a1", "Unhealthy: fan"]

    scenario(sim(f"[{{name: sick, script: {script}}}]"), play)


def test_hung_probe_turns_unhealthy_and_its_worker_is_replaced() -> None:
    """A probe that hangs makes its device Unhealthy, names the call, and costs its neighbour nothing."""
    script = "[{for: 1s, do: pass}, {do: hang}]"

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 2)
        first = rig.device("hangs")["pid"]
        await rig.kubelet.wait_for(lambda: len(rig.turns(SIM, "hangs")) > 1, GRACE_S, "the hang at the kubelet")
        await until(lambda: rig.device("hangs")["pid"] not in (None, first), "a new worker")
        assert not alive(first)
        kills = await rig.journal_has("hangs", "kill", 1)
        assert "hung" in kills[0]["detail"]
        assert "has not returned for" in kills[0]["detail"]
        # Not the first line: where the start is slow an earlier worker has hung before.
        await until(
            lambda: any(f"process {first} is" in one["detail"] for one in rig.journal("hangs", "observed")), "the look"
        )
        assert [health for _at_s, health in rig.turns(SIM, "well")] == [HEALTHY]

    scenario(sim(f"[{{name: well}}, {{name: hangs, script: {script}}}]"), play)


def test_killed_worker_is_back_without_the_kubelet_seeing_it() -> None:
    """A worker ended by SIGKILL is replaced within its device's lease: the kubelet gets no list at all for it."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM)
        lists = len(rig.kubelet.resources[SIM].lists)
        pid = rig.device("solid")["pid"]
        os.kill(pid, signal.SIGKILL)
        await until(lambda: rig.device("solid")["pid"] not in (None, pid), "a new worker")
        await until(lambda: rig.device("solid")["phase"] == "serving", "the new worker's first report")
        device = rig.device("solid")
        assert device["restarts"] == 1
        assert device["health"] == HEALTHY
        assert device["last_exit"] == "killed by SIGKILL"
        assert len(rig.kubelet.resources[SIM].lists) == lists

    # The lease is long: a busy machine may take its time to start a worker.
    scenario(sim("[{name: solid}]", period="1s", timeout="10s"), play)


def test_crash_leaves_a_record_with_signal_and_traceback() -> None:
    """A worker that dies of a real SIGSEGV leaves signal, uptime, usage and faulthandler's words in its journal."""
    script = "[{for: 500ms, do: pass}, {do: segv}]"

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM)
        crash = (await rig.journal_has("faulty", "crash", 1))[0]
        assert "SIGSEGV" in crash["detail"]
        assert crash["uptime_s"] > 0
        assert crash["usage"]["max_rss_kib"] > 0
        assert any("Segmentation fault" in line for line in crash["stderr"]), crash["stderr"]
        restart = (await rig.journal_has("faulty", "restart", 1))[0]
        assert "starts in" in restart["detail"]

    scenario(sim(f"[{{name: faulty, script: {script}}}]"), play)


def test_uncaught_exception_leaves_its_traceback() -> None:
    """A worker that dies of an exception leaves Python's traceback in its journal."""
    script = "[{for: 500ms, do: pass}, {do: exception}]"

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM)
        crash = (await rig.journal_has("faulty", "crash", 1))[0]
        assert "exited with code 1" in crash["detail"]
        assert any("Traceback" in line for line in crash["stderr"]), crash["stderr"]
        assert any("RuntimeError" in line for line in crash["stderr"]), crash["stderr"]

    scenario(sim(f"[{{name: faulty, script: {script}}}]"), play)


def test_crash_loop_is_given_up_with_a_reason() -> None:
    """A worker that dies again and again is given up after some restarts; 'devd restart' tries again."""
    more = "    restart: {intensity: 2, period: 60s, backoff: 50ms}\n"

    async def play(rig: Rig) -> None:
        await rig.kubelet.wait_for(lambda: rig.kubelet.allocatable(SIM) == 1, GRACE_S, "the well one")
        await until(lambda: rig.device("loops")["phase"] == "failed", "FAILED")
        device = rig.device("loops")
        assert device["pid"] is None
        assert device["restarts"] == 2
        assert "ended 3 times in 60 s" in device["reason"]
        assert "devd restart loops" in device["reason"]
        assert [health for _at_s, health in rig.turns(SIM, "well")] == [HEALTHY]
        rig.order("restart", "loops")
        await until(lambda: rig.device("loops")["restarts"] > 2, "another try")

    scenario(sim("[{name: well}, {name: loops, script: [{do: exit}]}]", more=more), play)


def test_front_stopped_for_a_while_blames_no_device() -> None:
    """After the front was stopped longer than every lease, no device turns Unhealthy for it."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 2)
        os.kill(rig.pid, signal.SIGSTOP)
        stopped_s = time.monotonic()
        # The stop itself is the fault: it has to outlast the leases (0.85 s).
        while time.monotonic() - stopped_s < 3.0:
            time.sleep(0.1)  # noqa: ASYNC251 - the kubelet beside it has nothing to do either
        os.kill(rig.pid, signal.SIGCONT)
        await until(lambda: rig.status()["daemon"]["counters"]["stalls"] > 0, "the stall in the status")
        probes = rig.device("one")["last_probe"]["at"]
        await until(lambda: rig.device("one")["last_probe"]["at"] > probes, "another probe")
        for device in ("one", "two"):
            assert [health for _at_s, health in rig.turns(SIM, device)] == [HEALTHY]
            assert rig.device(device)["restarts"] == 0

    scenario(sim("[{name: one}, {name: two}]"), play)
