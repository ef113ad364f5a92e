"""Who has sent more than was taken in yet: what waits in the front's connections, by the kernel's word on whose it is.

Only sockets are asked (a pipe or a file could make the question wait), and only what the kernel answers at once.
"""

import array
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Iterator, Mapping
from pathlib import Path

WAITING_BYTES = 8 * 1024
"""Less is a message or two that came just now; a sender without end fills the connection, which holds some 200 KiB."""
_CREDENTIALS = struct.Struct("3i")


def waiting(folder: Path) -> Mapping[int, int]:
    """Return pid -> bytes that wait in connections to the sockets below a folder, of who has more than a little.

    Of thousands of descriptors it takes some ten milliseconds. Raises OSError without a free descriptor.
    """
    found: dict[int, int] = {}
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers are wanted, not paths
        for pid, count in _of(int(number), f"{folder}/"):
            found[pid] = found.get(pid, 0) + count
    return found


def _of(fd: int, below: str) -> Iterator[tuple[int, int]]:
    """Yield (pid, bytes) of one connection; nothing for a descriptor that is none, or was closed meanwhile."""
    try:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=fd)
    except OSError:
        return
    try:
        count = array.array("i", [0])
        fcntl.ioctl(fd, termios.FIONREAD, count)
        if count[0] >= WAITING_BYTES and str(connection.getsockname()).startswith(below):
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            yield _CREDENTIALS.unpack(credentials)[0], count[0]
    except OSError:
        return
    finally:
        connection.detach()  # it is another's to close
