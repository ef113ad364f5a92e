"""Probe ``ioctl``: the driver answers a harmless request, and with what it should.

Only requests that give (their number says so: no direction, or "read") are taken; one that writes would change the
device. The number is the driver's own, from its kernel header: 0xAE00 is KVM_GET_API_VERSION of linux/kvm.h.
"""

import fcntl
import os

from devd.ipc.messages import Node, WorkerSpec
from devd.workers.errors import ProbeError, SpecError
from devd.workers.params import Params
from devd.workers.probes.base import Call, failed, first_path, joined, node_needs, nodes_of
from devd.workers.probes.open import IN_USE, MODES, open_node
from devd.workers.sandbox.needs import SandboxNeeds
from devd.workers.sandbox.requests import Request

IOC_WRITE = 1 << 30
"""The direction bit of asm-generic/ioctl.h: the caller's buffer is read by the driver."""
_SIZE_SHIFT = 16
_SIZE_MASK = (1 << 14) - 1


class IoctlProbe:
    """Open each node, make the request, close it."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        params = Params("probe", spec.probe)
        self._request = params.whole("request")
        self._returns = params.whole("returns") if params.has("returns") else None
        mode = params.choice("mode", tuple(MODES), "r")
        self._flags = MODES[mode] | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        if self._request & IOC_WRITE:
            raise SpecError(f"probe.request: {self._request:#x} is a request that writes: only such that read are made")
        self.activity = f"open {first_path(spec)}"
        self.needs = node_needs(spec, f"{mode}i") | SandboxNeeds(requests=frozenset({Request(self._request)}))

    def run(self, call: Call) -> str:
        """Ask every node. Raises ProbeError."""
        return joined([self._probe(node, call) for node in nodes_of(self._spec)])

    def _probe(self, node: Node, call: Call) -> str:
        call.say(f"open {node.path}")
        fd = open_node(node, self._flags)
        if fd is None:
            return IN_USE
        try:
            call.say(f"ioctl {self._request:#x} {node.path}")
            self._ask(node, fd)
            call.say(f"close {node.path}")
        finally:
            os.close(fd)
        return ""

    def _ask(self, node: Node, fd: int) -> None:
        try:
            # A buffer of the size that stands in the number: Python returns it, and raises for a negative answer.
            size = (self._request >> _SIZE_SHIFT) & _SIZE_MASK
            answer = fcntl.ioctl(fd, self._request, bytes(size)) if size else fcntl.ioctl(fd, self._request)
        except OSError as error:
            raise failed(f"ioctl {self._request:#x}", node.path, error) from error
        if self._returns is not None and answer != self._returns:
            raise ProbeError(f"ioctl {self._request:#x} {node.path}: answered {answer!r:.40}, must be {self._returns}")
