"""The order in which people count: ttyUSB2 before ttyUSB10."""

import re

_DIGITS = re.compile(r"([0-9]+)")

NaturalKey = tuple[tuple[tuple[int, str], ...], str]


def natural_key(text: str) -> NaturalKey:
    """Return a sort key that compares runs of digits as numbers; different texts never compare equal (a1, a01)."""
    # re.split with one group: the digits stand at the odd places.
    parts = enumerate(_DIGITS.split(text))
    return tuple((int(part), "") if place % 2 else (-1, part) for place, part in parts), text
