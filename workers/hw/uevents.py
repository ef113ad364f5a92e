"""The kernel's uevents by netlink: devices that come, go or change, as they do.

The kernel tells them in every network namespace that belongs to the initial user namespace (kobject_uevent.c), and
they may be lost: a reader that was too slow is told so once, and looks for itself then. Every user keeps a slow scan
behind them.
"""

import errno
import socket
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

NETLINK_KOBJECT_UEVENT = 15
KERNEL_GROUP = 1
"""The multicast group the kernel itself speaks to; udev's own messages have another."""
SO_RCVBUFFORCE = 33
"""Like SO_RCVBUF beyond the system's limit, with CAP_NET_ADMIN (asm-generic/socket.h)."""
BUFFER_BYTES = 1024 * 1024
"""Room for some 1,000 events (the kernel counts more than their text): a whole hub or disk shelf at once."""
MESSAGE_BYTES = 8 * 1024
"""The kernel's uevents have 2 KiB of variables at most, plus the path."""
MAX_EVENTS = 256
"""Events taken at one read, so that a storm does not hold its reader up for ever."""


@dataclass(frozen=True, slots=True)
class Uevent:
    """One event. ``path`` is the device's directory below /sys ("/devices/pci0000:00/...")."""

    action: str
    path: str
    subsystem: str
    values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Batch:
    """What one read gave. ``lost``: events were dropped before these; ``more``: some may wait still."""

    events: tuple[Uevent, ...] = ()
    lost: bool = False
    more: bool = False


class Uevents:
    """One netlink socket, non-blocking; its ``fd`` is readable while events wait (level-triggered).

    ``subsystems`` are those that are wanted ("usb", "tty"), all of them when empty.
    """

    def __init__(self, subsystems: Collection[str] = (), *, buffer_bytes: int = BUFFER_BYTES) -> None:
        self._subsystems = frozenset(subsystems)
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, NETLINK_KOBJECT_UEVENT)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
            with suppress(PermissionError):  # the system's limit holds then
                self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, buffer_bytes)
            self._socket.bind((0, KERNEL_GROUP))
        except OSError:
            self._socket.close()
            raise

    @property
    def fd(self) -> int:
        """Return the descriptor to wait for, -1 once closed."""
        return self._socket.fileno()

    def read(self) -> Batch:
        """Return wanted events that wait, oldest first; takes at most ``MAX_EVENTS`` off the queue. Raises OSError."""
        events: list[Uevent] = []
        lost = False
        for _turn in range(MAX_EVENTS):
            try:
                data, sender = self._socket.recvfrom(MESSAGE_BYTES)
            except BlockingIOError:
                return Batch(tuple(events), lost)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                lost = True  # the kernel says so once, and goes on with what waits
                continue
            event = parse(data) if sender[0] == 0 else None  # 0 is the kernel; anybody else is making things up
            if event is not None and self._wanted(event):
                events.append(event)
        return Batch(tuple(events), lost, more=True)

    def close(self) -> None:
        """Close the socket. More than once is fine."""
        self._socket.close()

    def _wanted(self, event: Uevent) -> bool:
        return not self._subsystems or event.subsystem in self._subsystems

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def parse(data: bytes) -> Uevent | None:
    """Return the event a message is, None for anything else (udev's own format, something cut off).

    A message is "ACTION@PATH" and then KEY=VALUE, each ended by a NUL.
    """
    head, *lines = data.decode("utf-8", "replace").rstrip("\0").split("\0")
    action, at, path = head.partition("@")
    if not at or not action or not path.startswith("/"):
        return None
    pairs = (line.partition("=") for line in lines)
    values = {key: value for key, equals, value in pairs if equals}
    if values.get("ACTION") != action or values.get("DEVPATH") != path:
        return None
    return Uevent(action, path, values.get("SUBSYSTEM", ""), values)
