"""Probe ``exists``: the node is there and still the same one."""

import os

from devd.ipc.messages import Node, WorkerSpec
from devd.workers.probes.base import Call, check_same, failed, first_path, node_needs, nodes_of


class ExistsProbe:
    """lstat and stat each node; the driver is not touched."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self.activity = f"stat {first_path(spec)}"
        self.needs = node_needs(spec, "")

    def run(self, call: Call) -> str:
        """Check every node. Raises ProbeError."""
        for node in nodes_of(self._spec):
            call.say(f"stat {node.path}")
            _check(node)
        return ""


def _check(node: Node) -> None:
    try:
        os.lstat(node.path)
    except OSError as error:
        raise failed("lstat", node.path, error) from error
    try:
        status = os.stat(node.path)  # noqa: PTH116 - the call's name stands in the reason
    except OSError as error:
        raise failed("stat", node.path, error) from error
    check_same(node, status)
