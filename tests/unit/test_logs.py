"""The front's log: one line a record, and never in the way."""

import fcntl
import json
import logging
import os
import pty
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from devd.daemon.logs import MAX_LINE_BYTES, StderrHandler, json_line, set_up_logging, text_line

WITHIN_S = 30

SCRIPT = """
import logging, sys
from devd.daemon.logs import set_up_logging
handler = set_up_logging(sys.argv[1], "info")
logging.getLogger("devd.x").info("hello %s", "there", extra={"device": "dev-1"})
logging.getLogger("devd.x").debug("hidden")
print(handler.lost)
"""


def record(text: str, *args: object, **extra: object) -> logging.LogRecord:
    """Return a log record."""
    made = logging.LogRecord("devd.test", logging.WARNING, "x.py", 1, text, args, None)
    vars(made).update(extra)
    return made


def crash(text: str) -> logging.LogRecord:
    """Return a record with a traceback."""
    made = record("it failed")
    error = ValueError(text)
    made.exc_info = (type(error), error, None)
    return made


def parsed(line: bytes) -> dict[str, Any]:
    """Return a JSON line's fields, sure that it is one line."""
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert len(line) <= MAX_LINE_BYTES
    fields: dict[str, Any] = json.loads(line)
    return fields


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    """Return a pipe's ends; what the test did not close is closed."""
    reader, writer = os.pipe()
    try:
        yield reader, writer
    finally:
        for fd in (reader, writer):
            try:
                os.close(fd)
            except OSError:
                continue


def test_a_record_is_one_json_line_with_its_fields() -> None:
    """Time, level, logger, message and everything given as extra stand in one object."""
    fields = parsed(json_line(record("probe of %s", "dev-1", device="dev-1", event="verdict", took_s=0.5)))
    assert fields["ts"].endswith("Z")
    assert (fields["level"], fields["logger"], fields["message"]) == ("warning", "devd.test", "probe of dev-1")
    assert (fields["device"], fields["event"], fields["took_s"]) == ("dev-1", "verdict", 0.5)


def test_an_exception_brings_its_traceback() -> None:
    """The traceback is one field, and in the text form follows on its own lines."""
    assert parsed(json_line(crash("boom")))["traceback"].endswith("ValueError: boom")
    assert text_line(crash("boom")).rstrip().endswith(b"ValueError: boom")


def test_a_long_line_is_cut_to_what_a_pipe_takes_at_once() -> None:
    """The end of a traceback and the beginning of other texts survive, and the line says that it was cut."""
    fields = parsed(json_line(crash("é" * 9000 + "the end")))
    assert (fields["cut"], fields["message"]) == (True, "it failed")
    assert fields["traceback"].endswith("the end")
    many = {f"field{number}": ["é" * 100] * 50 for number in range(200)}
    assert parsed(json_line(record("x" * 9000, **many)))["message"].startswith("xxx")
    assert len(text_line(record("é" * 9000))) <= MAX_LINE_BYTES
    assert text_line(crash("é" * 9000 + "the end")).endswith(b"the end\n")


def test_a_record_that_cannot_be_made_into_text_is_still_a_line() -> None:
    """Wrong arguments and values without a text are told, not raised."""
    assert "TypeError" in parsed(json_line(record("%d files", "many")))["message"]
    assert parsed(json_line(record("x", odd=object(), nan=float("nan"))))["nan"] == "nan"


def test_control_characters_do_not_reach_a_terminal() -> None:
    """A device's text cannot clear the screen or forge a line."""
    line = text_line(record("label %s", "\x1b[2J\nforged \u202e"))
    assert line.count(b"\n") == 1
    assert b"\x1b" not in line
    assert rb"\x1b[2J\nforged \u202e" in line


@pytest.mark.parametrize(("choice", "is_json"), [("auto", True), ("json", True), ("text", False)])
def test_the_format_is_what_was_asked_for(choice: str, is_json: bool) -> None:  # noqa: FBT001 - a parameter
    """Into a pipe auto is JSON; the level holds back what is below it."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, choice], capture_output=True, text=True, timeout=WITHIN_S, check=True
    )
    (line,) = done.stderr.splitlines()
    assert line.startswith("{") == is_json
    assert "hello there" in line
    assert done.stdout == "0\n"


def test_on_a_terminal_auto_is_text() -> None:
    """A person at a terminal reads text."""
    master, slave = pty.openpty()
    try:
        subprocess.run(
            [sys.executable, "-c", SCRIPT, "auto"],
            stdout=subprocess.DEVNULL,
            stderr=slave,
            timeout=WITHIN_S,
            check=True,
        )
        line = os.read(master, 4096).decode()
    finally:
        os.close(master)
        os.close(slave)
    assert "INFO    devd.x: hello there" in line


def test_without_a_stderr_records_are_counted() -> None:
    """A process started with stderr closed runs, and its descriptor 2 is left to whoever gets it."""
    done = subprocess.run(
        ["/bin/sh", "-c", '"$0" "$@" 2>&-', sys.executable, "-c", SCRIPT, "json"],
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=True,
    )
    assert done.stdout == "1\n"


def test_a_reader_that_left_costs_records_only() -> None:
    """A closed pipe is counted, not raised."""
    with pipe() as (reader, writer):
        handler = StderrHandler(writer, text=False)
        os.close(reader)
        handler.handle(record("x"))
        assert handler.lost == 1


def test_a_full_pipe_does_not_hold_up_the_writer() -> None:
    """While nobody reads, records are counted; the first that fits again says how many are missing."""
    with pipe() as (reader, writer):
        handler = StderrHandler(writer, text=False)
        room = fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ)
        began_s = time.monotonic()
        for _ in range(room // 1000 + 100):
            handler.handle(record("x" * 1000))
        assert time.monotonic() - began_s < WITHIN_S
        lost = handler.lost
        assert lost > 0
        taken = os.read(reader, room)
        assert taken.endswith(b"}\n")
        handler.handle(record("again"))
        handler.handle(record("and again"))
        first, second = (json.loads(line) for line in os.read(reader, room).splitlines())
    assert first["lost_before"] == lost
    assert "lost_before" not in second


@pytest.mark.parametrize(("choice", "level"), [("xml", "info"), ("json", "loud")])
def test_wrong_choices_are_refused(choice: str, level: str) -> None:
    """An unknown format or level is a ValueError, before anything is changed."""
    before = list(logging.getLogger().handlers)
    with pytest.raises(ValueError, match=r"xml|LOUD"):
        set_up_logging(choice, level)
    assert logging.getLogger().handlers == before
