"""Probe ``read``: the device gives the bytes that are asked of it.

A node that has nothing to give yet (EAGAIN) is waited for until the probe's timeout, then it fails: this kind is for
devices that always have something to say.
"""

import os
import select

from devd.ipc.messages import Node, WorkerSpec
from devd.workers.errors import ProbeError
from devd.workers.params import Params
from devd.workers.probes.base import Call, failed, first_path, joined, node_needs, nodes_of
from devd.workers.probes.open import IN_USE, open_node

FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class ReadProbe:
    """Read ``bytes`` bytes, at ``offset`` when one is given, from each node."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        params = Params("probe", spec.probe)
        self._bytes = params.whole("bytes", 1, least=1)
        self._offset = params.whole("offset") if params.has("offset") else None
        self.activity = f"open {first_path(spec)}"
        self.needs = node_needs(spec, "r")

    def run(self, call: Call) -> str:
        """Read from every node. Raises ProbeError."""
        return joined([self._probe(node, call) for node in nodes_of(self._spec)])

    def _probe(self, node: Node, call: Call) -> str:
        call.say(f"open {node.path}")
        fd = open_node(node, FLAGS)
        if fd is None:
            return IN_USE
        try:
            call.say(f"read {node.path}")
            self._read(node, fd, call)
            call.say(f"close {node.path}")
        finally:
            os.close(fd)
        return ""

    def _read(self, node: Node, fd: int, call: Call) -> None:
        got = 0
        while got < self._bytes:
            try:
                data = self._one_read(fd, got)
            except BlockingIOError:
                _wait_readable(node, fd, call, f"{got} of {self._bytes} bytes")
                continue
            except OSError as error:
                raise failed("read", node.path, error) from error
            if not data:
                raise ProbeError(f"read {node.path}: end of file after {got} of {self._bytes} bytes")
            got += len(data)

    def _one_read(self, fd: int, got: int) -> bytes:
        wanted = self._bytes - got
        return os.read(fd, wanted) if self._offset is None else os.pread(fd, wanted, self._offset + got)


def _wait_readable(node: Node, fd: int, call: Call, progress: str) -> None:
    left_s = call.left_s()
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    if left_s <= 0 or not poll.poll(left_s * 1000):
        raise ProbeError(f"read {node.path}: nothing more to read within the timeout, after {progress}")
