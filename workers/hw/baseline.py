"""Error counters judged by their growth: pure functions over a plain map that outlives the worker.

The map is ``{counter: {"boot_id", "base", "base_at_s", "seen", "grown_at_s"}}``; whoever owns it stores it as it is.
What cannot be understood in it counts as absent: a damaged file costs the baseline, no more.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TypeGuard


@dataclass(frozen=True, slots=True)
class Rule:
    """How one counter is judged.

    ``bits`` is the counter's width where it stays at its highest value (0: it never does). Growth of more than
    ``allowed`` is bad: within ``window_s`` seconds, and for so long after the last growth; None: since the baseline,
    until that is taken anew. ``survives_boot``: the device keeps the count itself.
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


@dataclass(frozen=True, slots=True)
class _Entry:
    boot_id: str
    base: int
    base_at_s: float
    seen: int
    grown_at_s: float


def judge(stored: Mapping[str, object], boot_id: str, rule: Rule, value: int, now_s: float) -> Judgement:
    """Return what a counter's value says against its baseline, and the map to keep from now on.

    ``now_s`` is CLOCK_BOOTTIME: it runs on while the machine sleeps, and begins anew with each boot as most counters
    do. A value below the last one means that somebody cleared the counter: it is the new baseline, and what was
    counted in between is lost.
    """
    entry = _follow(_entry(stored.get(rule.name), boot_id, rule, now_s), boot_id, value, now_s)
    grown = max(0, value - entry.base)
    bad = grown > rule.allowed
    if rule.window_s is not None:
        since_s = now_s - (entry.grown_at_s if bad else entry.base_at_s)
        if since_s >= rule.window_s:
            entry, grown, bad = _fresh(boot_id, value, now_s), 0, False
    saturated = bool(rule.bits) and value >= rule.highest
    return Judgement(
        stored={**stored, rule.name: asdict(entry)},
        grown=grown,
        reason=_words(rule, entry, value, saturated=saturated) if bad else "",
        note=f"{rule.name} stands at its highest value, {rule.highest}: clear it, it counts no more"
        if saturated
        else "",
    )


def rebase(stored: Mapping[str, object], names: Sequence[str]) -> dict[str, object]:
    """Return the map without these counters: the next value of each is its baseline (a reset cured it)."""
    return {name: one for name, one in stored.items() if name not in names}


def _words(rule: Rule, entry: _Entry, value: int, *, saturated: bool) -> str:
    at_least = "at least " if saturated else ""
    text = f"{rule.name} grew by {at_least}{value - entry.base} ({entry.base} -> {value})"
    if rule.allowed:
        within = f" in {rule.window_s:g} s" if rule.window_s is not None else ""
        text += f", allowed are {rule.allowed}{within}"
    return f"{text}; the counter is saturated" if saturated else text


def _follow(entry: _Entry | None, boot_id: str, value: int, now_s: float) -> _Entry:
    if entry is None or value < entry.seen:
        return _fresh(boot_id, value, now_s)
    grown_at_s = now_s if value > entry.seen else entry.grown_at_s
    return _Entry(boot_id, entry.base, entry.base_at_s, value, grown_at_s)


def _fresh(boot_id: str, value: int, now_s: float) -> _Entry:
    return _Entry(boot_id, base=value, base_at_s=now_s, seen=value, grown_at_s=now_s)


def _entry(one: object, boot_id: str, rule: Rule, now_s: float) -> _Entry | None:
    """Return what is known of a counter, None when that is nothing or of another boot."""
    if not isinstance(one, Mapping):
        return None
    same_boot = one.get("boot_id") == boot_id
    base, seen = one.get("base"), one.get("seen")
    base_at_s, grown_at_s = one.get("base_at_s"), one.get("grown_at_s")
    if not _is_count(base) or not _is_count(seen) or not _is_time(base_at_s) or not _is_time(grown_at_s):
        return None
    if base > seen:
        return None
    if same_boot:
        # A time to come is nonsense: it would hold a verdict for ever.
        return _Entry(boot_id, base, min(base_at_s, now_s), seen, min(grown_at_s, now_s))
    if rule.survives_boot:  # times of another boot mean nothing here
        return _Entry(boot_id, base, now_s, seen, now_s)
    return None


def _is_count(found: object) -> TypeGuard[int]:
    return isinstance(found, int) and not isinstance(found, bool) and found >= 0


def _is_time(found: object) -> TypeGuard[float]:
    return isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found)
