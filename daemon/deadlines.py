"""Wakes the lifecycles when something of theirs is due; time in which the front itself was away counts for nobody."""

import logging
import time
from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable, Mapping
from functools import partial

from devd.daemon import events as ev
from devd.daemon import lifecycle
from devd.daemon.charge import Charge
from devd.daemon.turns import Turns

STALL_S = 0.25
"""A timer of ours that fires this late means that the front itself was away."""
BEAT_S = 0.1
"""How often a timer fires whatever is due: by so much at the most an absence is longer than what is given back."""
TICK_GRAIN_S = 0.001
LOOK_AGAIN_S = 0.05
"""While devices wait for their turn the timer goes on, so that an absence meanwhile is noticed."""

log = logging.getLogger("devd.supervisor")


class Deadlines:
    """One timer for all charges, set to the first that is due. ``send`` steps a device's lifecycle.

    A second one beats, so that an absence is known by its length and not only by what it made late.
    """

    def __init__(
        self,
        loop: AbstractEventLoop,
        turns: Turns,
        charges: Mapping[str, Charge],
        send: Callable[[str, ev.Event], None],
    ) -> None:
        self._loop = loop
        self._turns = turns
        self._charges = charges
        self._send = send
        self._timer: TimerHandle | None = None
        self._timer_due_s = float("inf")
        self._in_due = False
        self._drain: Callable[[], None] = lambda: None
        self.stalls = 0
        self._beat_due_s = 0.0
        self._beats: TimerHandle | None = None
        self._next_beat()

    def on_stall(self, drain: Callable[[], None]) -> None:
        """Set what is called first after an absence: it takes in what has arrived meanwhile."""
        self._drain = drain

    def arm(self, charge: Charge) -> None:
        """Be awake when this charge is due."""
        due_s = lifecycle.next_due_s(charge.state)
        if due_s is not None and due_s < self._timer_due_s:
            self._set_timer(due_s)

    def catch_up(self) -> None:
        """After an absence of the front's own: forgive it before anything is decided, in whatever order wakes come."""
        if not self._in_due and self._late_s() > STALL_S:
            self._due()

    def close(self) -> None:
        """Stop the clock."""
        for timer in (self._timer, self._beats):
            if timer is not None:
                timer.cancel()

    def _beat(self) -> None:
        self.catch_up()
        self._next_beat()

    def _next_beat(self) -> None:
        self._beat_due_s = time.monotonic() + BEAT_S
        self._beats = self._loop.call_at(self._beat_due_s, self._beat)

    def _late_s(self) -> float:
        """Return for how long the front has certainly been away."""
        return time.monotonic() - self._beat_due_s

    def _set_timer(self, due_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due_s = due_s
        # The loop's clock is CLOCK_MONOTONIC too.
        self._timer = self._loop.call_at(due_s + TICK_GRAIN_S, self._due)

    def _due(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._in_due = True
        try:
            late_s = self._late_s()
            self._timer, self._timer_due_s = None, float("inf")
            if late_s > STALL_S:
                # Given back once: the beat itself may come later still.
                self._beat_due_s += late_s
                self._forgive(late_s)
            self._have_judged(time.monotonic())
        finally:
            self._in_due = False

    def _have_judged(self, now_s: float) -> None:
        """Have each device whose time has come judged in its turn, and set the timer for the rest."""
        next_s = self._timer_due_s
        for device, charge in self._charges.items():
            due_s = lifecycle.next_due_s(charge.state)
            if due_s is None:
                continue
            if due_s <= now_s:
                self._turns.put(("due", device), partial(self._tick, device))
                due_s = now_s + LOOK_AGAIN_S
            next_s = min(next_s, due_s)
        if next_s < self._timer_due_s:
            self._set_timer(next_s)

    def _tick(self, device: str) -> bool:
        """Judge a device, if its time still has come."""
        charge, now_s = self._charges.get(device), time.monotonic()
        due_s = lifecycle.next_due_s(charge.state) if charge is not None else None
        if due_s is not None and due_s <= now_s:
            self._send(device, ev.Tick(now_s))
        return False

    def _forgive(self, late_s: float) -> None:
        """First give everyone the time back, then hear what has arrived."""
        self.stalls += 1
        log.warning("the front was away for %.2f s; every deadline is put off by it", late_s)
        now_s = time.monotonic()
        for device in list(self._charges):
            self._send(device, ev.Stalled(now_s, late_s))
        self._drain()
