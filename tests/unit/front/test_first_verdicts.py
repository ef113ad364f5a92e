"""A resource registers as soon as it is known how its devices are; who is late is not waited for, who is slow is."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from devd.daemon.first_verdicts import QUIET_S, WITHIN_S, FirstVerdicts

SINCE_S = 100.0
TAKES_S = st.floats(0.0, 30.0, allow_nan=False)


def registers_at(listed_s: float, verdicts_s: list[float | None]) -> float:
    """Return how long after its start a resource registers whose devices say something at these times, or never."""
    first = FirstVerdicts(SINCE_S)
    due_s = first.due_s(SINCE_S, None, all_known=False)
    told = sorted(listed_s + one for one in verdicts_s if one is not None)
    for at_s in [listed_s, *told]:
        now_s = SINCE_S + at_s
        if due_s <= now_s:
            break
        said = sum(one <= at_s for one in told)
        due_s = first.due_s(now_s, said, all_known=said == len(verdicts_s))
    return due_s - SINCE_S


def test_all_verdicts_register_at_once() -> None:
    """The last verdict of all is the moment, however slow it was within the bound."""
    assert registers_at(0.5, [0.2, 0.3]) == pytest.approx(0.8)
    assert registers_at(0.5, [9.0]) == pytest.approx(9.5)
    assert registers_at(0.5, []) == pytest.approx(0.5)


def test_silent_device_costs_the_others_a_second() -> None:
    """One device that never says anything beside well ones: they are there QUIET_S after the last of them."""
    assert registers_at(0.5, [0.25, 0.25, None]) == pytest.approx(0.75 + QUIET_S)


def test_slow_devices_are_given_as_long_as_their_sisters_took() -> None:
    """A device whose like took 3 s has 3 s more."""
    assert registers_at(0.0, [3.0, 5.5, None]) == pytest.approx(11.0)


def test_nothing_said_and_nothing_listed_end_at_the_bound() -> None:
    """Devices of which none says anything, and a list that does not come, are waited for to the bound."""
    assert registers_at(0.5, [None, None]) == WITHIN_S
    assert FirstVerdicts(SINCE_S).due_s(SINCE_S, None, all_known=False) == SINCE_S + WITHIN_S


@given(TAKES_S, st.lists(TAKES_S, min_size=1, max_size=6))
def test_bad_device_never_withholds_the_others_for_longer_than_they_took(listed_s: float, well_s: list[float]) -> None:
    """Beside a silent one the well are registered at twice their own time, or a second after it, or at the bound."""
    at_s = registers_at(listed_s, [*well_s, None])
    assert at_s <= WITHIN_S
    assert at_s <= listed_s + max(2 * max(well_s), max(well_s) + QUIET_S) + 1e-6
