"""Watches the kubelet's directory for all endpoints: a new kubelet.sock, a lost socket of ours, a new directory.

One inotify on the DIRECTORY (a watch on a file dies with its inode), and a slow poll behind it, because events can be
lost. A stale kubelet.sock stays while the kubelet is down, so its identity is compared, never its existence. When the
directory is missing, its nearest existing ancestor is watched instead.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from devd.ipc.inotify import (
    IN_CREATE,
    IN_DELETE,
    IN_DELETE_SELF,
    IN_IGNORED,
    IN_MOVE_SELF,
    IN_MOVED_FROM,
    IN_MOVED_TO,
    IN_ONLYDIR,
    IN_Q_OVERFLOW,
    IN_UNMOUNT,
    Inotify,
    InotifyEvent,
)

KUBELET_SOCKET = "kubelet.sock"
POLL_S = 5.0
"""Period of the poll behind the events."""
POLL_ALONE_S = 0.5
"""Period of the poll when the kernel gives us no watch at all."""

_MASK = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR
_RE_ARM = IN_DELETE_SELF | IN_MOVE_SELF | IN_IGNORED | IN_UNMOUNT | IN_Q_OVERFLOW


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """Tells one file from another of the same name: inode numbers are used again at once, the change time is not."""

    device: int
    inode: int
    changed_ns: int


def identity(path: Path) -> FileIdentity | None:
    """Return who the path is now, None when it is not to be had. Looks at the path itself, not behind a symlink."""
    try:
        stat = path.lstat()
    except OSError:
        return None
    return FileIdentity(stat.st_dev, stat.st_ino, stat.st_ctime_ns)


class KubeletWatch:
    """One watched directory. Lives on a running event loop, from ``start`` to ``close``; holds no task.

    ``poll_s`` is the period in seconds of the poll behind the events.
    """

    def __init__(self, directory: Path, *, log: logging.Logger, poll_s: float = POLL_S) -> None:
        self.directory = directory
        self.kubelet: FileIdentity | None = None
        """Who kubelet.sock was at the last look; None while there is none."""
        self.changes = 0
        """Grows whenever kubelet.sock or the directory is another one than before."""
        self._log = log
        self._poll_s = poll_s
        self._subscribers: dict[int, tuple[str, Callable[[], None]]] = {}
        self._next_key = 0
        self._inotify: Inotify | None = None
        self._watched: Path | None = None
        self._wd = -1
        self._directory: tuple[int, int] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._warned = False

    def start(self) -> None:
        """Begin to watch. Never fails: without inotify the poll works alone, faster."""
        self._loop = asyncio.get_running_loop()
        try:
            self._inotify = Inotify()
        except OSError as error:
            self._warn(error)
        else:
            self._loop.add_reader(self._inotify.fd, self._readable)
        self._arm()
        self._look()
        self._schedule(self._loop)

    def close(self) -> None:
        """End the watch and its timer. More than once is fine."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._inotify is not None and self._loop is not None:
            self._loop.remove_reader(self._inotify.fd)
            self._inotify.close()
        self._inotify = self._loop = None

    def subscribe(self, name: str, changed: Callable[[], None]) -> Callable[[], None]:
        """Call ``changed`` after whatever happened to kubelet.sock, the directory or the file ``name`` in it.

        Also after each poll: the subscriber looks at its own socket itself. Returns the function that ends it.
        """
        key = self._next_key
        self._next_key += 1
        self._subscribers[key] = (name, changed)

        def end() -> None:
            self._subscribers.pop(key, None)

        return end

    # ---- events -----------------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        if self._inotify is None:
            return
        events = self._inotify.read()
        if any(self._about_the_watch(one) for one in events):
            self._arm()
            self._look()
            self._tell(None)
            return
        names = {one.name for one in events}
        if KUBELET_SOCKET in names:
            self._look()
            self._tell(None)
        else:
            self._tell(names)

    def _about_the_watch(self, event: InotifyEvent) -> bool:
        # While an ancestor is watched, anything that appears in it may be the way down to the directory.
        return bool(event.mask & _RE_ARM) or self._watched != self.directory

    def _poll(self) -> None:
        if self._watched != self.directory or self._directory != _inode(self.directory):
            self._arm()
        self._look()
        self._tell(None)
        if self._loop is not None:
            self._schedule(self._loop)

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        period_s = self._poll_s if self._wd >= 0 else min(POLL_ALONE_S, self._poll_s)
        self._timer = loop.call_later(period_s, self._poll)

    def _tell(self, names: set[str] | None) -> None:
        for name, changed in list(self._subscribers.values()):
            if names is None or name in names:
                changed()

    # ---- state ------------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Compare kubelet.sock and the directory with what they were: always after the watch stands, never before."""
        kubelet, directory = identity(self.directory / KUBELET_SOCKET), _inode(self.directory)
        if (kubelet, directory) != (self.kubelet, self._directory):
            self.changes += 1
            self.kubelet, self._directory = kubelet, directory

    def _arm(self) -> None:
        """Watch the directory or its nearest ancestor that exists; watch first, look again after it."""
        if self._inotify is None:
            return
        for _ in self.directory.parts:
            place = _nearest(self.directory)
            try:
                wd = self._inotify.add(place, _MASK)
            except OSError as error:
                self._warn(error)
                return
            if self._wd not in {-1, wd}:
                self._inotify.remove(self._wd)
            self._wd, self._watched = wd, place
            if _nearest(self.directory) == place:
                return

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            self._log.warning(
                "%s cannot be watched (%s); it is looked at every %g s instead", self.directory, error, POLL_ALONE_S
            )


def _nearest(directory: Path) -> Path:
    """Return the directory, or the nearest ancestor of it that is there."""
    return next((one for one in (directory, *directory.parents) if one.is_dir()), Path("/"))


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino
