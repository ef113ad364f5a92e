"""Whether the front's memory grows as it may, and who makes it grow: decided from what was seen. Pure.

libzmq keeps every frame of a message until its last one has come, however many they are, and no option bounds it: a
worker that was taken over can send one without end by hand. No such message ever reaches the front, so it is known by
two things the kernel tells: memory grows, and bytes wait in one connection because they come faster than they can be
taken. Small frames take libzmq 32 times their size, and the processor time of who sends them hardly shows.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

MIB = 1 << 20
BOUND_BYTES = 128 * MIB
"""Growth that calls for an end. Status trees of thousands of devices, the kubelet's lists, full queues of honest
workers stay within it; the limit that a container gets for the front is above it."""
ALARM_BYTES = BOUND_BYTES // 2
"""Growth from which it is looked at who sends."""
WORKER_BYTES = 256 * 1024
"""What a worker may add for good: 93 KiB were measured at 300 devices, with sockets, table and status."""
SURE_LOOKS = 2
"""Looks at which bytes of one sender wait: once can be a large list at a bad moment."""
HASTE_BYTES = 2 * BOUND_BYTES
"""Growth at which once is enough."""
PATIENCE_S = 2.0
"""How long senders are looked for before processor time decides, and what was freed has to be given back."""
GROWS_BYTES = 8 * MIB
"""Growth within that time that is more than what was freed late or scattered."""
BUSY_S = 0.05
"""Processor time that an honest worker does not use within some seconds; to fill 64 MiB by single small writes takes
about a second of it."""
GUESSES = 8
"""Workers ended for their processor time alone, in one such time: it may be that none of them did it."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One look. ``waiting`` are senders with bytes in the kernel's queue, ``used_s`` each worker's processor time.

    Both are by pid; ``workers`` is how many there are, ``at_s`` is CLOCK_MONOTONIC.
    """

    at_s: float
    resident_bytes: int
    workers: int
    waiting: frozenset[int] = frozenset()
    used_s: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Culprit:
    """Who is to be ended, by pid, and why."""

    pid: int
    why: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """Nobody is to be found: what is used now is what is normal from here on."""

    grown_bytes: int


class HeapRules:
    """What was seen since the memory began to grow. ``base_bytes`` is what the front uses before its first worker."""

    def __init__(self, base_bytes: int) -> None:
        self._base_bytes = base_bytes
        self._most_workers = 0
        self._looks: Counter[int] = Counter()
        self._used_s: Mapping[int, float] | None = None
        self._ended: set[int] = set()
        self._guesses = 0
        self._window: tuple[float, int] | None = None

    def grown(self, resident_bytes: int, workers: int) -> int:
        """Return by how much more than it may the memory has grown, in bytes; 0 for not at all."""
        # Not given back when they leave: the C library keeps some of it.
        self._most_workers = max(self._most_workers, workers)
        return max(0, resident_bytes - self._base_bytes - WORKER_BYTES * self._most_workers)

    def alarmed(self, resident_bytes: int, workers: int) -> bool:
        """Return whether it is time to look who sends; if not, all that was seen is forgotten."""
        if self.grown(resident_bytes, workers) >= ALARM_BYTES:
            return True
        self._forget()
        return False

    def judge(self, seen: Seen) -> Culprit | Accepted | None:
        """Take in a look while ``alarmed``; return what is to be done now, None to look on."""
        grown = self.grown(seen.resident_bytes, seen.workers)
        self._looks.update(pid for pid in seen.waiting if pid not in self._ended)
        if self._used_s is None:
            self._used_s = dict(seen.used_s)
        if grown < BOUND_BYTES:
            return None
        needed = 1 if grown >= HASTE_BYTES else SURE_LOOKS
        pid, looks = next(iter(self._looks.most_common(1)), (0, 0))
        if looks >= needed:
            why = f"the daemon's memory grew by {grown // MIB} MiB while its messages had no end and waited to be read"
            return self._end(pid, why, seen)
        return self._without_a_sender(seen, grown)

    def _without_a_sender(self, seen: Seen, grown: int) -> Culprit | Accepted | None:
        if self._window is None:
            self._window = (seen.at_s, seen.resident_bytes)
        began_s, began_bytes = self._window
        took_s = seen.at_s - began_s
        if took_s < PATIENCE_S:
            return None
        used_s = {pid: now_s - (self._used_s or {}).get(pid, 0.0) for pid, now_s in seen.used_s.items()}
        busy = {pid: one_s for pid, one_s in used_s.items() if one_s >= BUSY_S and pid not in self._ended}
        if seen.resident_bytes - began_bytes < GROWS_BYTES or not busy or self._guesses >= GUESSES:
            self._base_bytes += grown
            self._forget()
            return Accepted(grown)
        self._guesses += 1
        pid = max(busy, key=lambda one: busy[one])
        why = f"the daemon's memory grew by {grown // MIB} MiB while it used {busy[pid]:.2f} s of a processor, the most"
        return self._end(pid, f"{why} of all workers", seen)

    def _end(self, pid: int, why: str, seen: Seen) -> Culprit:
        self._ended.add(pid)
        del self._looks[pid]
        self._window = (seen.at_s, seen.resident_bytes)
        return Culprit(pid, why)

    def _forget(self) -> None:
        self._looks.clear()
        self._used_s = None
        self._ended.clear()
        self._guesses = 0
        self._window = None
