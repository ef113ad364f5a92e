"""Ids for devices that name themselves: what happens when two say the same name."""

from collections import Counter
from collections.abc import Sequence

from devd.workers.drivers.base import device_id


def ids(names: Sequence[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """Return an id for each (own name, port), and a problem for each name that more than one device has.

    Twins all get their port into the id, never a number by order: each keeps its id whichever was seen first. A
    device without a name of its own is known by its port alone.
    """
    count = Counter(name for name, _port in names if name)
    found = [_id(name, port, twin=count[name] > 1) for name, port in names]
    problems = [
        f"{number} devices say they are {name}: told apart by their ports"
        for name, number in count.items()
        if number > 1
    ]
    return found, problems


def _id(name: str, port: str, *, twin: bool) -> str:
    if not name:
        return device_id(port)
    return device_id(f"{name}-{port}" if twin else name)
