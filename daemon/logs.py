"""The front's log: one line a record on stderr, JSON for machines or short text for people.

Writing never waits and never raises: a line that stderr does not take at once is counted as lost, and the next one
that it takes says how many were.
"""

import json
import logging
import os
import select
import sys
import time
import traceback
from datetime import UTC, datetime

MAX_LINE_BYTES = 4096
"""PIPE_BUF of Linux, pipe(7): a pipe that polls writable takes this much at once, whole, and mixes it with no other."""
_CUTS_CHARS = (2048, 1024, 512, 256, 128, 32)
"""What remains of each long text of a record, tried in turn until its line fits."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What a LogRecord always has; everything else came with ``extra`` and is a field of ours."""
_OWN = ("ts", "level", "logger", "message")


class StderrHandler(logging.Handler):
    """Writes to one file descriptor. ``lost`` counts records that could not be written since the start."""

    def __init__(self, fd: int | None, *, text: bool) -> None:
        """Take a descriptor that stays the caller's; None means that there is nowhere to write."""
        super().__init__()
        self.lost = 0
        self._told = 0
        self._fd = fd
        self._line = text_line if text else json_line

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or count it as lost."""
        missed = self.lost - self._told
        if self._write(self._line(record, missed)):
            self._told = self.lost if missed else self._told
        else:
            self.lost += 1

    def _write(self, line: bytes) -> bool:
        if self._fd is None:
            return False
        poll = select.poll()
        try:
            poll.register(self._fd, select.POLLOUT)
            ready = poll.poll(0)
            return bool(ready) and ready[0][1] == select.POLLOUT and os.write(self._fd, line) == len(line)
        except (OSError, ValueError):
            # Gone or never there: there is nowhere left to say so but the count.
            return False


def set_up_logging(log_format: str, level: str) -> StderrHandler:
    """Send all logging to stderr and return its handler. ``auto`` is text on a terminal and JSON elsewhere.

    Safe to call again: the last call counts. Raises ValueError for an unknown format or level.
    """
    if log_format not in {"auto", "json", "text"}:
        raise ValueError(f"log format {log_format!r}: auto, json or text is needed")
    fd = _stderr()
    text = log_format == "text" or (log_format == "auto" and fd is not None and os.isatty(fd))
    handler = StderrHandler(fd, text=text)
    root = logging.getLogger()
    root.setLevel(level.upper())
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    logging.captureWarnings(capture=True)
    return handler


def _stderr() -> int | None:
    """Return stderr's descriptor; None when the process was started without one (2 may be any other file then)."""
    try:
        return sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):
        return None


# ---- lines ------------------------------------------------------------------------------------------------------


def json_line(record: logging.LogRecord, missed: int = 0) -> bytes:
    """Return a record as one JSON line of at most MAX_LINE_BYTES; long texts are cut to fit and ``cut`` says so.

    ``missed`` records before this one were lost; it is told as ``lost_before``.
    """
    facts: dict[str, object] = {
        "ts": iso(record.created),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": _message(record),
    }
    for name, value in vars(record).items():
        if name not in _STANDARD:
            facts[f"{name}_" if name in _OWN else name] = value
    if missed:
        facts["lost_before"] = missed
    if trace := _trace(record):
        facts["traceback"] = trace
    line = _encoded(facts)
    for most in _CUTS_CHARS:
        if len(line) <= MAX_LINE_BYTES:
            return line
        line = _encoded({**{name: _cut(name, value, most) for name, value in facts.items()}, "cut": True})
    if len(line) <= MAX_LINE_BYTES:
        return line
    return _encoded({**{name: _cut(name, facts[name], _CUTS_CHARS[-1]) for name in _OWN}, "cut": True})


def text_line(record: logging.LogRecord, missed: int = 0) -> bytes:
    """Return a record as a short line of local time, level, logger and message; a traceback follows on its own lines.

    Control characters are shown escaped: a device's text must not move a terminal's cursor.
    """
    clock = time.strftime("%H:%M:%S", time.localtime(record.created))
    lost = f" ({missed} records before this one were lost)" if missed else ""
    line = f"{clock} {record.levelname:<7} {record.name}: {_message(record)}{lost}"
    encoded = _utf8(_printable(line)[:MAX_LINE_BYTES])[: MAX_LINE_BYTES - 1]
    if trace := _trace(record):
        room = MAX_LINE_BYTES - len(encoded) - 2
        # The end of a traceback is its telling part.
        encoded += b"\n" + _utf8(_printable(trace, keep="\n"))[-room:] if room > 0 else b""
    return encoded + b"\n"


def _printable(text: str, keep: str = "") -> str:
    return "".join(one if one.isprintable() or one in keep else _utf8(repr(one)[1:-1]).decode() for one in text)


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def iso(wall_s: float) -> str:
    """Return wall-clock seconds as ISO 8601 UTC with milliseconds."""
    return datetime.fromtimestamp(wall_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def plain_json(facts: object) -> str:
    """Return a value as JSON on one line, in ASCII; what JSON does not know is written as its text. Never raises."""
    try:
        return _dumped(facts)
    except (TypeError, ValueError, RecursionError):
        # A key that is no text, a number that is none, a value that holds itself: then everything as its text.
        return _dumped({str(_text(key)): _text(one) for key, one in facts.items()} if isinstance(facts, dict) else None)


def _dumped(facts: object) -> str:
    return json.dumps(facts, default=_text, allow_nan=False, separators=(",", ":"))


def _text(value: object) -> object:
    if value is None or isinstance(value, str | bool):
        return value
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001 - any class may come here, and its repr may do anything
        return f"<{type(value).__name__}: {type(error).__name__}>"


def _encoded(facts: dict[str, object]) -> bytes:
    return plain_json(facts).encode("ascii") + b"\n"


def _cut(name: str, value: object, most: int) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else plain_json(value)
    if len(text) <= most:
        return value
    return f"…{text[-most:]}" if name == "traceback" else f"{text[:most]}…"


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:  # noqa: BLE001 - arguments that do not fit their text, or whose str() fails
        return f"{record.msg!r:.500} (its arguments do not fit: {type(error).__name__})"


def _trace(record: logging.LogRecord) -> str:
    error = record.exc_info[1] if record.exc_info else None
    try:
        return "".join(traceback.format_exception(error)).rstrip() if error is not None else ""
    except Exception as failure:  # noqa: BLE001 - an exception's own str() may fail
        return f"{type(error).__name__} (its traceback cannot be written: {type(failure).__name__})"
