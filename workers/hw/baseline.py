"""Error counters judged by their growth: pure functions over a plain map that outlives the worker.

The map is ``{counter: {"boot_id", "base", "seen", "grown_at_s", "recent"}}``; whoever owns it stores it as it is.
What cannot be understood in it counts as absent: a damaged file costs the baseline, no more.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TypeGuard

MOST_RECENT = 32
"""Times of growth that are kept of a counter with a window; of more, those that lie closest are taken for one."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How one counter is judged.

    ``bits`` is the counter's width where it stays at its highest value (0: it never does). Growth of more than
    ``allowed`` is bad: within any ``window_s`` seconds, and for so long after the last growth; None: since the
    baseline, until that is taken anew. Growth to the highest value is bad however little it was: how far the counter
    would have gone on is not known. ``survives_boot``: the device keeps the count itself.
    """

    name: str
    bits: int = 0
    allowed: int = 0
    window_s: float | None = None
    survives_boot: bool = False

    @property
    def highest(self) -> int:
        """Return the value the counter saturates at, 0 if it never does."""
        return (1 << self.bits) - 1 if self.bits else 0


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a counter's value means. ``reason`` is "" when well; ``note`` is worth telling though it is no fault."""

    stored: Mapping[str, object]
    grown: int
    reason: str = ""
    note: str = ""


_Growth = tuple[float, int]
"""When, and by how much."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """``base`` is the value that growth is counted from: with a window it follows what has left that.

    ``recent`` is the growth since then, oldest first, empty without a window.
    """

    boot_id: str
    base: int
    seen: int
    grown_at_s: float
    recent: tuple[_Growth, ...] = ()


def judge(stored: Mapping[str, object], boot_id: str, rule: Rule, value: int, now_s: float) -> Judgement:
    """Return what a counter's value says against its baseline, and the map to keep from now on.

    ``now_s`` is CLOCK_BOOTTIME: it runs on while the machine sleeps, and begins anew with each boot as most counters
    do. A value below the last one means that somebody cleared the counter: it is the new baseline, and what was
    counted in between is lost.
    """
    before = _entry(stored.get(rule.name), boot_id, rule, now_s)
    entry = _follow(before, boot_id, rule, value, now_s)
    bad = _is_bad(rule, entry)
    return Judgement(
        stored={**stored, rule.name: _plain(entry)},
        grown=entry.seen - entry.base,
        reason=_words(rule, entry) if bad else "",
        note=f"{rule.name} stands at its highest value, {rule.highest}: clear it, it counts no more"
        if _is_saturated(rule, entry)
        else "",
    )


def last_seen(stored: Mapping[str, object], name: str) -> int | None:
    """Return a counter's last value, None if none is known."""
    one = stored.get(name)
    seen = one.get("seen") if isinstance(one, Mapping) else None
    return seen if _is_count(seen) else None


def rebase(stored: Mapping[str, object], names: Sequence[str]) -> dict[str, object]:
    """Return the map without these counters: the next value of each is its baseline (a reset cured it)."""
    return {name: one for name, one in stored.items() if name not in names}


def _words(rule: Rule, entry: _Entry) -> str:
    saturated = _is_saturated(rule, entry)
    at_least = "at least " if saturated else ""
    text = f"{rule.name} grew by {at_least}{entry.seen - entry.base} ({entry.base} -> {entry.seen})"
    if rule.allowed:
        within = f" in {rule.window_s:g} s" if rule.window_s is not None else ""
        text += f", allowed are {rule.allowed}{within}"
    return f"{text}; the counter is saturated" if saturated else text


def _is_saturated(rule: Rule, entry: _Entry) -> bool:
    return bool(rule.bits) and entry.seen >= rule.highest


def _is_bad(rule: Rule, entry: _Entry) -> bool:
    grown = entry.seen - entry.base
    return grown > rule.allowed or (grown > 0 and _is_saturated(rule, entry))


def _follow(entry: _Entry | None, boot_id: str, rule: Rule, value: int, now_s: float) -> _Entry:
    """Return what is known of a counter with its present value; with a window, what has left that is forgotten."""
    if entry is None or value < entry.seen:
        return _fresh(boot_id, value, now_s)
    was_bad = _is_bad(rule, entry)
    grown = value - entry.seen
    grown_at_s = now_s if grown else entry.grown_at_s
    if rule.window_s is None:
        return _Entry(boot_id, entry.base, value, grown_at_s)
    if was_bad and now_s - grown_at_s >= rule.window_s:
        return _fresh(boot_id, value, now_s)
    recent = (*entry.recent, (now_s, grown)) if grown else entry.recent
    if not was_bad:  # a verdict stands as it is until its time is over
        recent = tuple(one for one in recent if now_s - one[0] < rule.window_s)
    recent = _few(recent)
    return _Entry(boot_id, value - sum(amount for _at_s, amount in recent), value, grown_at_s, recent)


def _few(recent: tuple[_Growth, ...]) -> tuple[_Growth, ...]:
    """Return a bounded number of them: the two that lie closest are taken for one, at the time of the later."""
    while len(recent) > MOST_RECENT:
        gaps = [later[0] - sooner[0] for sooner, later in pairwise(recent)]
        at = gaps.index(min(gaps))
        joined = (recent[at + 1][0], recent[at][1] + recent[at + 1][1])
        recent = (*recent[:at], joined, *recent[at + 2 :])
    return recent


def _fresh(boot_id: str, value: int, now_s: float) -> _Entry:
    return _Entry(boot_id, base=value, seen=value, grown_at_s=now_s)


def _plain(entry: _Entry) -> dict[str, object]:
    return {**asdict(entry), "recent": [list(one) for one in entry.recent]}


def _entry(one: object, boot_id: str, rule: Rule, now_s: float) -> _Entry | None:
    """Return what is known of a counter, None when that is nothing or of another boot."""
    if not isinstance(one, Mapping):
        return None
    same_boot = one.get("boot_id") == boot_id
    base, seen, grown_at_s = one.get("base"), one.get("seen"), one.get("grown_at_s")
    if not _is_count(base) or not _is_count(seen) or not _is_time(grown_at_s) or base > seen:
        return None
    if not same_boot and not rule.survives_boot:
        return None
    # A time to come is nonsense: it would hold a verdict for ever. Times of another boot mean nothing.
    grown_at_s = min(grown_at_s, now_s) if same_boot else now_s
    if rule.window_s is None:
        return _Entry(boot_id, base, seen, grown_at_s)
    recent = _recent(one.get("recent"), now_s) if same_boot else ()
    if sum(amount for _at_s, amount in recent) != seen - base:  # what is known of the sum alone is as old as its last
        recent = ((grown_at_s, seen - base),) if seen > base else ()
    return _Entry(boot_id, base, seen, grown_at_s, recent)


def _recent(found: object, now_s: float) -> tuple[_Growth, ...]:
    """Return the growth that is stored, nothing if that makes no sense."""
    if not isinstance(found, list | tuple) or len(found) > MOST_RECENT:
        return ()
    taken: list[_Growth] = []
    for one in found:
        if not isinstance(one, list | tuple) or len(one) != len(("at_s", "amount")):
            return ()
        at_s, amount = one
        if not _is_time(at_s) or not _is_count(amount):
            return ()
        taken.append((min(at_s, now_s), amount))
    return tuple(sorted(taken))


def _is_count(found: object) -> TypeGuard[int]:
    return isinstance(found, int) and not isinstance(found, bool) and found >= 0


def _is_time(found: object) -> TypeGuard[float]:
    return isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found)
