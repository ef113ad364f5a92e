"""docs/lifecycle.md is what the code says."""

from pathlib import Path

from devd.daemon.lifecycle_page import page

ROOT = Path(__file__).resolve().parents[2]


def test_page_is_up_to_date() -> None:
    """The checked-in page is the one the tables draw now."""
    assert (ROOT / "docs" / "lifecycle.md").read_text(encoding="utf-8") == page(), "run 'make docs'"
