"""The daemon's own log on standard error: JSON lines for machines, short text for a terminal."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

from devd.daemon.options import LogFormat

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """Return what a call gave by ``extra``."""
    return {key: value for key, value in record.__dict__.items() if key not in _STANDARD}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ts, level, logger, message, then the call's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {
            "ts": moment.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """Time of day, level and message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03d %(levelname)-7s %(message)s", "%H:%M:%S")


class StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to standard error and counts what could not be written; a log must never end its program."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.lost = 0

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the standard library's name
        """Count the loss."""
        del record
        self.lost += 1


def set_up_logging(log_format: LogFormat, level: str) -> StderrHandler:
    """Send everything to standard error; ``auto`` is text on a terminal, JSON elsewhere. Returns the handler."""
    handler = StderrHandler()
    text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    handler.setFormatter(TextFormatter() if text else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    return handler
