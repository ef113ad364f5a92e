"""Draws the tables of signals into the drivers' pages: ``python -m devd.workers.drivers.pages DIRECTORY``."""

import sys
from collections.abc import Sequence
from pathlib import Path

from devd.workers.drivers import KINDS
from devd.workers.drivers.signals import Signal

BEGIN = "<!-- signals: drawn from the code by `make docs` -->\n"
END = "<!-- end of what is drawn -->\n"


def drawn(page: str, signals: Sequence[Signal]) -> str:
    """Return a page with its table of signals drawn anew. Raises ValueError for one without a place for it."""
    before, begin, rest = page.partition(BEGIN)
    _old, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no place for the signals: {BEGIN.strip()} and {END.strip()} are needed")
    rows = [f"| `{one.name}` | {'on' if one.default else 'off'} | {one.meaning} |" for one in signals]
    table = "\n".join(["| signal | default | bad means, and what to do |", "|---|---|---|", *rows])
    return f"{before}{BEGIN}{table}\n{END}{after}"


def main(directory: Path) -> None:
    """Draw every page."""
    for name, kind in KINDS.items():
        page = directory / f"{name}.md"
        page.write_text(drawn(page.read_text(encoding="utf-8"), kind.signals), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
