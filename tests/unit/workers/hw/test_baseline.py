"""Counters against their baselines: growth, windows, resets, saturation, reboots, and damaged maps."""

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
_fields = st.sampled_from(["boot_id", "base", "base_at_s", "seen", "grown_at_s"])


@given(_junk | st.dictionaries(_fields, _junk), st.integers(0, 2**64 - 1), st.floats(0, 1e9))
def test_any_damaged_map_is_judged(entry: object, value: int, now_s: float) -> None:
    """Whatever stands in the stored map, a value is judged without an error, and the next growth is seen."""
    rule = Rule("errors")
    first = judge({"errors": entry}, BOOT, rule, value, now_s)
    again = judge(first.stored, BOOT, rule, value + 1, now_s)
    assert again.grown == first.grown + 1
