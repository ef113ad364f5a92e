"""The state directory: one small file a device, each replaced whole. One thread owns it; nothing else waits for it.

A disk that is full, read-only or hung delays what is written, and that is counted and shown; the newest word on each
device is tried again until it is taken. As long as the directory has not been read nothing in it is written or removed.
A file that cannot be read is set aside, and its device is told of.
"""

import errno
import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from devd.daemon import memory
from devd.daemon.errors import AlreadyRunningError
from devd.daemon.journal import file_name
from devd.daemon.memory import Here, Kept, MemoryCorruptError, MemoryNewerError

LOAD_WITHIN_S = 2.0
"""How long a start waits for the disk; then devd goes on, and no device is touched before its state has been read."""
RETRY_S = 5.0
"""Pause before what failed is tried again."""
KEPT_ASIDE = 16
"""Unreadable files that are kept for whoever wants to look; older ones are removed."""

SUFFIX = ".json"
ASIDE = ".corrupt"
NEWER = ".newer"
"""Of a newer devd's file that was set aside. None of them is ever removed: that devd may come back."""
DIRECTORY_MODE = 0o700
FILE_MODE = 0o600

log = logging.getLogger("devd.memory")


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """How the store stands: files not written yet, writes that failed since the start, what is wrong now."""

    directory: str
    waiting: int
    failed: int
    error: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was found at the start, by file name: what could be read, and what was wrong with the rest."""

    kept: Mapping[str, Kept] = field(default_factory=dict)
    corrupt: Mapping[str, str] = field(default_factory=dict)


class MemoryStore:
    """Takes the newest word on each device at any time; its thread writes it down. ``close`` it at the end."""

    def __init__(self, state_dir: Path, place: Here) -> None:
        self._root = state_dir
        self._directory = state_dir / "devices"
        self._place = place
        self._pending: dict[str, bytes | None] = {}
        self._changed = threading.Condition()
        self._loaded = threading.Event()
        self._found: Loaded | None = None
        self._when_read: Callable[[], None] = lambda: None
        self._may_write = False
        self._in_place: set[str] = set()
        self._refusal = ""
        self._error = ""
        self._failed = 0
        self._closed = False
        self._last_try = False
        self._lock_fd = -1
        # A daemon thread: one that hangs in a dead disk must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="devd-memory", daemon=True)
        self._thread.start()

    @property
    def problem(self) -> str:
        """Return why the directory has not been read yet; empty once it has been."""
        return "" if self._found is not None else self._error or f"{self._directory} does not answer"

    def load(self) -> Loaded | None:
        """Return what was kept; None when it could not be read within LOAD_WITHIN_S. Called once, at the start.

        Raises AlreadyRunningError when another devd uses the directory.
        """
        if not self._loaded.wait(LOAD_WITHIN_S):
            self._note(f"{self._directory}: no answer from the disk for {LOAD_WITHIN_S:g} s")
            self._loaded.set()
            return None
        if self._refusal:
            raise AlreadyRunningError(self._refusal)
        return self._found

    def when_read(self, call: Callable[[], None]) -> None:
        """Have ``call`` made, by whatever thread, once the directory has been read after all."""
        with self._changed:
            self._when_read = call
            read = self._found is not None
        if read:
            call()

    def found(self) -> Loaded:
        """Return what was read. Raises AssertionError before that."""
        if self._found is None:
            raise AssertionError("nothing has been read yet")
        return self._found

    def begin(self) -> None:
        """Have what was put written from now on: whoever puts it knows what was read."""
        with self._changed:
            self._may_write = True
            self._changed.notify()

    def put(self, kept: Kept) -> None:
        """Take the newest word on a device; a blank one removes its file. Never waits for the disk."""
        data = None if kept.blank else memory.encode(kept, self._place)
        with self._changed:
            if not self._closed:
                self._pending[file_name(kept.device, SUFFIX)] = data
                self._changed.notify()

    def status(self) -> StoreStatus:
        """Return how the store stands, from memory."""
        return StoreStatus(str(self._root), len(self._pending), self._failed, self._error)

    def close(self, timeout_s: float) -> bool:
        """Write what waits, within ``timeout_s``; return whether all of it was. Safe to call twice."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive() and not self._pending

    # ---- the thread: reading ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        found = self._try_to_load()
        # The first answer is told even if it is none: whoever starts then need not wait any longer.
        self._loaded.set()
        while found is None and self._paused():
            found = self._try_to_load()
        if found is not None:
            self._wait_for_leave()
            self._write_all()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)

    def _try_to_load(self) -> Loaded | None:
        try:
            found = self._load()
        except OSError as error:
            self._note(_story(self._directory, error))
            return None
        if self._refusal and self._loaded.is_set():
            self._note(self._refusal)
        if self._refusal:
            return None
        with self._changed:
            self._found = found
            call = self._when_read
        self._note("")
        call()
        return found

    def _load(self) -> Loaded:
        """Read all files. Raises OSError when the directory is there and cannot be read."""
        with suppress(OSError):  # nothing to read then, and the first write tells of it
            self._directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        if not self._lock():
            return Loaded()
        kept: dict[str, Kept] = {}
        corrupt: dict[str, str] = {}
        for path in self._files():
            try:
                kept[path.name] = memory.decode(_read(path), self._place)
            except FileNotFoundError:
                continue
            except (MemoryCorruptError, OSError) as error:
                corrupt[path.name] = f"{path} cannot be read ({error}), {self._set_aside(path, error)}"
        for old in _oldest_first(self._directory.glob(f"*{SUFFIX}{ASIDE}"))[:-KEPT_ASIDE]:
            with suppress(OSError):
                old.unlink()
        return Loaded(kept, corrupt)

    def _files(self) -> list[Path]:
        """Return the devices' files, the one written longest ago first; none without a directory. Raises OSError."""
        try:
            names = [entry.name for entry in os.scandir(self._directory)]
        except FileNotFoundError:
            return []
        return _oldest_first(self._directory / name for name in names if name.endswith(SUFFIX))

    def _set_aside(self, path: Path, why: Exception) -> str:
        """Move a file out of the way; return in words what became of it. It is not written over before that."""
        aside = path.with_name(path.name + (NEWER if isinstance(why, MemoryNewerError) else ASIDE))
        try:
            path.replace(aside)
        except OSError as error:
            self._in_place.add(path.name)
            return f"and cannot be set aside ({_story(path, error)})"
        return f"set aside as {aside.name}"

    def _lock(self) -> bool:
        """Keep other daemons out of the directory for as long as this process lives.

        Where no lock can be made (read-only, and never used) there is nothing two daemons could spoil.
        """
        if self._lock_fd >= 0:
            return True
        path = self._root / "lock"
        self._refusal = ""
        try:
            # Read-only: a descriptor that may write would keep an operator from mounting the disk read-only.
            fd = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
        except OSError:
            return True
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(fd, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            self._refusal = (
                f"another devd (pid {holder}) keeps its state in {self._root}: "
                "stop it, or give this one its own --state-dir"
            )
            return False
        self._lock_fd = fd
        with suppress(OSError):  # the pid is for the next one's refusal alone
            path.write_text(f"{os.getpid()}\n", encoding="ascii")
        return True

    # ---- the thread: writing ----------------------------------------------------------------------------------------

    def _wait_for_leave(self) -> None:
        with self._changed:
            while not self._may_write and not self._closed:
                self._changed.wait()

    def _write_all(self) -> None:
        """Write what waits. What fails comes again after a while, and holds up nothing else until then."""
        failed: set[str] = set()
        while (name := self._next(failed)) is not None:
            with self._changed:
                data = self._pending[name]
            if not self._write(name, data):
                failed.add(name)
                continue
            with self._changed:
                # A newer word may have come meanwhile: then that one is next.
                if self._pending.get(name, b"") == data:
                    del self._pending[name]
            if not failed:
                self._note("")

    def _next(self, failed: set[str]) -> str | None:
        """Wait for what is worth a try, and return it; None at the end. What failed is tried once more before that."""
        retry_at_s = time.monotonic() + RETRY_S
        with self._changed:
            while self._may_write:
                name = next((one for one in self._pending if one not in failed), None)
                if name is not None:
                    return name
                if self._closed and (self._last_try or not failed):
                    return None
                left_s = retry_at_s - time.monotonic()
                if failed and (self._closed or left_s <= 0):
                    self._last_try = self._closed
                    failed.clear()
                else:
                    self._changed.wait(left_s if failed else None)
        return None

    def _paused(self) -> bool:
        """Wait before the directory is read again; False when it is not worth it any more."""
        until_s = time.monotonic() + RETRY_S
        with self._changed:
            while not self._closed and (left_s := until_s - time.monotonic()) > 0:
                self._changed.wait(left_s)
            return not self._closed

    def _write(self, name: str, data: bytes | None) -> bool:
        path = self._directory / name
        try:
            if name in self._in_place:
                path.replace(path.with_name(name + ASIDE))
                self._in_place.discard(name)
            if data is None:
                path.unlink(missing_ok=True)
            else:
                # It may not have been to be had at the start, or somebody removed it.
                self._directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
                _replace(path, data)
        except OSError as error:
            self._failed += 1
            self._note(_story(path, error))
            return False
        return True

    def _note(self, problem: str) -> None:
        """Log the first of a row of failures, and its end."""
        if problem and not self._error:
            log.warning("state cannot be kept, a restart may forget cordons, failures and fences: %s", problem)
        elif self._error and not problem:
            log.info("state is kept again")
        self._error = problem


def _oldest_first(paths: Iterable[Path]) -> list[Path]:
    """Return files by when they were written; one that is gone meanwhile, or does not tell, comes first."""

    def written_s(path: Path) -> float:
        try:
            return path.lstat().st_mtime
        except OSError:
            return 0.0

    return sorted(paths, key=lambda path: (written_s(path), path.name))


def _replace(path: Path, data: bytes) -> None:
    """Put a file in place whole or not at all, also across a loss of power. Raises OSError."""
    fresh = path.with_name(path.name + ".new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
    try:
        _write_whole(fd, data)
    except OSError:
        with suppress(OSError):
            fresh.unlink()
        raise
    finally:
        os.close(fd)
    fresh.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _write_whole(fd: int, data: bytes) -> None:
    if os.write(fd, data) != len(data):
        raise OSError(errno.ENOSPC, "the disk took only a part of it")
    os.fsync(fd)


def _read(path: Path) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        data = os.read(fd, memory.MAX_FILE_BYTES + 1)
    finally:
        os.close(fd)
    if len(data) > memory.MAX_FILE_BYTES:
        raise MemoryCorruptError(f"more than {memory.MAX_FILE_BYTES} bytes")
    return data


def _story(path: Path, error: OSError) -> str:
    return f"{error.filename or path}: {errno.errorcode.get(error.errno or 0, 'error')} ({error.strerror or error})"
