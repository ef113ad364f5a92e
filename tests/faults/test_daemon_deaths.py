"""Every way a worker can die: replaced within its lease, and its last words kept."""

import os
import re
import signal
import time

import pytest

from devd.daemon.demo.rig import Rig
from tests.faults.worlds import GRACE_S, SIM, alive, scenario, sim, until

DEATHS = 3
SERVED_S = 5.0
"""Far more than the lease of 0.85 s."""
QUICK = "    restart: {intensity: 1000, backoff: 10ms, backoff_max: 20ms}\n"

WAYS = [
    ("segv", "killed by SIGSEGV", "Segmentation fault"),
    ("exit", "exited with code 3", ""),
    ("exception", "exited with code 1", "RuntimeError"),
    ("oom", "exited with code 1", "MemoryError"),
]


@pytest.mark.parametrize(("deed", "end", "words"), WAYS, ids=[way[0] for way in WAYS])
def test_dead_worker_is_replaced_and_its_last_words_are_kept(deed: str, end: str, words: str) -> None:
    """A worker that dies again and again within its lease never shows at the kubelet; each death leaves its record."""
    script = f"[{{for: 500ms, do: pass}}, {{do: {deed}}}]"

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 2)
        crashes = await rig.journal_has("dies", "crash", DEATHS)
        assert all(end in one["detail"] for one in crashes)
        assert all(words in "\n".join(one["stderr"]) for one in crashes)
        assert all(one["uptime_s"] >= 0.4 for one in crashes)
        assert all({"user_s", "system_s", "max_rss_kib"} <= set(one["usage"]) for one in crashes)
        assert [health for _at_s, health in rig.turns(SIM, "dies")] == ["Healthy"]
        assert [health for _at_s, health in rig.turns(SIM, "well")] == ["Healthy"]
        assert end in rig.device("dies")["last_exit"]
        assert not any(alive(one["pid"]) for one in crashes)

    # The lease is long: a busy machine may take its time to start a worker.
    config = sim(f"[{{name: well}}, {{name: dies, script: {script}}}]", timeout="10s", more=QUICK)
    scenario(config, play)


def test_worker_without_a_first_word_is_ended_for_it() -> None:
    """A worker that hangs before its first report is killed at its deadline, with that as the reason."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 1)
        kills = await rig.journal_has("mute", "kill", 1)
        assert "never said its first word within 15 s" in kills[0]["detail"]
        await until(lambda: "first word" in rig.device("mute")["reason"], "the reason")
        assert rig.device("mute")["health"] == "Unhealthy"
        assert [health for _at_s, health in rig.turns(SIM, "well")] == ["Healthy"]

    scenario(sim("[{name: well}, {name: mute, script: [{do: mute}]}]"), play)


def test_stopped_worker_loses_its_lease_and_is_replaced() -> None:
    """A worker stopped by SIGSTOP is noticed at its deadline, seen to be stopped, ended, and replaced."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 2)
        await until(lambda: time.monotonic() - rig.turns(SIM, "one")[0][0] > SERVED_S, "a life before it")
        pid = rig.device("one")["pid"]
        os.kill(pid, signal.SIGSTOP)
        observed = await rig.journal_has("one", "observed", 1)
        assert "is stopped (T)" in observed[0]["detail"]
        kill = (await rig.journal_has("one", "kill", 1))[0]["detail"]
        silent = re.search(r"has been silent for (\d+\.\d) s between calls|has not returned for", kill)
        assert silent is not None, kill
        # Counted from its last word, and not from its first: it served for longer than that.
        assert silent[1] is None or float(silent[1]) < SERVED_S
        await until(lambda: rig.device("one")["pid"] not in (None, pid), "another worker")
        # Not "two are Healthy": that may be what the kubelet still has of the time before.
        await rig.kubelet.wait_for(lambda: len(rig.turns(SIM, "one")) >= 3, GRACE_S, "its fall and return")
        assert [health for _at_s, health in rig.turns(SIM, "one")] == ["Healthy", "Unhealthy", "Healthy"]
        assert [health for _at_s, health in rig.turns(SIM, "two")] == ["Healthy"]

    scenario(sim("[{name: one}, {name: two}]"), play)


def test_worker_that_says_all_is_well_while_its_reset_hangs_is_ended() -> None:
    """No report counts as a reset's answer: the reset's own deadline ends the worker, whatever it says meanwhile."""
    more = "    reset: {kind: sim, result: lie, timeout: 500ms}\n"

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 1)
        held = await rig.kubelet.allocate(SIM)
        with pytest.raises(Exception, match=r"one: reset hung: .* has not returned"):
            await rig.kubelet.pre_start(SIM, held.ids)
        kills = await rig.journal_has("one", "kill", 1)
        assert "reset hung" in kills[0]["detail"]
        await rig.healthy(SIM, 1)

    scenario(sim("[{name: one}]", more=more), play)
