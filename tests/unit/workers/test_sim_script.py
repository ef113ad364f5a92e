"""The simulated device's script, a pure function of time."""

import pytest

from devd.workers.errors import SpecError
from devd.workers.sim import Step, parse, step_at


def test_absent_script_always_passes() -> None:
    """No script and an empty one pass at any time."""
    assert step_at(parse(None), 0.0) == step_at(parse([]), 1e9) == Step("pass")


def test_script_of_bounded_steps_repeats() -> None:
    """Steps take turns at their boundaries, and the whole starts again after the last."""
    script = parse([{"for": 2, "do": "pass"}, {"for": 1, "do": "fail"}])
    deeds = [step_at(script, at_s).do for at_s in (0.0, 1.99, 2.0, 2.99, 3.0, 4.99, 5.0, 300_002.5)]
    assert deeds == ["pass", "pass", "fail", "fail", "pass", "pass", "fail", "fail"]


def test_step_without_length_is_the_last() -> None:
    """After a step without a length nothing comes, however many are written behind it."""
    script = parse([{"for": 1, "do": "pass"}, {"do": "hang"}, {"for": 1, "do": "fail"}])
    assert [step_at(script, at_s).do for at_s in (0.5, 1.0, 1e6)] == ["pass", "hang", "hang"]


def test_script_of_no_length_at_all_ends() -> None:
    """Steps of zero seconds neither loop for ever nor divide by zero."""
    assert step_at(parse([{"for": 0, "do": "pass"}, {"for": 0, "do": "fail"}]), 5.0).do == "fail"


def test_all_keys_are_read() -> None:
    """Reason and duration arrive with the step; the default deed is to pass."""
    assert parse([{"do": "slow", "for": 3, "takes": 0.5, "reason": "r"}, {}]) == (
        Step("slow", 3.0, "r", 0.5),
        Step("pass", None, "", None),
    )


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("pass", "script: 'pass' found, a list of steps is needed"),
        (["pass"], r"script\[0\]: 'pass' found, a map is needed"),
        ([{}, {"do": "dance"}], r"script\[1\]\.do: 'dance' found, one of pass, fail"),
        ([{"for": "5s"}], r"script\[0\]\.for: '5s' found, a number is needed"),
        ([{"four": 5}], r"script\[0\]: unknown keys \['four'\]; allowed are do, for, reason, takes"),
        ([{"reason": 5}], r"script\[0\]\.reason: 5 found, text is needed"),
    ],
)
def test_wrong_script_is_refused_by_place(script: object, words: str) -> None:
    """Each mistake is told with its step, what was found and what is allowed."""
    with pytest.raises(SpecError, match=words):
        parse(script)
