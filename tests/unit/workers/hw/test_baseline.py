"""Counters against their baselines: growth, windows, resets, saturation, reboots, and damaged maps."""

from collections.abc import Mapping

import msgpack
from hypothesis import given
from hypothesis import strategies as st

from devd.workers.hw.baseline import Judgement, Rule, judge, rebase

BOOT = "b1"


def _run(rule: Rule, *seen: tuple[float, int], boot_id: str = BOOT) -> Judgement:
    """Return the last judgement of a row of (when, value)."""
    judgement = Judgement({}, 0)
    for now_s, value in seen:
        judgement = judge(judgement.stored, boot_id, rule, value, now_s)
    return judgement


def test_first_sight_is_the_baseline() -> None:
    """What was counted before devd looked is no fault of now."""
    judgement = _run(Rule("errors"), (10, 4711))
    assert (judgement.grown, judgement.reason, judgement.note) == (0, "", "")


def test_growth_is_bad_and_stays_bad() -> None:
    """A counter that grew stays bad without a window, and the reason names both numbers."""
    judgement = _run(Rule("media errors"), (10, 3), (20, 5), (9e9, 5))
    assert judgement.grown == 2
    assert judgement.reason == "media errors grew by 2 (3 -> 5)"


def test_allowed_growth_within_a_window_is_well_and_more_is_not() -> None:
    """Up to the limit is tolerated; one more is not."""
    rule = Rule("symbol_error", allowed=10, window_s=3600)
    assert _run(rule, (0, 0), (100, 10)).reason == ""
    assert _run(rule, (0, 0), (100, 11)).reason == "symbol_error grew by 11 (0 -> 11), allowed are 10 in 3600 s"


def test_slow_growth_never_adds_up() -> None:
    """Eight errors an hour are fine for years when ten are allowed."""
    rule = Rule("symbol_error", allowed=10, window_s=3600)
    assert _run(rule, *((hour * 3600.0, hour * 8) for hour in range(500))).reason == ""


def test_a_burst_is_forgiven_a_window_after_its_last_error() -> None:
    """The verdict holds for the window from the last growth, and not a second longer."""
    rule = Rule("link_downed", allowed=0, window_s=600)
    burst = ((0.0, 0), (100.0, 1), (400.0, 2))
    assert _run(rule, *burst, (999.0, 2)).reason
    assert _run(rule, *burst, (1000.0, 2)).reason == ""
    assert _run(rule, *burst, (1000.0, 2), (1001.0, 3)).reason == "link_downed grew by 1 (2 -> 3)"


def test_a_window_slides_over_the_growth() -> None:
    """Two downs at its end and two more soon after are four within ten minutes, wherever a window had begun."""
    rule = Rule("link_downed", allowed=2, window_s=600)
    assert _run(rule, (0, 0), (585, 2)).reason == ""
    assert _run(rule, (0, 0), (585, 2), (610, 4)).reason == ("link_downed grew by 4 (0 -> 4), allowed are 2 in 600 s")
    assert _run(rule, (0, 0), (585, 2), (610, 2), (1184, 3)).reason, "two at 585 and one at 1184 are within 600 s"
    assert _run(rule, (0, 0), (585, 2), (610, 2), (1185, 4)).reason == "", "at 1185 those of 585 have left the window"


@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 3)), max_size=60),
    st.integers(0, 5),
    st.sampled_from([1, 60, 600]),
)
def test_no_window_with_too_much_growth_is_missed(steps: list[tuple[int, int]], allowed: int, window_s: int) -> None:
    """Whenever more than is allowed came within a window the verdict is bad, and the map stays small."""
    rule = Rule("errors", allowed=allowed, window_s=window_s)
    stored: Mapping[str, object] = judge({}, BOOT, rule, 0, 0).stored
    now_s = value = 0
    grown: list[tuple[int, int]] = []
    for pause_s, amount in steps:
        now_s, value = now_s + pause_s, value + amount
        grown.append((now_s, amount))
        judgement = judge(stored, BOOT, rule, value, now_s)
        stored = judgement.stored
        within = sum(one for at_s, one in grown if now_s - at_s < window_s)
        assert judgement.reason or within <= allowed
        assert len(msgpack.packb(stored)) < 1024


def test_a_storm_of_small_growth_is_kept_in_bounds() -> None:
    """With more growth than times are kept the sum stays right, and old growth still leaves the window."""
    rule = Rule("errors", allowed=1000, window_s=3600)
    judgement = _run(rule, *((float(second), second) for second in range(500)))
    assert judgement.grown == 499
    assert len(msgpack.packb(judgement.stored)) < 1024
    assert judge(judgement.stored, BOOT, rule, 499, 499 + 3600).grown == 0


