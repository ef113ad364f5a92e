"""Corners of a device's life that random histories reach too seldom."""

from devd.daemon import events as ev
from devd.daemon import lifecycle
from devd.daemon.device_state import Memory, Phase, Policy, remembered

POLICY = Policy(
    period_s=1.0,
    timeout_s=0.5,
    failures=1,
    successes=1,
    reset_timeout_s=None,
    linger_s=10.0,
    intensity=3,
    window_s=20.0,
    backoff_s=0.2,
    backoff_max_s=4.0,
    retry_s=60.0,
)


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
