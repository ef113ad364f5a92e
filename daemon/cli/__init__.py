"""The command line, ``devd``. Commands that ask a running daemon import neither gRPC nor the configuration."""

import os
import sys
from collections.abc import Sequence

from devd.daemon.cli.parser import make_parser

EXIT_BROKEN_PIPE = 141
"""As a shell reports a process that SIGPIPE ended."""
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = make_parser().parse_args(arguments)
    try:
        code = int(options.run(options))
        sys.stdout.flush()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader has had enough (devd status | head). Nothing may be flushed into the pipe at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    return code
