"""One look at one resource's devices, for ``devd discover``: ``python -m devd.workers.discover``.

Reads ``{"driver": ..., "match": {...}, "usage": bool}`` as JSON from standard input and writes ``{"devices": [...],
"problems": [...], "usage": {id: who}}`` to standard output; ``usage`` names who uses a device now, of those that can be
seen. A process of its own, so that a bus that hangs takes nobody along.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from devd.ipc.messages import Device, Node
from devd.workers.drivers import make_driver
from devd.workers.errors import SpecError
from devd.workers.hw import holders

EXIT_FAILED = 1
ROOT = Path("/")


def run() -> int:
    """Look once; return the exit code."""
    question = json.load(sys.stdin)
    try:
        found = make_driver(question["driver"], question["match"]).discover()
    except (SpecError, OSError, ImportError) as error:
        print(error, file=sys.stderr)
        return EXIT_FAILED
    answer: dict[str, object] = {
        "devices": [asdict(device) for device in found.devices],
        "problems": found.problems,
        "usage": _usage(found.devices) if question.get("usage") else {},
    }
    json.dump(answer, sys.stdout)
    return 0


def _usage(devices: Sequence[Device]) -> dict[str, str]:
    """Return who uses which device, as far as this process may see it."""
    found = {device.id: [who for node in device.nodes if not node.shared for who in _users(node)] for device in devices}
    return {name: ", ".join(users) for name, users in found.items() if users}


def _users(node: Node) -> tuple[str, ...]:
    kernel: tuple[str, ...] = ()
    if node.kind == "block":
        try:
            kernel = holders.of_block(ROOT, Path(node.path).resolve().name).known
        except OSError:
            kernel = ()
    return (*kernel, *holders.of_nodes(ROOT, (node.path,)).known)


if __name__ == "__main__":
    sys.exit(run())
