"""One journal file per worker: its starts, verdicts, crashes and restarts as JSON lines, bounded in size.

``write`` only puts a line into a bounded queue; one thread owns the directory and everything in it. A disk that is
full, read-only or hung costs journal lines, which are counted, and nothing else.
"""

import errno
import hashlib
import itertools
import json
import logging
import os
import queue
import re
import stat
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from devd.daemon.logs import iso, plain_json

MAX_FILE_BYTES = 1024 * 1024
"""A file that a line would take past this is rotated first: FILE becomes FILE.1, that becomes FILE.2."""
FILES = 3
"""Files a device has at most, the one being written among them: 3 MiB in all, some ten thousand verdict changes."""
MAX_LINE_BYTES = 32 * 1024
"""A longer line is replaced by its beginning: the tail of a worker's stderr and a traceback fit several times."""
QUEUE_LINES = 1024
"""Lines that may wait for the disk: four for each of 256 workers that die at once; 32 MiB at the very worst."""

KEPT_GONE_DEVICES = 256
"""Devices that left for good whose files stay; those of earlier ones are removed. A node that sees new serial numbers
all day does not fill its disk: 768 MiB at the very worst. Only journals are ever removed: files that begin with a line
of the device they are named after."""
UNSEEN_AFTER_S = 600.0
"""A journal of an earlier devd without a line for so long is of a device that left meanwhile: each device that is there
has had one by then, on the slowest bus."""

FILE_MODE = 0o640
DIRECTORY_MODE = 0o750

SUFFIX = ".log"

_CLEAN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_ODD = re.compile(r"[^A-Za-z0-9._-]")
_SLUG_CHARS = 60

Item = tuple[str, bytes]
"""(file name, line); no line: the device is gone."""

log = logging.getLogger("devd.journal")


@dataclass(frozen=True, slots=True)
class JournalStatus:
    """How the journal stands: lines lost since the start, lines waiting, and what is wrong now (empty: nothing)."""

    directory: str
    lost: int
    waiting: int
    error: str


def file_name(device: str, suffix: str = SUFFIX) -> str:
    """Return a device's file name: its id where that is a plain file name, else a readable form of it and its hash.

    Different devices have different names: ``~`` stands only before a hash, the suffix only at the end.
    """
    if _CLEAN_NAME.fullmatch(device):
        return f"{device}{suffix}"
    digest = hashlib.sha256(device.encode("utf-8", "backslashreplace")).hexdigest()[:12]
    return f"{_ODD.sub('_', device)[:_SLUG_CHARS].lstrip('.')}~{digest}{suffix}"


