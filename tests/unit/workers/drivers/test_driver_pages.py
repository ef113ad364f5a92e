"""The drivers' pages say what the code does: every signal with its default, every key a device is selected by."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from devd.workers.drivers import KINDS, infiniband, nvidia, nvme, pages
from devd.workers.drivers.signals import Signal
from devd.workers.hw import xid_catalogue

PAGES = Path(__file__).resolve().parents[4] / "docs/drivers"
DRIVERS = [
    ("nvme", nvme.SIGNALS, nvme.KEYS),
    ("infiniband", infiniband.SIGNALS, infiniband.KEYS),
    ("nvidia", nvidia.SIGNALS, nvidia.KEYS),
]


@pytest.mark.parametrize("name", KINDS)
def test_a_page_is_as_the_code_draws_it(name: str) -> None:
    """The table of signals is what ``make docs`` makes of the code today, and each reset has its name on the page."""
    page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    assert pages.drawn(page, KINDS[name].signals) == page
    named = {method for method in KINDS[name].resets if f"`{method}`" in page or f"method: {method}" in page}
    assert named == set(KINDS[name].resets)


def test_a_page_without_a_place_is_refused() -> None:
    """A page whose marks were lost is told, instead of left as it is."""
    with pytest.raises(ValueError, match="no place for the signals"):
        pages.drawn("# Driver", ())


@pytest.mark.parametrize(("name", "signals", "keys"), DRIVERS)
def test_a_page_lists_the_signals_in_their_order(name: str, signals: Sequence[Signal], keys: Sequence[str]) -> None:
    """The table has the code's names and defaults, no more and no less, and the example names every key."""
    page = (PAGES / f"{name}.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \| (on|off) \|", page, re.MULTILINE)
    assert rows == [(one.name, "on" if one.default else "off") for one in signals]
    example = page.partition("```yaml")[2].partition("```")[0]
    assert [key for key in keys if not re.search(rf"\b{key}\b", example)] == []


@pytest.mark.parametrize(("name", "signals", "keys"), DRIVERS)
def test_signals_are_told_in_a_line(name: str, signals: Sequence[Signal], keys: Sequence[str]) -> None:
    """Names are unique and fit a configuration; a meaning is one line that fits a terminal."""
    assert name
    assert keys
    assert len({one.name for one in signals}) == len(signals)
    assert all(re.fullmatch("[a-z]+(-[a-z]+)*", one.name) for one in signals)
    assert [one.name for one in signals if not one.meaning or "\n" in one.meaning or len(one.meaning) > 110] == []


def test_the_catalogues_classes_are_on_the_page() -> None:
    """Each class's row has exactly the catalogue's numbers."""
    page = (PAGES / "nvidia.md").read_text()
    for cure, numbers in xid_catalogue.CURES.items():
        match = re.search(rf"^\| `{cure}` \| ([^|]*) \|", page, re.MULTILINE)
        assert match is not None, cure
        found: set[int] = set()
        for first, last in re.findall(r"(\d+)(?:-(\d+))?", match[1]):
            found |= set(range(int(first), int(last or first) + 1))
        assert found == numbers
