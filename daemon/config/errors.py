"""What is wrong with a configuration: every problem of a file at once, each with its place."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from devd.daemon.errors import DevdError

KeyPath = tuple[str | int, ...]
"""Way from the top of the file to a value: keys of maps, positions in lists."""

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to correct.

    ``line`` counts from 1; 0 when the file as a whole is meant. ``key`` is the path of the value, like
    ``resources[0].probe.period``. ``found`` and ``allowed`` are empty where the message says it all.
    """

    line: int
    key: str
    found: str
    allowed: str
    message: str

    def render(self, source: str) -> str:
        """Return ``FILE:LINE: key: message (found X; allowed Y)``, without the parts that are empty."""
        place = f"{source}:{self.line}" if self.line else source
        facts = [f"found {self.found}"] if self.found else []
        facts += [f"allowed {self.allowed}"] if self.allowed else []
        text = f"{self.message} ({'; '.join(facts)})" if facts else self.message
        return printable(": ".join(part for part in (place, self.key, text) if part))


class ConfigError(DevdError):
    """Raised when a configuration cannot be used. ``problems`` has all of them, sorted by line."""

    def __init__(self, source: str, problems: Iterable[Problem]) -> None:
        self.source = source
        self.problems: tuple[Problem, ...] = tuple(sorted(dict.fromkeys(problems), key=lambda one: one.line))
        super().__init__(self.render())

    def render(self) -> str:
        """Return one line a problem: ``FILE:LINE: key: message (found X; allowed Y)``."""
        return "\n".join(one.render(self.source) for one in self.problems)


def printable(text: str) -> str:
    """Return a text that fits on one line of a terminal or log: everything unprintable in it is escaped."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def key_text(path: Sequence[str | int]) -> str:
    """Return a path as it is shown: ``resources[0].env.PORTS``; a key with other characters stands in quotes."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            shown = part if _PLAIN_KEY.fullmatch(part) else ascii(part)
            text += f".{shown}" if text else shown
    return text
