"""One rotating file per device: its worker's starts, verdict changes, crashes and restarts, as JSON lines.

The event loop only puts a line into a bounded queue; a thread of its own owns the files. A disk that is full, read-only
or hung costs lines, which are counted, and nothing else. A line is written by one call, so none is half there.
"""

import contextlib
import hashlib
import json
import os
import queue
import re
import threading
from datetime import UTC, datetime
from pathlib import Path

FILE_BYTES = 1024 * 1024
FILES = 3
"""A device's journal takes FILES times FILE_BYTES at most; the oldest goes first."""
QUEUE_LINES = 4096
"""Lines that wait for the disk: about a megabyte."""
LINE_BYTES = 64 * 1024
"""Longest line; the end of a longer one's detail is cut."""

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def file_name(device: str) -> str:
    """Return the journal's file name of a device: its id made safe, with a hash where that changed it."""
    safe = _UNSAFE.sub("_", device)
    if safe == device and not device.startswith("."):
        return f"{device}.log"
    return f"{safe.lstrip('.')[:80]}-{hashlib.sha256(device.encode()).hexdigest()[:8]}.log"


class WorkerJournal:
    """Owner of the directory's files and of the thread that writes them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._queue: queue.Queue[tuple[str, bytes] | None] = queue.Queue(QUEUE_LINES)
        self._lost = 0
        self._last_error = ""
        self._thread = threading.Thread(target=self._drain, name="journal", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """How many lines were lost since the start."""
        return self._lost

    @property
    def last_error(self) -> str:
        """Why the last loss happened; empty while everything is written."""
        return self._last_error

    def write(self, device: str, event: str, **fields: object) -> None:
        """Note an event; never waits, never raises."""
        moment = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = json.dumps({"ts": moment, "device": device, "event": event, **fields}, default=str).encode()
        if len(line) > LINE_BYTES:
            line = json.dumps({"ts": moment, "device": device, "event": event, "cut": len(line)}).encode()
        try:
            self._queue.put_nowait((device, line + b"\n"))
        except queue.Full:
            self._lose(1, f"{QUEUE_LINES} lines wait already: the disk below {self._directory} does not keep up")

    def close(self, timeout_s: float) -> None:
        """Write what waits, for ``timeout_s`` at most; a hung disk does not hold up the end."""
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=timeout_s)
        self._thread.join(timeout_s)

    def _lose(self, lines: int, why: str) -> None:
        self._lost += lines
        self._last_error = why

    def _drain(self) -> None:
        while (item := self._queue.get()) is not None:
            device, line = item
            try:
                self._append(self._directory / file_name(device), line)
            except OSError as error:
                self._lose(1, f"{self._directory}: {error.strerror}")
            else:
                self._last_error = ""

    def _append(self, path: Path, line: bytes) -> None:
        self._directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            size = os.fstat(fd).st_size
            written = os.write(fd, line)
            if written < len(line):
                # A full disk took a part of it: none is better than half.
                os.ftruncate(fd, size)
                raise OSError(28, "No space left on device")
        finally:
            os.close(fd)
        if size + written > FILE_BYTES:
            _rotate(path)


def _rotate(path: Path) -> None:
    for number in range(FILES - 1, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        newer = path if number == 1 else path.with_name(f"{path.name}.{number - 1}")
        with contextlib.suppress(FileNotFoundError):
            newer.replace(older)
