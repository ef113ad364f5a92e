"""``make bench``: run the measurements, print a table, write benchmarks/results/latest.json."""

import argparse
import asyncio
import json
import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import measures

RESULTS = Path(__file__).resolve().parent / "results"
SIZES = (8, 64, 256)
STEPS = (
    measures.verdict_to_kubelet,
    measures.hang_to_kubelet,
    measures.kubelet_restarts,
    measures.front_killed,
    measures.orderly_end,
    measures.flood_beside,
    measures.sandbox_start,
)
STEPS_BY_SIZE = (measures.start_up, measures.replaced, measures.allocate_while_all_hang)
NAMES = tuple(step.__name__ for step in (*STEPS, *STEPS_BY_SIZE))


def main() -> int:
    """Run and report; exit 0 when every measurement was taken."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="numbers of devices")
    parser.add_argument(
        "--only", nargs="+", choices=NAMES, default=NAMES, help="some measurements, nothing written; default: all"
    )
    arguments = parser.parse_args()
    rows = asyncio.run(_measure(arguments.sizes, arguments.only))
    width = max(len(what) for what, _value, _unit in rows)
    for what, value, unit in rows:
        print(f"{what:<{width}}  {value:10.3f} {unit}")
    if tuple(arguments.only) != NAMES:
        return 0
    RESULTS.mkdir(exist_ok=True)
    report = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"kernel": platform.release(), "python": platform.python_version(), "cores": os.cpu_count()},
        "rows": [{"what": what, "value": value, "unit": unit} for what, value, unit in rows],
    }
    file = RESULTS / "latest.json"
    file.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"\nwritten to {file}")
    return 0


async def _measure(sizes: list[int], names: Sequence[str]) -> list[measures.Row]:
    rows: list[measures.Row] = []
    for step in STEPS:
        if step.__name__ in names:
            print(f"measuring {step.__name__}", file=sys.stderr)
            rows += await step()
    for size in sizes:
        for sized in STEPS_BY_SIZE:
            if sized.__name__ in names:
                print(f"measuring {sized.__name__} with {size} devices", file=sys.stderr)
                rows += await sized(size)
    return rows


if __name__ == "__main__":
    sys.exit(main())
