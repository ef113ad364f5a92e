"""A device that falls again and again is held back: any history of probes, against a look at the whole of it."""

from dataclasses import replace

import hypothesis.strategies as st
from hypothesis import HealthCheck, Phase, given, settings

from devd.daemon import events as ev
from devd.daemon import lifecycle
from devd.daemon.device_state import Policy
from devd.ipc.messages import Health

POLICY = Policy(period_s=1.0, timeout_s=0.5, flap_count=3, flap_within_s=4.0, flap_hold_s=3.0)
REPORT = Health("dev", 1, 0, "none", "", 0, "open", 0.0, 0.0, "", 0.0)

History = list[tuple[bool, float]]
"""(passes, seconds since the one before): every pause is short enough for the lease to go on."""

HISTORIES = st.lists(
    st.tuples(st.sampled_from([True, True, False]), st.sampled_from([0.1, 0.1, 0.5, 1.0])), max_size=60
)


def held(history: list[tuple[float, bool]], now_s: float) -> bool:
    """Return whether a device with these verdicts (when, passed) is held back now, by the configuration page's words.

    Looks at the whole history each time, where the daemon keeps books.
    """
    falls: list[float] = []
    well_since_s: float | None = None
    is_held = False
    for at_s, passed in history:
        if is_held and well_since_s is not None and at_s - well_since_s >= POLICY.flap_hold_s:
            is_held, falls = False, []
        if passed and well_since_s is None:
            well_since_s = at_s
        elif not passed and well_since_s is not None:
            well_since_s = None
            falls.append(at_s)
            recent = [one for one in falls if one > at_s - POLICY.flap_within_s]
            is_held = is_held or len(recent) >= POLICY.flap_count
    return is_held and (well_since_s is None or now_s - well_since_s < POLICY.flap_hold_s)


def check(history: History) -> None:
    """Play a history and compare after each probe."""
    now_s = 1000.0
    state, _ = lifecycle.birth("dev", now_s, POLICY)
    state, _ = lifecycle.step(state, ev.Spawned(now_s, 1, 7), POLICY)
    seen: list[tuple[float, bool]] = []
    for number, (passed, apart_s) in enumerate(history, start=1):
        now_s = round(now_s + apart_s, 3)
        state, _ = lifecycle.step(state, ev.Tick(now_s), POLICY)
        if seen:
            assert state.healthy == (seen[-1][1] and not held(seen, now_s)), "before the probe"
        seen.append((now_s, passed))
        health = replace(REPORT, seq=number, probe_count=number, verdict="pass" if passed else "fail")
        state, _ = lifecycle.step(state, ev.Reported(now_s, 1, health), POLICY)
        assert state.healthy == (passed and not held(seen, now_s)), "after the probe"
        assert state.healthy or state.reason
        assert len(state.falls) <= POLICY.flap_count


@given(HISTORIES)
@settings(max_examples=500, deadline=None)
def test_device_is_held_back_exactly_while_its_flaps_say_so(history: History) -> None:
    """What is offered agrees with a look at the whole history, after each probe and before the next."""
    check(history)


def check_many() -> None:
    """Check many histories, always the same ones; for the mutants."""
    quick = settings(
        max_examples=120,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    quick(given(HISTORIES)(check))()
