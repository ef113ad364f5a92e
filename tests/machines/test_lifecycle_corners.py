"""Corners of a device's life that random histories reach too seldom."""

from devd.daemon import events as ev
from devd.daemon import lifecycle
from devd.daemon.device_state import Memory, Phase, remembered
from tests.machines.test_lifecycle import POLICY


def test_a_restart_ends_the_hold_of_a_device_that_is_away() -> None:
    """It is off the bus when the operator says so: back again it begins anew, as the reason of the hold promised."""
    state, _ = lifecycle.birth("dev", 0.0, POLICY, Memory(held=True, falls=(1.0, 2.0)))
    for event in (ev.Vanished(1.0, "gone"), ev.SpawnFailed(1.0, 1, "the order was taken back")):
        state, _ = lifecycle.step(state, event, POLICY)
    assert state.phase is Phase.ABSENT
    state, effects = lifecycle.step(state, ev.RestartAsked(2.0), POLICY)
    assert [type(one) for one in effects] == [ev.Record]
    state, _ = lifecycle.step(state, ev.Found(3.0), POLICY)
    assert (remembered(state).held, remembered(state).falls) == (False, ())
