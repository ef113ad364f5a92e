"""One look at one resource's devices, for ``devd discover``: ``python -m devd.workers.discover``.

Reads ``{"driver": ..., "match": {...}}`` as JSON from standard input and writes ``{"devices": [...], "problems":
[...]}`` to standard output. A process of its own, so that a bus that hangs takes nobody along.
"""

import json
import sys
from dataclasses import asdict

from devd.workers.drivers import make_driver
from devd.workers.errors import SpecError

EXIT_FAILED = 1


def run() -> int:
    """Look once; return the exit code."""
    question = json.load(sys.stdin)
    try:
        found = make_driver(question["driver"], question["match"]).discover()
    except (SpecError, OSError) as error:
        print(error, file=sys.stderr)
        return EXIT_FAILED
    json.dump({"devices": [asdict(device) for device in found.devices], "problems": found.problems}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(run())
