"""Linux inotify(7) on libc by ctypes: who wants to know of a change in a directory watches it here.

Watches are about inodes, not names: a directory that is removed and made again needs a new ``add``. Events may be lost
(IN_Q_OVERFLOW) and do not exist for what another host does to a network filesystem, so every user keeps a slow poll
behind them.
"""

import ctypes
import errno
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

# Numbers of linux/inotify.h, the same on every architecture.
IN_MODIFY = 0x00000002
IN_ATTRIB = 0x00000004
IN_CLOSE_WRITE = 0x00000008
IN_MOVED_FROM = 0x00000040
IN_MOVED_TO = 0x00000080
IN_CREATE = 0x00000100
IN_DELETE = 0x00000200
IN_DELETE_SELF = 0x00000400
IN_MOVE_SELF = 0x00000800
IN_UNMOUNT = 0x00002000
"""Sent unasked: the filesystem of the watched path was unmounted."""
IN_Q_OVERFLOW = 0x00004000
"""Sent unasked, with ``wd`` -1: events were lost."""
IN_IGNORED = 0x00008000
"""Sent unasked: the watch is gone, its ``wd`` means nothing any more."""
IN_ONLYDIR = 0x01000000
"""For ``add`` alone: fail with NotADirectoryError on anything but a directory."""
IN_ISDIR = 0x40000000
"""Beside another event: it is about a directory."""

READ_BYTES = 64 * 1024
"""One read takes at most this much of the kernel's queue: some 4,000 events about short names."""

_HEADER = struct.Struct("iIII")

_libc = ctypes.CDLL(None, use_errno=True)
_libc.inotify_init1.argtypes = (ctypes.c_int,)
_libc.inotify_add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
_libc.inotify_rm_watch.argtypes = (ctypes.c_int, ctypes.c_int)


@dataclass(frozen=True, slots=True)
class InotifyEvent:
    """One event. ``name`` is the entry inside a watched directory, empty when the event is about the watched path.

    ``wd`` is what ``add`` returned, -1 for IN_Q_OVERFLOW; ``cookie`` joins the two halves of a rename.
    """

    wd: int
    mask: int
    cookie: int
    name: str


class Inotify:
    """One inotify instance. Non-blocking; its ``fd`` is readable while events wait (level-triggered)."""

    def __init__(self) -> None:
        self.fd = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify_init1", None)

    def add(self, path: Path, mask: int) -> int:
        """Watch ``path`` (its inode) for ``mask``; the same inode again replaces its mask and returns the same number.

        Raises OSError naming the path: FileNotFoundError, PermissionError, ENOSPC for the user's limit on watches.
        """
        return _checked(_libc.inotify_add_watch(self._open_fd(), os.fsencode(path), mask), "inotify_add_watch", path)

    def remove(self, wd: int) -> None:
        """End a watch; one that is gone already is no error (IN_IGNORED may still wait in the queue)."""
        if _libc.inotify_rm_watch(self._open_fd(), wd) < 0:
            number = ctypes.get_errno()
            if number != errno.EINVAL:  # EINVAL: no such watch, it ended with its inode
                raise OSError(number, f"inotify_rm_watch: {os.strerror(number)}")

    def read(self) -> list[InotifyEvent]:
        """Return events that wait, oldest first, none when none do; at most one buffer of them (``READ_BYTES``)."""
        try:
            data = os.read(self._open_fd(), READ_BYTES)
        except BlockingIOError:
            return []
        return _parse(data)

    def close(self) -> None:
        """Close the instance and all its watches. More than once is fine."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _open_fd(self) -> int:
        if self.fd < 0:
            raise ValueError("this Inotify is closed")
        return self.fd

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _checked(result: int, call: str, path: Path | None) -> int:
    if result >= 0:
        return result
    number = ctypes.get_errno()
    text = f"{call}: {os.strerror(number)}"
    raise OSError(number, text) if path is None else OSError(number, text, os.fspath(path))


def _parse(data: bytes) -> list[InotifyEvent]:
    events = []
    at = 0
    while at < len(data):
        wd, mask, cookie, length = _HEADER.unpack_from(data, at)
        at += _HEADER.size
        name = data[at : at + length].rstrip(b"\0")
        at += length
        events.append(InotifyEvent(wd, mask, cookie, os.fsdecode(name)))
    return events
