"""The counters of one device in its worker: the baseline as it stands, and what is worth telling of each counter."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from devd.workers.hw import attributes
from devd.workers.hw.baseline import Rule, judge, last_seen, rebase

BOOT_ID = "proc/sys/kernel/random/boot_id"


def boottime_s() -> float:
    """Return CLOCK_BOOTTIME in seconds."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Counters:
    """Judges counters against the map it was given; ``stored`` is the map to keep."""

    def __init__(
        self, root: Path, stored: Mapping[str, object] | None, clock_s: Callable[[], float] = boottime_s
    ) -> None:
        self._boot_id = attributes.text(root / BOOT_ID) or ""
        self._stored: Mapping[str, object] = dict(stored or {})
        self._clock_s = clock_s
        self._notes: dict[str, str] = {}

    @property
    def stored(self) -> Mapping[str, object]:
        """Return the baseline to keep for the next worker."""
        return self._stored

    @property
    def notes(self) -> Mapping[str, str]:
        """Return what is worth telling of a counter although it is no fault (name -> text)."""
        return self._notes

    def judge(self, rule: Rule, value: int) -> str:
        """Return "" when a counter is well, else the reason."""
        judgement = judge(self._stored, self._boot_id, rule, value, self._clock_s())
        self._stored = judgement.stored
        if judgement.note:
            self._notes[rule.name] = judgement.note
        else:
            self._notes.pop(rule.name, None)
        return judgement.reason

    def judge_again(self, rule: Rule) -> str:
        """Return what a counter's last value says, while there is no new one; "" where none was seen."""
        value = last_seen(self._stored, rule.name)
        return "" if value is None else self.judge(rule, value)

    def forget(self, names: Sequence[str]) -> None:
        """Take the next value of these counters as their baseline: a cure has worked."""
        self._stored = rebase(self._stored, names)
