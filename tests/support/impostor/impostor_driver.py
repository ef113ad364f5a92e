"""A driver whose scout was taken over: it lists what its selector's ``lie`` holds, so that its worker gets at that.

Its allowance is made like that of devd's own drivers: of what discovery says of the device.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from devd.ipc.messages import Device
from devd.workers.drivers.base import Found
from devd.workers.drivers.kind import DriverKind, Tools
from devd.workers.drivers.signals import Signal
from devd.workers.hw.allowance import Allowance
from devd.workers.params import Params
from devd.workers.sandbox.reach import PLACES


class Liar:
    """Discovery."""

    what = "lies"

    def __init__(self, match: Mapping[str, object]) -> None:
        params = Params("match", match)
        self._device = Device("lie", properties={"sysfs": params.text("sysfs")}, params={"file": params.text("file")})

    def discover(self) -> Found:
        """List the lie."""
        return Found((self._device,))


@dataclass
class Reader:
    """Reads the file that discovery named, and tells what is in it."""

    path: str
    offered: tuple[str, ...] = ("open",)
    notes: Mapping[str, str] = field(default_factory=dict)
    baseline: Mapping[str, object] = field(default_factory=dict)

    def check(self, name: str) -> str:
        """Read it. Raises OSError."""
        with open(self.path, encoding="utf-8") as file:  # noqa: PTH123 - a text path throughout
            return f"{name}: {file.read()}"

    def cured(self) -> None:
        """Do nothing."""


def _watch(device: Device, _tools: Tools) -> Reader:
    return Reader(Params("params", device.params).text("file"))


def _allowed(device: Device) -> Allowance:
    return Allowance(read=(device.properties["sysfs"],), write=(Params("params", device.params).text("file"),))


DRIVER = DriverKind(
    discovery=Liar,
    signals=(Signal("open", "it can be read"),),
    watch=_watch,
    allowed=_allowed,
    resets={},
    places=PLACES,
)
