"""Probe ``open``: the driver lets the node be opened, and it closes again."""

import errno
import os

from devd.ipc.messages import Node, WorkerSpec
from devd.workers.params import Params
from devd.workers.probes.base import Call, check_same, failed, first_path, joined, node_needs, nodes_of

IN_USE = "in use (EBUSY)"
"""An exclusive node answers so while a pod has it: somebody works with it, so it is alive."""

MODES = {"r": os.O_RDONLY, "w": os.O_WRONLY, "rw": os.O_RDWR}


class OpenProbe:
    """Open each node (never waiting for a carrier, never becoming its terminal) and close it."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        mode = Params("probe", spec.probe).choice("mode", tuple(MODES), "r")
        self._flags = MODES[mode] | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        self.activity = f"open {first_path(spec)}"
        self.needs = node_needs(spec, mode)

    def run(self, call: Call) -> str:
        """Open every node. Raises ProbeError."""
        notes = []
        for node in nodes_of(self._spec):
            call.say(f"open {node.path}")
            notes.append(_open_and_close(node, self._flags, call))
        return joined(notes)


def open_node(node: Node, flags: int) -> int | None:
    """Return a descriptor of the node, or None while somebody else has it. Raises ProbeError."""
    try:
        fd = os.open(node.path, flags)
    except OSError as error:
        if error.errno == errno.EBUSY:
            return None
        raise failed("open", node.path, error) from error
    try:
        check_same(node, os.fstat(fd))
    except BaseException:
        os.close(fd)
        raise
    return fd


def _open_and_close(node: Node, flags: int, call: Call) -> str:
    fd = open_node(node, flags)
    if fd is None:
        return IN_USE
    call.say(f"close {node.path}")
    try:
        os.close(fd)
    except OSError as error:
        raise failed("close", node.path, error) from error
    return ""
