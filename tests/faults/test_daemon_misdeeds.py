"""A worker that was taken over: whatever it sends, it is refused, counted and ended, and nobody else notices."""

import pytest

from devd.daemon.demo.rig import Rig
from tests.faults.worlds import SIM, scenario, sim, until

ENDED = [
    ("garbage", "garbage", "not msgpack"),
    ("truncated", "garbage", "not"),
    ("wrong-version", "garbage", "protocol version 2"),
    ("extra-frames", "garbage", "4 frames"),
    ("spoof", "spoof", "spoke for 'well'"),
    ("next", "spoof", "spoke for incarnation"),
    ("future", "future", "impossible sequence number"),
]


def script(how: str) -> str:
    """Return devices: one that is well, and one that breaks the protocol after a while."""
    deed = f"{{do: misbehave, how: {how}, reason: well}}"
    return f"[{{name: well}}, {{name: bad, script: [{{for: 500ms, do: pass}}, {deed}]}}]"


def refused(rig: Rig, name: str) -> int:
    """Return how many messages were refused for a reason."""
    return int(rig.status()["daemon"]["counters"]["health_refused"].get(name, 0))


@pytest.mark.parametrize(("how", "counter", "words"), ENDED, ids=[one[0] for one in ENDED])
def test_breach_of_the_protocol_ends_its_worker(how: str, counter: str, words: str) -> None:
    """The frame is refused and counted, its worker ended for it and put into backoff; the neighbour goes on."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 1)
        kills = await rig.journal_has("bad", "kill", 1)
        assert "broke the protocol" in kills[0]["detail"]
        assert words in kills[0]["detail"]
        assert refused(rig, counter) >= 1
        assert (await rig.journal_has("bad", "restart", 1))[0]["detail"].startswith("worker killed by SIGKILL")
        probes = rig.device("well")["last_probe"]["at"]
        await until(lambda: rig.device("well")["last_probe"]["at"] > probes, "a probe of the neighbour")
        assert [health for _at_s, health in rig.turns(SIM, "well")] == ["Healthy"]
        assert rig.device("well")["restarts"] == 0

    scenario(sim(script(how)), play)


def test_frame_of_100_megabytes_ends_its_sender() -> None:
    """The connection is closed at the frame's header, and its sender ended.

    A new connection is refused and ends it; behind a sandbox that allows none, nobody hears it any more.
    """

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 1)
        kills = await rig.journal_has("bad", "kill", 1)
        again = "refused a connection: second connection" in kills[0]["detail"]
        assert again or "has not returned" in kills[0]["detail"] or "silent" in kills[0]["detail"]
        assert again == bool(rig.status()["daemon"]["counters"]["peers_refused"].get("second connection"))
        assert [health for _at_s, health in rig.turns(SIM, "well")] == ["Healthy"]

    # It has the room to make such a frame: the sandbox alone would have ended it.
    room = "    sandbox_allow: {memory_mib: 1024}\n"
    scenario(sim(script("huge"), period="500ms", timeout="5s", more=room), play)


def test_report_of_an_old_incarnation_is_counted_and_nothing_else() -> None:
    """What looks like the late word of a worker that is gone changes nothing and costs nobody anything."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 2)
        await until(lambda: refused(rig, "stale") >= 3, "some old reports")
        assert rig.device("bad")["restarts"] == 0
        assert [health for _at_s, health in rig.turns(SIM, "bad")] == ["Healthy"]

    scenario(sim(script("stale")), play)


@pytest.mark.parametrize(
    ("how", "words"),
    [("chatter", "floods its command channel"), ("hoard", "a baseline that is too large")],
    ids=["chatter", "hoard"],
)
def test_abuse_of_the_command_channel_ends_its_worker(how: str, words: str) -> None:
    """More than a worker has to say, or more than is kept for it, ends it; the neighbour goes on."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 1)
        kills = await rig.journal_has("bad", "kill", 1)
        assert words in kills[0]["detail"]
        probes = rig.device("well")["last_probe"]["at"]
        await until(lambda: rig.device("well")["last_probe"]["at"] > probes, "a probe of the neighbour")
        assert [health for _at_s, health in rig.turns(SIM, "well")] == ["Healthy"]

    scenario(sim(script(how)), play)


@pytest.mark.parametrize(("how", "said"), [("unplug", "Listing"), ("write", "Written")], ids=["unplug", "write"])
def test_worker_that_speaks_in_anothers_role_is_ended_unheard(how: str, said: str) -> None:
    """A worker that lists its resource's devices unplugs none and adds none; nor is it heard as the scribe."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 1)
        kills = await rig.journal_has("bad", "kill", 1)
        assert f"broke the protocol: message '{said}': expected Hello, ResetDone, Findings" in kills[0]["detail"]
        assert (await rig.journal_has("bad", "restart", 1))[0]["detail"].startswith("worker killed by SIGKILL")
        status = rig.status()
        assert status["daemon"]["counters"]["commands_refused"]["garbage"] >= 1
        assert {one["id"] for one in status["devices"]} == {"well", "bad"}
        probes = rig.device("well")["last_probe"]["at"]
        await until(lambda: rig.device("well")["last_probe"]["at"] > probes, "a probe of the neighbour")
        assert [health for _at_s, health in rig.turns(SIM, "well")] == ["Healthy"]
        assert rig.journal("well", "vanished") == []

    scenario(sim(script(how)), play)
