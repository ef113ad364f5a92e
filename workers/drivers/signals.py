"""What a hardware driver's probe is made of: named signals, each a check of one thing, with what it means."""

from dataclasses import dataclass


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
