"""The one way to stdout: what cannot be written is told, and never a traceback."""

import os
import sys

from devd.daemon.cli.exits import CommandError


def put(text: str, end: str = "\n") -> None:
    """Write a text and flush. Raises BrokenPipeError when the reader has left, CommandError for any other failure."""
    if sys.stdout is None:
        return
    try:
        print(text, end=end, flush=True)
    except BrokenPipeError:
        drop_output()
        raise
    except OSError as error:
        drop_output()
        raise CommandError(f"the output cannot be written: {error.strerror}") from error


def drop_output() -> None:
    """Point stdout elsewhere: the interpreter flushes it once more on its way out, and would complain."""
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, sys.stdout.fileno())
    finally:
        os.close(null)
