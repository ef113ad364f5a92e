"""Notices that the event loop stands still, and writes down where: a bug of ours that no device can cause.

A thread looks at the loop's heartbeat. A process that was stopped or starved as a whole is no blocked loop: then the
thread's own pause was too long as well. ``devd health`` fails meanwhile by itself, since the loop does not answer it.
"""

import logging
import sys
import threading
import time
import traceback
from asyncio import AbstractEventLoop, TimerHandle
from types import FrameType

BEAT_S = 0.25
BLOCKED_S = 2.0
"""A beat that is so late has been held up by something. The loop's longest honest turn is some 10 ms."""
AWAY_S = 1.0
"""The thread's own pause may be longer than ordered by this much; more, and the process as a whole was away."""
SHOWN_FRAMES = 12

log = logging.getLogger("devd.watchdog")


class Watchdog:
    """One thread. ``blocks`` counts how often the loop stood still; ``close`` it at the end."""

    def __init__(self, loop: AbstractEventLoop) -> None:
        """Begin to watch; called on the loop's own thread."""
        self.blocks = 0
        self.longest_s = 0.0
        self._loop = loop
        self._thread_id = threading.get_ident()
        self._beat_s = time.monotonic()
        self._timer: TimerHandle | None = None
        self._closed = threading.Event()
        self._beat()
        self._thread = threading.Thread(target=self._watch, name="devd-watchdog", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        if self._timer is not None:
            self._timer.cancel()
        self._thread.join(2 * BEAT_S)

    def _beat(self) -> None:
        self._beat_s = time.monotonic()
        self._timer = self._loop.call_later(BEAT_S, self._beat)

    # ---- the thread -------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        blocked_since_s: float | None = None
        while True:
            before_s = time.monotonic()
            if self._closed.wait(BEAT_S):
                return
            now_s, beat_s = time.monotonic(), self._beat_s
            if now_s - before_s > BEAT_S + AWAY_S:
                continue  # away as a whole: the loop gets its turn first
            if now_s - beat_s <= BLOCKED_S:
                if blocked_since_s is not None:
                    self._over(beat_s - blocked_since_s)
                    blocked_since_s = None
            elif blocked_since_s is None:
                blocked_since_s = beat_s
                self._tell(now_s - beat_s)

    def _tell(self, for_s: float) -> None:
        self.blocks += 1
        where = story(sys._current_frames().get(self._thread_id))  # noqa: SLF001 - the documented way to it
        log.error(
            "the event loop has stood still for %.1f s, nothing is answered meanwhile; it stands in: %s",
            for_s,
            where,
            extra={"event": "blocked", "stack": where},
        )

    def _over(self, for_s: float) -> None:
        self.longest_s = max(self.longest_s, for_s)
        log.warning("the event loop goes on after %.1f s", for_s, extra={"event": "unblocked"})


def story(frame: FrameType | None) -> str:
    """Return where a thread stands, the innermost call first."""
    if frame is None:
        return "unknown"
    calls = reversed(traceback.extract_stack(frame)[-SHOWN_FRAMES:])
    return " < ".join(f"{one.name} ({one.filename.rpartition('/')[2]}:{one.lineno})" for one in calls)