class WorkerJournal:
    """Takes lines on the event loop's thread; its own thread writes them. ``close`` it at the end."""

    def __init__(self, log_dir: Path, *, unseen_after_s: float = UNSEEN_AFTER_S) -> None:
        self._directory = log_dir
        self._written: set[str] = set()
        self._seen_at_s: float | None = time.monotonic() + unseen_after_s
        self._queue: queue.Queue[Item | None] = queue.Queue(QUEUE_LINES)
        # Each counter has one writer: what the queue did not take, and what the disk did not take.
        self._dropped = 0
        self._failed = 0
        self._error = ""
        self._writing = False
        self._gone: dict[str, None] = {}
        self._closed = False
        # A daemon thread: one that hangs in a dead disk must not keep the process from ending.
        self._thread = threading.Thread(target=self._drain, name="devd-journal", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """Lines lost since the start: the queue was full, the disk did not take them, or it was closed."""
        return self._dropped + self._failed

    def write(self, device: str, event: str, /, **fields: object) -> None:
        """Hand over one line for a device. Never waits and never raises; a line that cannot be kept is counted."""
        facts = {"ts": iso(time.time()), "device": device, "event": event}
        line = _line({**facts, **{name: one for name, one in fields.items() if name not in facts}})
        if not self._put((file_name(device), line)):
            self._dropped += 1

    def forget(self, device: str) -> None:
        """Take note that a device left for good: its files stay for a while. Never waits."""
        self._put((file_name(device), b""))

    def status(self) -> JournalStatus:
        """Return how the journal stands, from memory."""
        return JournalStatus(str(self._directory), self.lost, self._queue.qsize(), self._error)

    def close(self, timeout_s: float) -> bool:
        """Take no more lines and wait, within ``timeout_s``, for those taken; the rest counts as lost.

        Return whether the thread has ended. Safe to call twice.
        """
        deadline_s = time.monotonic() + timeout_s
        if not self._closed:
            self._closed = True
            with suppress(queue.Full):
                self._queue.put(None, timeout=max(0.0, timeout_s))
        self._thread.join(max(0.0, deadline_s - time.monotonic()))
        if not self._thread.is_alive():
            return True
        self._abandon()
        return False

    def _put(self, item: Item) -> bool:
        if self._closed:
            return False
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            return False
        return True

    def _abandon(self) -> None:
        """Take back what the thread did not get to: it hangs, and whoever frees it late shall find nothing to do."""
        self._dropped += self._writing
        with suppress(queue.Empty):
            while True:
                item = self._queue.get_nowait()
                self._dropped += bool(item and item[1])
        with suppress(queue.Full):
            self._queue.put_nowait(None)

    # ---- the thread ----

    def _drain(self) -> None:
        while (item := self._queue.get()) is not None:
            name, line = item
            self._writing = bool(line)
            try:
                if line:
                    self._gone.pop(name, None)
                    if self._seen_at_s is not None:
                        self._written.add(name)
                    append(self._directory / name, line)
                else:
                    self._retire(name)
            except OSError as error:
                self._failed += self._writing
                self._note(f"{errno.errorcode.get(error.errno or 0, 'error')} ({error.strerror}): {self._directory}")
            else:
                self._note("")
            self._writing = False

    def _retire(self, name: str) -> None:
        """Keep a gone device's files, and remove those of the one that has been gone longest."""
        self._gone.pop(name, None)
        if self._seen_at_s is not None and time.monotonic() >= self._seen_at_s:
            self._seen_at_s = None
            self._gone = {**dict.fromkeys(self._left_over()), **self._gone}
            self._written.clear()
        self._gone[name] = None
        while len(self._gone) > KEPT_GONE_DEVICES:
            oldest = next(iter(self._gone))
            del self._gone[oldest]
            if _is_journal(self._directory / oldest):
                for path in _files(self._directory / oldest):
                    path.unlink(missing_ok=True)

    def _left_over(self) -> list[str]:
        """Return the names of files that this process has not written to, the one written longest ago first."""
        found = [(one.stat().st_mtime, one.name) for one in os.scandir(self._directory) if one.name.endswith(SUFFIX)]
        return [name for _written_s, name in sorted(found) if name not in self._written and name not in self._gone]

    def _note(self, problem: str) -> None:
        """Log the first of a row of failures, and its end."""
        if problem and not self._error:
            log.warning("worker journals cannot be written, their lines are lost: %s", problem)
        elif self._error and not problem:
            log.info("worker journals are written again; %d lines were lost", self.lost)
        self._error = problem


def _line(facts: dict[str, object]) -> bytes:
    text = plain_json(facts)
    if len(text) >= MAX_LINE_BYTES:
        shown = {name: facts[name] for name in ("ts", "device", "event")}
        # Each quote and backslash of the beginning is doubled once more.
        text = plain_json({**shown, "cut": True, "beginning": text[: MAX_LINE_BYTES // 4]})
    return text.encode("ascii") + b"\n"


def append(path: Path, line: bytes) -> None:
    """Add one line to a journal file, whole or not at all, rotating it first where it is full. Raises OSError.

    The file is opened anew each time: lines are rare, devices many, and a file that somebody removed or rotated comes
    back. Not through a link, and only a regular file: a FIFO of that name would hold the thread for ever.
    """
    if not _fits(path, line):
        _rotate(path)
        _fits(path, line)


def _fits(path: Path, line: bytes) -> bool:
    """Write the line if the file has room; an empty one always has."""
    try:
        fd = _opened(path)
    except FileNotFoundError:
        path.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        fd = _opened(path)
    try:
        size = _whole_lines(fd, path)
        if size and size + len(line) > MAX_FILE_BYTES:
            return False
        _write_whole(fd, line, size)
    finally:
        os.close(fd)
    return True


def _files(path: Path) -> list[Path]:
    """Return the names of a journal's files, newest first."""
    return [path, *(path.with_name(f"{path.name}.{number}") for number in range(1, FILES))]


def _is_journal(path: Path) -> bool:
    """Return whether a file begins with a line of the device it is named after. Raises OSError for one out of reach."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    try:
        first = os.read(fd, MAX_LINE_BYTES).partition(b"\n")[0]
    finally:
        os.close(fd)
    try:
        facts = json.loads(first)
    except (ValueError, RecursionError):
        return False
    return isinstance(facts, dict) and file_name(str(facts.get("device"))) == path.name


def _opened(path: Path) -> int:
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    return os.open(path, flags, FILE_MODE)


def _whole_lines(fd: int, path: Path) -> int:
    """Return the file's size, after cutting off a last line that a crash or power loss left unfinished."""
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    if not found.st_size or os.pread(fd, 1, found.st_size - 1) == b"\n":
        return found.st_size
    start = max(0, found.st_size - MAX_LINE_BYTES)
    size = start + os.pread(fd, MAX_LINE_BYTES, start).rfind(b"\n") + 1
    os.ftruncate(fd, size)
    return size


def _rotate(path: Path) -> None:
    files = _files(path)
    for newer, older in reversed(list(itertools.pairwise(files))):
        with suppress(FileNotFoundError):
            newer.replace(older)


def _write_whole(fd: int, line: bytes, size: int) -> None:
    written = os.write(fd, line)
    if written != len(line):
        os.ftruncate(fd, size)
        raise OSError(errno.ENOSPC, f"only {written} of {len(line)} bytes were taken")
