"""Devices that name themselves: what becomes of equal names."""

import json
from collections.abc import Mapping

import pytest

from devd.daemon.memory import baseline_fits
from devd.workers.drivers import twins


def test_twins_both_get_their_port_and_others_keep_their_name() -> None:
    """Two equal names are told apart the same way whatever their order; a nameless device is known by its port."""
    names = [("s1", "0000:01:00.0"), ("s2", "0000:02:00.0"), ("s1", "0000:03:00.0"), ("", "0000:04:00.0")]
    found, problems = twins.ids(names)
    turned, _problems = twins.ids(names[::-1])
    assert turned[::-1] == found
    assert found == ["s1-0000:01:00.0", "s2", "s1-0000:03:00.0", "0000:04:00.0"]
    assert problems == ["2 devices say they are s1: told apart by their ports"]


P1, P2, P3 = "usb2-1", "usb2-2", "usb2-3"


def _ids(known: twins.Twins, *ports: str, name: str = "TW") -> list[str]:
    """Return the ids of a scan that saw one name at these ports."""
    found, _problems = known.ids([(name, port) for port in ports])
    return found


def _next(known: twins.Twins) -> twins.Twins:
    """Return what the next scout knows: what this one left, through JSON as the front keeps it."""
    fresh = twins.Twins()
    fresh.baseline = json.loads(json.dumps(known.baseline))
    return fresh


@pytest.mark.parametrize("restarted", [False, True])
def test_twin_that_leaves_changes_nobodys_id(restarted: bool) -> None:  # noqa: FBT001 - the parameter's own place
    """Whoever of two leaves and comes back, both keep their ids, also for the next scout; a third gets its own."""
    known = twins.Twins()
    for ports in ((P1, P2), (P2,), (P2, P1), (P1,), (), (P3, P1), (P2,)):
        assert _ids(known, *ports) == [f"TW-{port}" for port in ports]
        known = _next(known) if restarted else known


@pytest.mark.parametrize("restarted", [False, True])
def test_twin_that_appears_leaves_the_first_its_id(restarted: bool) -> None:  # noqa: FBT001 - see above
    """The first keeps the bare name at its place, which it finds again; everybody elsewhere has the port in the id."""
    known = twins.Twins()
    at_first = {P1: "TW", P2: f"TW-{P2}", P3: f"TW-{P3}"}
    for ports in ((P1,), (P2, P1), (P2,), (P3, P2), (P1, P3), (P1,), ()):
        assert _ids(known, *ports) == [at_first[port] for port in ports]
        known = _next(known) if restarted else known


def test_a_single_takes_its_name_along() -> None:
    """Without a twin the name goes from port to port; who is where it was last is the first when a twin appears."""
    known = twins.Twins()
    assert [_ids(known, P1), _ids(known, P2), _ids(known, P1, P2)] == [["TW"], ["TW"], [f"TW-{P1}", "TW"]]


def test_two_newcomers_at_once_are_not_taken_for_the_first() -> None:
    """Which of two at other ports was there before cannot be known: neither gets its id, its old place has it."""
    known = twins.Twins()
    assert [_ids(known, P1), _ids(known, P2, P3)] == [["TW"], [f"TW-{P2}", f"TW-{P3}"]]
    assert _ids(known, P1, P2) == ["TW", f"TW-{P2}"]


def test_a_name_that_had_twins_is_shared_for_good() -> None:
    """It is asked for before ids are made: what a device's nodes are called depends on it."""
    known = twins.Twins()
    known.see([("TW", P1), ("other", P3)])
    assert not known.shared("TW")
    known.see([("TW", P1), ("TW", P2)])
    known.see([("TW", P1)])
    assert (known.shared("TW"), known.shared("other"), known.shared("never seen")) == (True, False, False)


def test_what_is_remembered_is_bounded() -> None:
    """Names without end: shared ones outlast the others, who is there now is known anyhow, and all fits its file."""
    known = twins.Twins()
    long = "s" * 4000
    _ids(known, P1, P2, name=f"TW{long}")
    for number in range(3 * twins.MAX_NAMES):
        known.see([(f"{number}{long}", long)])
    assert known.shared(f"TW{long}")
    kept = known.baseline["names"]
    assert isinstance(kept, dict)
    assert len(kept) == twins.MAX_NAMES
    assert baseline_fits(known.baseline)
    many = [(f"{number}{long}", P1) for number in range(2 * twins.MAX_NAMES)]
    before, _problems = known.ids(many)
    after, _problems = known.ids([*many, *((name, P2) for name, _port in many)])
    assert after[: len(before)] == before
    assert baseline_fits(known.baseline)


@pytest.mark.parametrize(
    "left",
    [
        {"names": 7},
        {"names": {"TW": None}},
        {"names": {"TW": [P1]}},
        {"names": {"TW": [7, True]}},
        {"names": {"TW": [P1, 1]}},
        {"names": {7: [P1, True]}},
        {"files": ["x"]},
    ],
)
def test_what_cannot_be_understood_counts_as_unknown(left: Mapping[str, object]) -> None:
    """A damaged baseline, or somebody else's, is a first scan's."""
    known = twins.Twins()
    known.baseline = left
    assert _ids(known, P1) == ["TW"]
    assert _ids(known, P1, P2) == ["TW", f"TW-{P2}"]
