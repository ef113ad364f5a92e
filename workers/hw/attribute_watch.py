"""Attributes of sysfs that the kernel tells changes of (sysfs_notify): waited for instead of read again and again.

Such a file is readable at all times; news show as an exceptional condition. One epoll instance turns that of several
files into one descriptor that is readable when there are some. The files stay open, which holds up nothing: the kernel
takes a device away from under them.
"""

import os
import select
from contextlib import suppress
from pathlib import Path

from devd.workers.sysfs import PAGE_BYTES


class AttributeWatch:
    """Some attributes of one device. Which ones is said again with each probe: they go and come with the device."""

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._open: dict[Path, int] = {}

    @property
    def fd(self) -> int | None:
        """Return the descriptor to wait for, None while nothing is watched."""
        return self._epoll.fileno() if self._epoll is not None and self._open else None

    def follow(self, path: Path) -> None:
        """Watch an attribute from now on; one that is not there, or cannot be waited for, is left to the period.

        One whose device was made anew is another one, and the old one tells nothing any more.
        """
        if path in self._open:
            if _lies_at(self._open[path], path):
                return
            os.close(self._open.pop(path))
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return  # whoever reads it says why
        try:
            os.read(fd, PAGE_BYTES)  # what is read is known: news are what comes after
            if self._epoll is None:
                self._epoll = select.epoll()
            self._epoll.register(fd, select.EPOLLPRI)
        except OSError:  # EPERM: a plain file; ENODEV: gone meanwhile
            os.close(fd)
            return
        self._open[path] = fd

    def heard(self) -> bool:
        """Take the news that wait, and return whether there were some. One that cannot be read is let go of."""
        if self._epoll is None:
            return False
        ready = {fd for fd, _events in self._epoll.poll(0)}
        for path, fd in list(self._open.items()):
            if fd in ready and not _read_again(fd):
                os.close(fd)
                del self._open[path]
        return bool(ready)

    def close(self) -> None:
        """Watch nothing any more. More than once is fine."""
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()
        if self._epoll is not None:
            self._epoll.close()
            self._epoll = None


def _lies_at(fd: int, path: Path) -> bool:
    """Return whether an open file is the one that lies at a path now."""
    try:
        now = path.stat()
    except OSError:
        return False
    return os.path.samestat(os.fstat(fd), now)


def _read_again(fd: int) -> bool:
    """Read a file so that the next news are told; return whether it can be."""
    with suppress(OSError):
        os.pread(fd, PAGE_BYTES, 0)
        return True
    return False
