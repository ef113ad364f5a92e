"""A third party's driver that was taken over: it speaks ZeroMQ's protocol by hand on the connections of its worker.

No library stands between it and the front: it finds the sockets among the open descriptors and writes frames of its own
making to one of them. ``match`` says for which device it speaks (``whom``), and on which connection (``on``).
"""

import os
import stat
from collections.abc import Mapping

from devd.ipc import codec
from devd.ipc.messages import Device, Findings, Health
from devd.workers.drivers.base import Found
from devd.workers.drivers.kind import DriverKind, Tools
from devd.workers.drivers.signals import Signal
from devd.workers.hw.allowance import Allowance
from devd.workers.params import Params

FIRST_FD, LAST_FD = 4, 64
CONNECTIONS = ("command", "health")
"""In the order in which a worker makes them."""
SIGNALS = (Signal("loyal", "it is not"),)
_MORE, _LONG = 1, 2
"""Flags of a frame in ZMTP 3."""


class Discovery:
    """One device, always there."""

    def __init__(self, match: Mapping[str, object]) -> None:
        params = Params("match", match)
        self._params = {"whom": params.text("whom"), "on": params.choice("on", CONNECTIONS, "health")}
        self.what = "a traitor"

    def discover(self) -> Found:
        """Return it."""
        return Found((Device("traitor", params=self._params),))


class Treason:
    """The signals: the first check is the deed."""

    offered = ("loyal",)
    notes: Mapping[str, str] = {}
    baseline: Mapping[str, object] = {}

    def __init__(self, device: Device, _tools: Tools) -> None:
        params = Params("params", device.params)
        self._whom, self._on = params.text("whom"), params.text("on")

    def cured(self) -> None:
        """Take no note."""

    def check(self, name: str) -> str:
        """Write the frames, and say that all is well. Raises OSError."""
        del name
        os.write(_sockets()[CONNECTIONS.index(self._on)], _frames(self._on, self._whom))
        return ""


def _sockets() -> list[int]:
    """Return the descriptors of the worker's connections: of what is a socket it has no others."""
    found = []
    for fd in range(FIRST_FD, LAST_FD):
        try:
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                found.append(fd)
        except OSError:
            continue
    return found


def _frames(on: str, whom: str) -> bytes:
    """Return what a healthy worker of another device would have on the wire, but sick."""
    if on == "command":
        return _frame(codec.encode(Findings(whom, 1, (), (), {"a": "lie"}, {})), more=False)
    lie = Health(whom, 1, 2**40, "fail", "a lie", 9, "sim", 1.0, 0.0, "", 0.0)
    return _frame(whom.encode() + b"\0", more=True) + _frame(codec.encode(lie), more=False)


def _frame(body: bytes, *, more: bool) -> bytes:
    """Return a frame of ZMTP 3: flags, length, body."""
    flags = _MORE if more else 0
    if len(body) < 1 << 8:
        return bytes((flags, len(body))) + body
    return bytes((flags | _LONG,)) + len(body).to_bytes(8, "big") + body


DRIVER = DriverKind(
    discovery=Discovery,
    signals=SIGNALS,
    watch=Treason,
    allowed=lambda _device: Allowance(),
    resets={},
    scout=Allowance(),
)
