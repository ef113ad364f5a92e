"""The state directory: one small file a device, each replaced whole. One thread owns it; nothing else waits for it.

A disk that is full, read-only or hung delays what is written, and that is counted and shown; the newest word on each
device is tried again until it is taken. A file that cannot be read is set aside, and its device is told of.
"""

import errno
import fcntl
import logging
import os
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from devd.daemon import memory
from devd.daemon.errors import AlreadyRunningError
from devd.daemon.journal import file_name
from devd.daemon.memory import Here, Kept, MemoryCorruptError

LOAD_WITHIN_S = 2.0
"""How long a start waits for the disk; then devd goes on and remembers nothing."""
RETRY_S = 5.0
"""Pause after a write that failed."""
KEPT_ASIDE = 16
"""Unreadable files that are kept for whoever wants to look; older ones are removed."""

SUFFIX = ".json"
ASIDE = ".corrupt"
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
        self._found = Loaded()
        self._refusal = ""
        self._error = ""
        self._failed = 0
        self._closed = False
        self._lock_fd = -1
        # A daemon thread: one that hangs in a dead disk must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="devd-memory", daemon=True)
        self._thread.start()

    def load(self) -> Loaded:
        """Return what was kept, within LOAD_WITHIN_S; nothing when the disk does not answer. Called once, at start.

        Raises AlreadyRunningError when another devd uses the directory.
        """
        if not self._loaded.wait(LOAD_WITHIN_S):
            self._note(f"{self._directory}: no answer from the disk for {LOAD_WITHIN_S:g} s")
            return Loaded()
        if self._refusal:
            raise AlreadyRunningError(self._refusal)
        return self._found

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

    # ---- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._found = self._load()
        except OSError as error:
            self._note(_story(self._directory, error))
        finally:
            self._loaded.set()
        if not self._refusal:
            self._write_all()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)

    def _load(self) -> Loaded:
        self._directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        if not self._lock():
            return Loaded()
        kept: dict[str, Kept] = {}
        corrupt: dict[str, str] = {}
        for path in sorted(self._directory.glob(f"*{SUFFIX}")):
            try:
                kept[path.name] = memory.decode(_read(path), self._place)
            except (MemoryCorruptError, OSError) as error:
                corrupt[path.name] = f"{path} cannot be read ({error}), set aside as {path.name}{ASIDE}"
                path.replace(path.with_name(path.name + ASIDE))
        aside = sorted(self._directory.glob(f"*{SUFFIX}{ASIDE}"), key=lambda one: one.lstat().st_mtime)
        for old in aside[:-KEPT_ASIDE]:
            old.unlink(missing_ok=True)
        return Loaded(kept, corrupt)

    def _lock(self) -> bool:
        """Keep other daemons out of the directory for as long as this process lives."""
        path = self._root / "lock"
        # Read-only: a descriptor that may write would keep an operator from mounting the disk read-only.
        fd = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
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
        path.write_text(f"{os.getpid()}\n", encoding="ascii")
        return True

    def _write_all(self) -> None:
        while True:
            with self._changed:
                while not self._pending and not self._closed:
                    self._changed.wait()
                if not self._pending:
                    return
                name = next(iter(self._pending))
                data = self._pending[name]
            if self._write(name, data):
                with self._changed:
                    # A newer word may have come meanwhile: then that one is next.
                    if self._pending.get(name, b"") == data:
                        del self._pending[name]
            elif not self._paused():
                return

    def _paused(self) -> bool:
        """Wait before the next try; False when it is not worth one any more."""
        until_s = time.monotonic() + RETRY_S
        with self._changed:
            while not self._closed and (left_s := until_s - time.monotonic()) > 0:
                self._changed.wait(left_s)
            return not self._closed

    def _write(self, name: str, data: bytes | None) -> bool:
        path = self._directory / name
        try:
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
        self._note("")
        return True

    def _note(self, problem: str) -> None:
        """Log the first of a row of failures, and its end."""
        if problem and not self._error:
            log.warning("state cannot be kept, a restart may forget cordons, failures and fences: %s", problem)
        elif self._error and not problem:
            log.info("state is kept again")
        self._error = problem


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
