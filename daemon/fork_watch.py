"""Notices a fork server that lives and does nothing: it is stopped, or hangs.

Whoever waits for a word of it says so here. Time counts in steps of a timer, so that an absence of the front's own is
one step at the most, however long it was.
"""

from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable, Hashable

from devd.daemon import proc

STEP_S = 0.5
ASK_AFTER_S = 2.0
"""A fork takes milliseconds and an end is told in as many; after this the fork server is looked at, and asked."""
LOST_AFTER_S = 5.0
"""A fork server that has not said a word for so long, though it was asked, does not come back."""
FIRST_WORD_S = 20.0
"""The same for one that has not said its first word: it has an interpreter to start, on a node that may be booting."""


class ForkWatch:
    """Watches one fork server after another. ``ask`` has it say something, ``lost`` is told why it is given up."""

    def __init__(self, loop: AbstractEventLoop, ask: Callable[[], None], lost: Callable[[str], None]) -> None:
        self._loop = loop
        self._ask = ask
        self._lost = lost
        self._pid: int | None = None
        self._awaited: set[Hashable] = set()
        self._spoke = False
        self._silent_s = 0.0
        self._timer: TimerHandle | None = None

    def begin(self, pid: int) -> None:
        """Watch a fork server that has just been started."""
        self.end()
        self._pid = pid

    def end(self) -> None:
        """Watch none; nothing is waited for any more."""
        self._pid, self._spoke, self._silent_s = None, False, 0.0
        self._awaited.clear()
        self._rest()

    def awaits(self, what: Hashable) -> None:
        """Wait for a word about something; what is waited for already is no more than that."""
        if self._pid is None:
            return
        if not self._awaited:
            self._silent_s = 0.0
        self._awaited.add(what)
        if self._timer is None:
            self._timer = self._loop.call_later(STEP_S, self._step)

    def heard(self, what: Hashable = None) -> None:
        """Take note that it said something, perhaps about what was waited for."""
        self._spoke, self._silent_s = True, 0.0
        self._awaited.discard(what)
        if not self._awaited:
            self._rest()

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _step(self) -> None:
        self._timer = self._loop.call_later(STEP_S, self._step)
        self._silent_s += STEP_S
        if self._pid is None or self._silent_s < ASK_AFTER_S:
            return
        if self._silent_s >= (LOST_AFTER_S if self._spoke else FIRST_WORD_S) or proc.stopped(self._pid):
            why = f"the fork server has not answered for {self._silent_s:g} s: {proc.observe(self._pid)}"
            self._lost(why)
        elif self._silent_s < ASK_AFTER_S + STEP_S:
            self._ask()
