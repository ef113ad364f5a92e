"""The drivers: the name in the configuration and what carries it out."""

from collections.abc import Callable, Mapping

from devd.workers.drivers.base import Driver
from devd.workers.drivers.node import NodeDriver
from devd.workers.drivers.sim import SimDriver
from devd.workers.errors import SpecError

DRIVERS: dict[str, Callable[[Mapping[str, object]], Driver]] = {
    "node": NodeDriver,
    "sim": SimDriver,
}


def make_driver(name: str, match: Mapping[str, object]) -> Driver:
    """Return the driver of a resource, ready to discover. Raises SpecError."""
    if name not in DRIVERS:
        raise SpecError(f"driver: {name!r} is unknown, allowed are {', '.join(DRIVERS)}")
    return DRIVERS[name](match)
