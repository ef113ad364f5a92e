"""Watches the control socket's door on the event loop, and opens it again a moment after it was shut."""

import logging
from asyncio import AbstractEventLoop, Handle, TimerHandle

from devd.daemon.seldom import Seldom
from devd.ipc.door import Door

SHUT_S = 0.5
"""How long newcomers wait once all callers were sent away; a command waits 1.4 s for its answer."""

log = logging.getLogger("devd.control")


class DoorKeeper:
    """Sends all callers away when they are too many: else they would take the descriptors that the workers need."""

    def __init__(self, loop: AbstractEventLoop, door: Door) -> None:
        self._loop = loop
        self._door = door
        self._cuts = Seldom()
        # libzmq's descriptor says nothing before it was asked once.
        self._soon: Handle = loop.call_soon(self._look)
        self._opens: TimerHandle | None = None
        loop.add_reader(door.fd, self._look)

    @property
    def cuts(self) -> int:
        """Return how often all callers were sent away."""
        return self._cuts.count

    def close(self) -> None:
        """Watch no longer; the door stays as it is."""
        self._soon.cancel()
        if self._opens is not None:
            self._opens.cancel()
        self._loop.remove_reader(self._door.fd)

    def cut(self, why: str) -> None:
        """End all connections for a moment."""
        if self._door.shut():
            self._was_shut(why)

    def _was_shut(self, why: str) -> None:
        self._opens = self._loop.call_later(SHUT_S, self._open)
        if since := self._cuts.more():
            text = "%s: all ended, %d times since the last such line"
            log.warning(text, why, since, extra={"event": "cut", "count": since})

    def _look(self) -> None:
        if not self._door.look():
            self._was_shut("too many connections to the control socket")
        if self._door.pending():
            self._soon.cancel()
            self._soon = self._loop.call_soon(self._look)

    def _open(self) -> None:
        self._opens = None if self._door.open() else self._loop.call_later(SHUT_S, self._open)
