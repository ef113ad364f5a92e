"""Notices that the configuration file has changed, reads it, and hands over what it says or what is wrong with it.

All of it happens in one thread: reading and checking a file may take its time, and a disk may hang. A change counts
once it has settled and only if the bytes differ: an editor's steps, or a ConfigMap's swapped links, are one change.
"""

import logging
import os
import select
import threading
from asyncio import AbstractEventLoop
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from devd.daemon.config import Config, ConfigError, load
from devd.ipc import inotify

SETTLE_S = 0.3
"""From the last sign of a change to the look at the file."""
POLL_S = 30.0
"""Period of the look at the file that no event called for (network filesystems raise none)."""
MAX_LINKS = 8
"""Links that are followed from the file's name, for the directories to watch."""
_PEEK_BYTES = 1024 * 1024 + 1
"""A larger file is refused by the loader; more need not be compared."""
_MASK = (
    inotify.IN_CLOSE_WRITE
    | inotify.IN_CREATE
    | inotify.IN_MOVED_TO
    | inotify.IN_MOVED_FROM
    | inotify.IN_DELETE
    | inotify.IN_DELETE_SELF
    | inotify.IN_ONLYDIR
)

log = logging.getLogger("devd.config")

Taken = Callable[[Config | ConfigError, bool], None]
"""Gets a configuration or its errors, and whether somebody had asked for it; called on the event loop."""


class ConfigWatch:
    """One file, one thread. ``close`` it at the end."""

    def __init__(self, path: Path, loop: AbstractEventLoop, taken: Taken) -> None:
        """Begin to watch. The file is read once more at first: it may have changed since the start read it."""
        self._path = path.absolute()
        self._loop = loop
        self._taken = taken
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._asked = False
        self._closed = threading.Event()
        self._inotify = _inotify()
        self._watched: set[int] = set()
        # A daemon thread: one that hangs in a dead disk must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="devd-config", daemon=True)
        self._thread.start()

    def ask(self) -> None:
        """Have the file read now, changed or not. Never waits."""
        self._asked = True
        self._wake()

    def close(self, timeout_s: float = 0.5) -> None:
        """End the thread; one that hangs in a disk is left behind, and its pipe with it."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._wake()
        self._thread.join(timeout_s)
        if not self._thread.is_alive():
            os.close(self._wake_read)
            os.close(self._wake_write)
            if self._inotify is not None:
                self._inotify.close()

    def _wake(self) -> None:
        with suppress(BlockingIOError):  # it is awake already
            os.write(self._wake_write, b"w")

    # ---- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        seen: bytes | None = b""  # an empty file is none that could run
        asked = False
        while not self._closed.is_set():
            if self._inotify is not None:
                self._follow(self._inotify)
            found = self._settled()
            if found != seen or asked:
                seen = found
                self._hand_over(asked=asked)
            self._await_sign()
            asked, self._asked = self._asked, False

    def _hand_over(self, *, asked: bool) -> None:
        try:
            result: Config | ConfigError = load(self._path)
        except ConfigError as error:
            result = error
        with suppress(RuntimeError):  # the loop has ended meanwhile
            self._loop.call_soon_threadsafe(self._taken, result, asked)

    def _await_sign(self) -> None:
        """Return at a sign of a change, when somebody asks, or after POLL_S."""
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        if self._inotify is not None:
            poll.register(self._inotify.fd, select.POLLIN)
        poll.poll(POLL_S * 1000)
        with suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
        while self._inotify is not None and self._inotify.read():
            pass

    def _follow(self, watch: inotify.Inotify) -> None:
        """Watch the file's directories as they are now: one that was replaced is another one."""
        watched: set[int] = set()
        for directory in _directories(self._path):
            with suppress(OSError):  # gone: the others, and the poll, tell
                watched.add(watch.add(directory, _MASK))
        for wd in self._watched - watched:
            watch.remove(wd)
        self._watched = watched

    def _settled(self) -> bytes | None:
        """Return the file's bytes once they stay the same for SETTLE_S (or change without an end)."""
        found = _peek(self._path)
        for _ in range(10):
            if self._closed.wait(SETTLE_S):
                break
            before, found = found, _peek(self._path)
            if found == before:
                break
        return found


def _inotify() -> inotify.Inotify | None:
    try:
        return inotify.Inotify()
    except OSError as error:
        log.warning("changes of the configuration are seen every %g s only: %s", POLL_S, error)
        return None


def _peek(path: Path) -> bytes | None:
    """Return the file's bytes, None when it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(_PEEK_BYTES)
    except OSError:
        return None


def _directories(path: Path) -> list[Path]:
    """Return the directories in which a change may change the file: its own, and those of the links to it."""
    found = [path.parent]
    for _ in range(MAX_LINKS):
        try:
            target = path.readlink()
        except OSError:
            break
        path = path.parent / target
        found.append(path.parent)
    with suppress(OSError):
        # A link may stand for a directory on the way as well: ..data of a ConfigMap.
        found.append(path.resolve().parent)
    return list(dict.fromkeys(found))
