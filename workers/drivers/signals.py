"""What a hardware driver's probe is made of: named signals, each a check of one thing, with what it means."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Signal:
    """One signal of a driver.

    ``name`` stands in ``probe: {signals: [...]}`` and in the status ("link-width"); ``meaning`` is one line for the
    operator: what it means when it is bad, and what to do; ``default``: checked unless the configuration says
    otherwise.
    """

    name: str
    meaning: str
    default: bool = True


class Signals(Protocol):
    """The signals of one device. Made in the worker from the Device; keeps no file open between runs."""

    @property
    def offered(self) -> tuple[str, ...]:
        """Return the names this device really has; a signal that is not offered is no fault."""

    def check(self, name: str) -> str:
        """Return "" when well, else the reason naming what was seen. Raises OSError as it comes."""