def test_growth_stored_without_its_times_counts_from_the_last() -> None:
    """What an earlier devd has stored is judged on: all of it as old as its last growth."""
    rule = Rule("errors", allowed=2, window_s=600)
    old = {"boot_id": BOOT, "base": 5, "base_at_s": 1.0, "seen": 7, "grown_at_s": 100.0}
    assert judge({"errors": old}, BOOT, rule, 8, 650).reason == "errors grew by 3 (5 -> 8), allowed are 2 in 600 s"
    assert judge({"errors": old}, BOOT, rule, 8, 700).reason == ""


def test_a_cleared_counter_is_a_new_baseline() -> None:
    """A value that goes down is no error, and growth from there is."""
    assert _run(Rule("errors"), (0, 100), (1, 2)).reason == ""
    assert _run(Rule("errors"), (0, 100), (1, 2), (2, 3)).grown == 1
    assert _run(Rule("errors"), (0, 0), (1, 100), (2, 50)).reason == ""


def test_saturation_is_told() -> None:
    """At its width's end a counter says so: in the reason when it grew, as a note when it stood there before."""
    rule = Rule("link_downed", bits=8)
    grown = _run(rule, (0, 250), (1, 255))
    assert grown.reason == "link_downed grew by at least 5 (250 -> 255); the counter is saturated"
    stood = _run(rule, (0, 255), (1, 255))
    assert stood.reason == ""
    assert stood.note == "link_downed stands at its highest value, 255: clear it, it counts no more"


def test_growth_to_the_highest_value_is_too_much_whatever_is_allowed() -> None:
    """A counter of 4 bits that began at 5 cannot grow by more than 10: at its end it counts no more, and says so."""
    rule = Rule("integrity", bits=4, allowed=10, window_s=3600)
    assert _run(rule, (0, 5), (1, 14)).reason == ""
    assert _run(rule, (0, 5), (1, 15)).reason == (
        "integrity grew by at least 10 (5 -> 15), allowed are 10 in 3600 s; the counter is saturated"
    )
    assert _run(rule, (0, 5), (1, 15), (3600, 15)).reason != ""
    after = _run(rule, (0, 5), (1, 15), (3601, 15))
    assert after.reason == ""
    assert after.note == "integrity stands at its highest value, 15: clear it, it counts no more"


def test_a_reboot_is_a_new_baseline_unless_the_device_keeps_count() -> None:
    """Another boot id drops the baseline of a kernel's counter and keeps that of the device's own."""
    for survives, grown in ((False, 0), (True, 2)):
        rule = Rule("errors", survives_boot=survives)
        before = judge({}, "b1", rule, 3, 1000.0)
        after = judge(before.stored, "b2", rule, 5, 1.0)
        assert after.grown == grown
        assert judge(after.stored, "b2", rule, 5, 2.0).grown == grown


def test_counters_of_two_boots_live_in_one_map() -> None:
    """A counter judged after a reboot does not make the other counters' old baselines look new."""
    kernel, own = Rule("kernel"), Rule("own", survives_boot=True)
    stored = judge(judge({}, "b1", kernel, 7, 1).stored, "b1", own, 1, 1).stored
    stored = judge(stored, "b2", own, 1, 1).stored
    assert judge(stored, "b2", kernel, 9, 2).grown == 0


def test_rebase_forgets_only_what_is_named() -> None:
    """After a cure the next value is the baseline; the other counters keep theirs."""
    a, b = Rule("a"), Rule("b")
    stored = judge(judge(judge({}, BOOT, a, 0, 0).stored, BOOT, a, 5, 1).stored, BOOT, b, 0, 1).stored
    stored = rebase(stored, ["a"])
    assert judge(stored, BOOT, a, 5, 2).reason == ""
    assert judge(stored, BOOT, b, 1, 2).grown == 1


_junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_fields = st.sampled_from(["boot_id", "base", "seen", "grown_at_s", "recent"])


@given(_junk | st.dictionaries(_fields, _junk), st.integers(0, 2**64 - 1), st.floats(0, 1e9))
def test_any_damaged_map_is_judged(entry: object, value: int, now_s: float) -> None:
    """Whatever stands in the stored map, a value is judged without an error, and the next growth is seen."""
    for rule in (Rule("errors"), Rule("errors", allowed=2**70, window_s=600)):
        first = judge({"errors": entry}, BOOT, rule, value, now_s)
        again = judge(first.stored, BOOT, rule, value + 1, now_s)
        assert again.grown == first.grown + 1
