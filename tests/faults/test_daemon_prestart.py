"""PreStartContainer when things go wrong: one reset at a time, an answer in time, each error with its cause."""

import asyncio

import pytest

from devd.daemon.demo.kubelet_rules import ContainerStartError
from devd.daemon.demo.rig import Rig
from tests.faults.worlds import SIM, scenario, sim, until

AGAIN = "the kubelet tries this container again"


def reset(result: str = "ok", takes: str = "0ms", timeout: str = "20s") -> str:
    """Return a reset's configuration."""
    return f"    reset: {{kind: sim, result: {result}, takes: {takes}, timeout: {timeout}}}\n"


def test_kubelet_that_cancels_and_asks_again_joins_the_reset_that_runs() -> None:
    """A call the kubelet gave up on leaves its reset running; the next call waits for that one's end."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 1)
        held = await rig.kubelet.allocate(SIM)
        with pytest.raises(ContainerStartError):
            await rig.kubelet.pre_start(SIM, held.ids, timeout_s=0.5)
        assert await rig.kubelet.pre_start(SIM, held.ids) is not None
        await rig.journal_has("one", "reset-done", 1)
        assert len(rig.journal("one", "reset")) == 1
        assert [word for _at_s, word in rig.turns(SIM, "one")] == ["Healthy"]

    scenario(sim("[{name: one}]", more=reset(takes="2s")), play)


def test_answer_comes_before_the_kubelet_gives_up() -> None:
    """A reset allowed to take as long as the configuration can say is answered inside 25 s, and goes on."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 1)
        held = await rig.kubelet.allocate(SIM)
        with pytest.raises(ContainerStartError, match=r"one: .*reset") as caught:
            await rig.kubelet.pre_start(SIM, held.ids, timeout_s=25.0)
        assert AGAIN in str(caught.value)

    scenario(sim("[{name: one}]", more=reset(takes="1h", timeout="24s")), play)


@pytest.mark.parametrize(
    ("fault", "words"),
    [("fail", "fan stopped"), ("hang", "hung"), ("crash", "SIGSEGV")],
    ids=["unhealthy", "hung", "dying"],
)
def test_device_that_is_not_ready_fails_with_device_and_cause(fault: str, words: str) -> None:
    """A device that turned after its Allocate fails the start with its id, the cause, and what comes next."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 1)
        held = await rig.kubelet.allocate(SIM)
        rig.inject("one", fault, reason="fan stopped")
        await rig.unhealthy(SIM, 1)
        with pytest.raises(ContainerStartError, match="one: ") as caught:
            await rig.kubelet.pre_start(SIM, held.ids)
        assert words in str(caught.value)
        assert AGAIN in str(caught.value)

    # One that dies is given up soon, and one that hangs never: so each stays what it is for as long as this takes.
    intensity = 1 if fault == "crash" else 1000
    more = reset() + f"    restart: {{intensity: {intensity}, backoff: 10ms, retry: 1h}}\n"
    scenario(sim("[{name: one}]", more=more), play)


def test_many_calls_at_once_share_one_reset() -> None:
    """Ten containers with replicas of one device that start at once cause one reset, and all start."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 10)
        calls = [rig.kubelet.pre_start(SIM, [f"one::{number}"]) for number in range(10)]
        assert None not in await asyncio.gather(*calls)
        await rig.journal_has("one", "reset-done", 1)
        assert len(rig.journal("one", "reset")) == 1

    scenario(sim("[{name: one}]", more="    replicas: 10\n" + reset(takes="2s")), play)


def test_end_of_devd_answers_the_container_that_waits() -> None:
    """SIGTERM in the middle of a reset: the call is answered with device and cause, and not merely cut off."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 1)
        held = await rig.kubelet.allocate(SIM)
        call = asyncio.create_task(rig.kubelet.pre_start(SIM, held.ids))
        await until(lambda: rig.device("one")["phase"] == "resetting", "the reset")
        code, _took_s = await rig.end_daemon()
        assert code == 0
        with pytest.raises(ContainerStartError, match="one: devd is ending") as caught:
            await call
        assert AGAIN in str(caught.value)

    scenario(sim("[{name: one}]", more=reset(takes="20s")), play)


def test_restart_by_an_operator_in_the_middle_of_a_reset() -> None:
    """An operator's restart ends the reset's worker; the waiting container is told so, and the device comes back."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 1)
        held = await rig.kubelet.allocate(SIM)
        call = asyncio.create_task(rig.kubelet.pre_start(SIM, held.ids))
        await until(lambda: rig.device("one")["phase"] == "resetting", "the reset")
        rig.order("restart", "one")
        with pytest.raises(ContainerStartError, match="operator"):
            await call
        await until(lambda: rig.device("one")["phase"] == "serving", "the next worker")
        await rig.healthy(SIM, 1)

    scenario(sim("[{name: one}]", more=reset(takes="10s")), play)
