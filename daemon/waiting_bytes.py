"""Who has sent more than was taken in yet: what waits in the front's connections, by the kernel's word on whose it is.

Only sockets are asked (a pipe or a file could make the question wait), and only what the kernel answers at once.
"""

import array
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

WAITING_BYTES = 8 * 1024
"""Less is a message or two that came just now; a sender without end fills the connection, which holds some 200 KiB."""
_CREDENTIALS = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits in one connection: who made it, to which socket, and how many bytes."""

    pid: int
    socket: str
    count: int


def waiting(folder: Path) -> list[Waiting]:
    """Return what waits in connections to the sockets below a folder, of who has more than a little.

    Of thousands of descriptors it takes some ten milliseconds. Raises OSError without a free descriptor.
    """
    below = f"{folder}/"
    numbers = os.listdir("/proc/self/fd")  # noqa: PTH208 - numbers are wanted, not paths
    return [one for number in numbers for one in _of(int(number), below)]


def _of(fd: int, below: str) -> Iterator[Waiting]:
    """Yield what waits in one connection; nothing for a descriptor that is none, or was closed meanwhile."""
    try:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=fd)
    except OSError:
        return
    try:
        count = array.array("i", [0])
        fcntl.ioctl(fd, termios.FIONREAD, count)
        name = str(connection.getsockname()) if count[0] >= WAITING_BYTES else ""
        if name.startswith(below):
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            yield Waiting(_CREDENTIALS.unpack(credentials)[0], name, count[0])
    except OSError:
        return
    finally:
        connection.detach()  # it is another's to close
