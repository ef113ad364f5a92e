"""Adds up the closing lines of pytest and of the project's own runners: ``N passed, N failed, N skipped``.

Usage: python .ci/tally.py LOG
"""

import re
import sys
from collections import Counter
from pathlib import Path

PYTEST = r"=+ (?P<pytest>.*) in [\d.]+s(?: \([\d:]+\))? =+"
OWN = r"(?:\w+: )?(?P<own>\d+ passed, \d+ failed(?:, \d+ skipped)?)"
CLOSING = re.compile(rf"^(?:{PYTEST}|{OWN})$")
COUNT = re.compile(r"(\d+) (passed|failed|errors?|skipped)")
NAMES = {"error": "failed", "errors": "failed"}


def tally(text: str) -> Counter[str]:
    """Return how many passed, failed (errors with them) and were skipped, in all closing lines of a log."""
    counts: Counter[str] = Counter()
    for line in text.splitlines():
        if closing := CLOSING.match(line.strip()):
            for number, name in COUNT.findall(closing["pytest"] or closing["own"]):
                counts[NAMES.get(name, name)] += int(number)
    return counts


if __name__ == "__main__":
    found = tally(Path(sys.argv[1]).read_text(encoding="utf-8", errors="replace"))
    print(f"total: {found['passed']} passed, {found['failed']} failed, {found['skipped']} skipped")
    sys.exit(0 if found["passed"] and not found["failed"] else 1)
