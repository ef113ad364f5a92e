"""The exit codes of every command, and the one error that carries one."""

OK = 0
FAILED = 1
USAGE = 2
"""Wrong arguments, or a configuration with errors."""
NO_DAEMON = 3
NO_ANSWER = 4
INTERRUPTED = 130
"""Ended by Ctrl-C: 128 + SIGINT, as shells have it."""
BROKEN_PIPE = 141
"""Whoever read the output has left: 128 + SIGPIPE."""


class CommandError(Exception):
    """Raised when a command cannot do its work; the text is for the operator, ``code`` for the shell."""

    def __init__(self, text: str, code: int = FAILED) -> None:
        super().__init__(text)
        self.code = code
