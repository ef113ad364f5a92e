"""Shares the event loop between RPCs and supervision: work that comes in heaps is done in slices.

When hundreds of devices hang at once there is a heap of deadlines to judge, processes to end and messages to read. Each
piece takes well under a millisecond; done in one go they would keep the kubelet waiting. Between two slices the loop
looks at its sockets.
"""

import logging
import time
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Callable, Hashable

SLICE_S = 0.001
"""What is done before RPCs get their turn: about what one Allocate takes (docs/benchmarks.md)."""

GAP_S = 0.001
"""What the loop is left to RPCs between two slices: an answer takes several turns of the loop, and would else wait for
a slice before each of them. asyncio rounds up to milliseconds."""

log = logging.getLogger("devd.turns")

Work = Callable[[], bool]
"""One piece; returns whether more of the same waits, which then comes after what others have waiting."""


class Turns:
    """A queue of work, each key in it once, so that it is bounded by those who have any."""

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._queue: deque[tuple[Hashable, Work]] = deque()
        self._keys: set[Hashable] = set()
        self._armed = False
        self._closed = False

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, key: Hashable, work: Work) -> None:
        """Have a piece done in its turn, unless one of this key waits already."""
        if key in self._keys or self._closed:
            return
        self._keys.add(key)
        self._queue.append((key, work))
        self._arm()

    def close(self) -> None:
        """Drop what waits, and take nothing any more."""
        self._closed = True
        self._queue.clear()
        self._keys.clear()

    def _arm(self) -> None:
        if not self._armed:
            self._armed = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._armed = False
        until_s = time.monotonic() + SLICE_S
        while self._queue:
            key, work = self._queue.popleft()
            self._keys.discard(key)
            try:
                again = work()
            except Exception:  # a bug of ours: told, and the others' work goes on
                log.exception("work for %r failed", key)
                again = False
            if again:
                self.put(key, work)
            if time.monotonic() >= until_s:
                break
        if self._queue:
            self._armed = True
            self._loop.call_later(GAP_S, self._run)
