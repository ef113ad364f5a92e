"""The pages of the bus drivers say what the code does: signals with their defaults, keys, resets."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from devd.workers.drivers import pci, usb, vfio
from devd.workers.drivers.signals import Signal

PAGES = Path(__file__).resolve().parents[4] / "docs/drivers"
DRIVERS = [
    ("pci", pci.SIGNALS, pci.KEYS, ["function", "remove-rescan", "rebind"]),
    ("vfio", vfio.SIGNALS, vfio.KEYS, ["function"]),
    ("usb", usb.SIGNALS, usb.KEYS, ["port", "authorized"]),
]


@pytest.mark.parametrize(("name", "signals", "keys", "resets"), DRIVERS)
def test_a_page_says_what_the_code_does(
    name: str, signals: Sequence[Signal], keys: Sequence[str], resets: Sequence[str]
) -> None:
    """The tables have the code's names and defaults in its order, and the example names every key."""
    page = (PAGES / f"{name}.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \| (on|off) \|", page, re.MULTILINE)
    assert rows == [(one.name, "on" if one.default else "off") for one in signals]
    assert re.findall(r"^\| `([a-z-]+)` \| (?!on |off )", page, re.MULTILINE) == resets
    example = page.partition("```yaml")[2].partition("```")[0]
    assert [key for key in keys if not re.search(rf"\b{key}\b", example)] == []


@pytest.mark.parametrize(("name", "signals", "keys", "resets"), DRIVERS)
def test_signals_are_told_in_a_line(
    name: str, signals: Sequence[Signal], keys: Sequence[str], resets: Sequence[str]
) -> None:
    """Names are unique and fit a configuration; a meaning is one line that fits a terminal."""
    assert name
    assert keys
    assert resets
    assert len({one.name for one in signals}) == len(signals)
    assert all(re.fullmatch("[a-z]+(-[a-z]+)*", one.name) for one in signals)
    assert [one.name for one in signals if not one.meaning or "\n" in one.meaning or len(one.meaning) > 110] == []
