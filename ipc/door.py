"""How many may be connected to one bound socket: libzmq counts them, and all are sent away when they are too many.

libzmq accepts whoever comes, and aborts the whole process when no descriptor is left for the next one (its accept
knows no EMFILE). It cannot be told to take fewer. But the listening socket is ours: while it is taken from libzmq the
kernel keeps newcomers waiting, in a queue that is bounded; and taking it ends the connections there are.
"""

import os
import struct
import time
from pathlib import Path

import zmq

from devd.ipc.endpoints import ipc_address

LOOK_LIMIT = 512
"""Connections that came or went, taken in at a time."""
EVENTS_KEPT = 100_000
"""libzmq waits where this queue is full, and holds a lock that the front's bind and close need: it has to be too long
to fill between two looks, and still has an end (some 13 MB)."""
RATE_WINDOW_S = 1.0
_EVENT = "=Hi"
"""zmq_socket_monitor(3): the event's number and its value, which is the connection's descriptor."""


class Door:
    """Watches the connections of a bound socket. Made before the socket binds; ``close`` it before the socket.

    Call ``look`` at first, when ``fd`` is readable, and again while ``pending``. Once it said False the door is shut:
    nobody is connected and nobody gets in until ``open`` is called, which is to be a moment later.
    """

    def __init__(self, socket: "zmq.Socket[bytes]", path: Path, most: int, most_a_second: int) -> None:
        """Begin to watch. Raises ZMQError when the process is out of descriptors."""
        self._socket = socket
        self._address = ipc_address(path)
        self._most = most
        self._most_a_second = most_a_second
        self._listener = -1
        self._is_shut = False
        self._connected: set[int] = set()
        self._window_began_s = 0.0
        self._came = 0
        self._events = socket.context.socket(zmq.PAIR)
        self._events.linger = 0
        self._events.rcvhwm = EVENTS_KEPT
        where = f"inproc://door-{id(self)}"
        try:
            socket.monitor(where, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
            self._events.connect(where)
        except zmq.ZMQError:
            self._events.close(linger=0)
            raise
        self.fd = int(self._events.getsockopt(zmq.FD))

    def keep(self, listener: int) -> None:
        """Remember the listening socket that libzmq was given: a descriptor of our own for it."""
        self._listener = os.dup(listener)

    def look(self) -> bool:
        """Take in who came and who went, LOOK_LIMIT at most; False when they were too many and it shut the door."""
        for _ in range(LOOK_LIMIT):
            try:
                event = self._events.recv_multipart(zmq.NOBLOCK)[0]
            except zmq.Again:
                break
            self._take(*struct.unpack(_EVENT, event))
        if self._is_shut or (len(self._connected) <= self._most and self._came <= self._most_a_second):
            return True
        return not self.shut()

    def shut(self) -> bool:
        """End all connections, and let nobody in until ``open``; False when it is shut already."""
        if self._is_shut:
            return False
        self._is_shut = True
        self._socket.unbind(self._address)
        return True

    def pending(self) -> bool:
        """Return whether more waits to be taken in; the descriptor tells only once."""
        return bool(int(self._events.getsockopt(zmq.EVENTS)) & zmq.POLLIN)

    def open(self) -> bool:
        """Let people in again; False when the process is out of descriptors: try again later."""
        try:
            listener = os.dup(self._listener)
        except OSError:
            return False
        try:
            self._socket.setsockopt(zmq.USE_FD, listener)
            self._socket.bind(self._address)
        except zmq.ZMQError:
            os.close(listener)
            return False
        self._connected.clear()
        self._came = 0
        self._is_shut = False
        return True

    def close(self) -> None:
        """Watch no longer. Safe to call twice."""
        if self._events.closed:
            return
        self._socket.disable_monitor()
        self._events.close(linger=0)
        if self._listener >= 0:
            os.close(self._listener)

    def _take(self, event: int, descriptor: int) -> None:
        # While it is shut libzmq tells of the last who came before, and never of their ends.
        if self._is_shut:
            return
        if event == zmq.EVENT_DISCONNECTED:
            self._connected.discard(descriptor)
            return
        self._connected.add(descriptor)
        now_s = time.monotonic()
        if now_s - self._window_began_s >= RATE_WINDOW_S:
            self._window_began_s, self._came = now_s, 0
        self._came += 1
