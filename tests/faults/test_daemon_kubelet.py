"""A kubelet that restarts, is away, refuses, hangs, loses its directory: devd is always back, and no device turns."""

import asyncio
import random
import shutil

import pytest

from devd.daemon.demo.kubelet_rules import Behaviour
from devd.daemon.demo.rig import Rig
from tests.faults.worlds import GRACE_S, SIM, scenario, sim, until

RESTARTS = 50
TWO = "[{name: one}, {name: two}]"


async def back(rig: Rig, what: str) -> None:
    """Wait until this kubelet has an open stream with both devices Healthy."""

    def there() -> bool:
        state = rig.kubelet.resources.get(SIM)
        return state is not None and state.stream_alive and rig.kubelet.allocatable(SIM) == 2

    await rig.kubelet.wait_for(there, GRACE_S, what)


def test_kubelet_restarts_at_random_moments() -> None:
    """After each of 50 restarts, some in the middle of a registration, devd is back with all devices Healthy."""
    chance = random.Random(1)  # noqa: S311 - moments, no secrets

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 2)
        for number in range(RESTARTS):
            await rig.kubelet.restart()
            if chance.random() < 0.5:
                await asyncio.sleep(chance.random() * 0.05)  # the moment is the fault
                await rig.kubelet.restart()
            await back(rig, f"back after restart {number}")
        assert all({word for _at_s, word in rig.turns(SIM, one)} == {"Healthy"} for one in ("one", "two"))
        assert rig.device("one")["restarts"] == 0

    scenario(sim(TWO), play)


def test_kubelet_that_is_down_for_a_while() -> None:
    """While no kubelet listens devd waits and says so; health goes on; it is back with the kubelet."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 2)
        await rig.kubelet.stop()
        await until(lambda: rig.status()["resources"][0]["registration"]["state"] != "registered", "devd sees it")
        probes = rig.device("one")["last_probe"]["at"]
        await until(lambda: rig.device("one")["last_probe"]["at"] > probes, "a probe meanwhile")
        await rig.kubelet.start()
        await back(rig, "the return")

    scenario(sim(TWO), play)


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (Behaviour(register_error="the plugin is not wanted"), "not wanted"),
        (Behaviour(register_delay_s=3.0), ""),
        (Behaviour(register_hang=True), ""),
        (Behaviour(dial_back=False), ""),
    ],
    ids=["refused", "slow", "hanging", "never dialled back"],
)
def test_register_that_goes_wrong_is_tried_again(behaviour: Behaviour, said: str) -> None:
    """A Register that is refused, slow or hangs costs no device its health, and devd is back once it goes well."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 2)
        rig.kubelet.behaviour = behaviour
        await rig.kubelet.restart()

        def standing() -> dict[str, str]:
            return dict(rig.status()["resources"][0]["registration"])

        if said:
            await until(lambda: said in str(standing()["last_error"]), "the refusal in the status")
        else:
            await until(lambda: standing()["state"] == "registering", "the attempt")
        assert {one["health"] for one in rig.status()["devices"]} == {"Healthy"}
        rig.kubelet.behaviour = Behaviour()
        if said:
            # A refusal is tried again after a pause; a kubelet that came up anew at once.
            await rig.kubelet.restart()
        await back(rig, "the return")

    scenario(sim(TWO), play)


def test_directory_removed_and_made_again() -> None:
    """The kubelet's whole directory goes and comes again: devd waits for it and is back."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 2)
        await rig.kubelet.stop()
        shutil.rmtree(rig.plugins)
        await until(lambda: "not there" in str(rig.status()["resources"][0]["registration"]["last_error"]), "devd sees")
        await rig.kubelet.start()
        await back(rig, "the return")

    scenario(sim(TWO), play)


def test_stream_that_the_kubelet_cancels() -> None:
    """A stream the kubelet ends without dying is followed by a new registration."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 2)
        before = rig.status()["resources"][0]["registration"]["registrations"]
        rig.kubelet.cancel_streams()
        await until(lambda: rig.status()["resources"][0]["registration"]["registrations"] > before, "a new one")
        await back(rig, "the return")

    scenario(sim(TWO), play)
