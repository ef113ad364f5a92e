"""The drivers: the name in the configuration and what carries it out."""

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points

from devd.workers.drivers import infiniband, nvidia, nvme, pci, usb, vfio
from devd.workers.drivers.base import Driver
from devd.workers.drivers.hardware import HardwareDriver
from devd.workers.drivers.kind import DriverKind
from devd.workers.drivers.node import NodeDriver
from devd.workers.drivers.sim import SimDriver
from devd.workers.errors import SpecError

ENTRY_POINTS = "devd.drivers"
"""The group in which third parties' packages name their drivers."""

DRIVERS: dict[str, Callable[[Mapping[str, object]], Driver]] = {
    "node": NodeDriver,
    "sim": SimDriver,
}
"""Drivers whose devices are probed by general probe kinds alone."""
KINDS: dict[str, DriverKind] = {
    "infiniband": infiniband.DRIVER,
    "nvidia": nvidia.DRIVER,
    "nvme": nvme.DRIVER,
    "pci": pci.DRIVER,
    "usb": usb.DRIVER,
    "vfio": vfio.DRIVER,
}
"""Drivers with signals and resets of their own."""


def kind_of(name: str) -> DriverKind:
    """Return a driver with signals of its own, devd's or a third party's. Raises SpecError."""
    if name in DRIVERS:
        raise SpecError(f"driver: {name!r} has no signals and resets of its own")
    if name in KINDS:
        return KINDS[name]
    for point in entry_points(group=ENTRY_POINTS, name=name):
        found = point.load()
        if not isinstance(found, DriverKind):
            raise SpecError(f"driver: {name!r} is {point.value}, which is no DriverKind")
        return found
    raise SpecError(f"driver: {name!r} is unknown, allowed are {', '.join((*DRIVERS, *KINDS))}")


def make_driver(name: str, match: Mapping[str, object]) -> Driver:
    """Return the driver of a resource, ready to discover. Raises SpecError."""
    if name in DRIVERS:
        return DRIVERS[name](match)
    return HardwareDriver(kind_of(name), match)
