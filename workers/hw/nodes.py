"""Device nodes as discovery listed them, and as they are now. Nothing is opened."""

import os
from collections.abc import Sequence
from pathlib import Path

from devd.ipc.messages import Node, NodeKind
from devd.workers.errors import ProbeError, explain
from devd.workers.hw import attributes
from devd.workers.probes.base import check_same


def of_directory(directory: Path, path: str, kind: NodeKind) -> tuple[Node, ...]:
    """Return the node that a sysfs directory's ``dev`` stands for, none if it has no number. Raises OSError."""
    numbers = attributes.device_number(directory)
    return () if numbers is None else (Node(path, kind, *numbers),)


def differ(root: Path, listed: Sequence[Node]) -> str:
    """Return which node is missing or leads to another device, "" when all are as they were. Raises OSError."""
    for node in listed:
        try:
            status = os.stat(attributes.under(root, node.path))  # noqa: PTH116 - the call's name is told
        except FileNotFoundError as error:
            return explain("stat", node.path, error)
        try:
            check_same(node, status)
        except ProbeError as error:
            return str(error)
    return ""
