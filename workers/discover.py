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
from devd.workers.errors import SpecError, explain
from devd.workers.hw import attributes, holders, subtree

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
        "usage": usage(found.devices) if question.get("usage") else {},
    }
    json.dump(answer, sys.stdout)
    return 0


def usage(devices: Sequence[Device], root: Path = ROOT) -> dict[str, str]:
    """Return who uses which device, as far as this process may see it."""
    found = {device.id: _users(device, root) for device in devices}
    return {name: ", ".join(users) for name, users in found.items() if users}


def _users(device: Device, root: Path) -> tuple[str, ...]:
    """Return who uses a device: of a USB device all that its drivers made of it counts, the disk as well as the tty."""
    nodes = [node for node in device.nodes if not node.shared]
    if device.properties.get("subsystem") == "usb":
        directory = attributes.under(root, device.properties["sysfs"])
        try:
            return subtree.users(root, [directory], [node.path for node in nodes]).known
        except OSError as error:
            return (f"not known who: {explain('look', str(error.filename or directory), error)}",)
    return tuple(dict.fromkeys(who for node in nodes for who in _users_of(node, root)))


def _users_of(node: Node, root: Path) -> tuple[str, ...]:
    kernel: tuple[str, ...] = ()
    if node.kind == "block":
        try:
            kernel = holders.of_block(root, Path(node.path).resolve().name).known
        except OSError:
            kernel = ()
    return (*kernel, *holders.of_nodes(root, (node.path,)).known)


if __name__ == "__main__":
    sys.exit(run())
