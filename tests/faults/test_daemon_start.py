"""devd starts beside a device that is bad from the beginning: the others are there with their own verdicts."""

import pytest

from devd.daemon.demo.rig import Rig
from devd.daemon.first_verdicts import WITHIN_S
from devd.daemon.moves import START_TIMEOUT_S
from tests.faults.worlds import SIM, scenario, sim

SOON_S = 12.0
"""Generous, and sooner than a bad device is decided, or than anybody is waited for that has not said anything."""
LOOPS = "    restart: {intensity: 1000, backoff: 5s, backoff_max: 30s}\n"

BAD = {
    "crashes": ("exception", "500ms", "before its first probe had"),
    "hangs": ("hang", "60s", "waiting for the first probe"),
    "mute": ("mute", "500ms", "waiting for the first probe"),
}


@pytest.mark.parametrize("way", BAD)
def test_device_that_is_bad_from_the_start_withholds_no_other(way: str) -> None:
    """A well device is Healthy in the resource's first list though its sister never says anything; that one is not."""
    deed, timeout, reason = BAD[way]
    assert min(WITHIN_S, START_TIMEOUT_S) > SOON_S

    async def play(rig: Rig) -> None:
        took_s = await rig.healthy(SIM, 1)
        first = rig.kubelet.resources[SIM].lists[0].devices
        assert (first["well"].health, first["bad"].health) == ("Healthy", "Unhealthy")
        assert reason in rig.device("bad")["reason"]
        assert took_s < SOON_S

    scenario(sim(f"[{{name: well}}, {{name: bad, script: [{{do: {deed}}}]}}]", timeout=timeout, more=LOOPS), play)


def test_slow_devices_that_are_alike_are_waited_for() -> None:
    """Devices whose first probe takes two seconds are all Healthy in the first list: who is slow is not late."""
    slow = "script: [{do: slow, takes: 2s}]"

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 1)
        first = rig.kubelet.resources[SIM].lists[0].devices
        assert [one.health for one in first.values()] == ["Healthy"] * 3

    devices = ", ".join(f"{{name: {name}, {slow}}}" for name in ("one", "two", "three"))
    scenario(sim(f"[{devices}]", timeout="10s"), play)
