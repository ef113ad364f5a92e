"""From what a scan saw to devices with ids: what happens when two devices call themselves the same."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from devd.ipc.messages import Device, Node
from devd.workers.drivers.base import device_id
from devd.workers.hw.selection import Selection


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A device before it has its id.

    ``own_name`` is what it calls itself ("" when it does not), ``port`` where it is plugged in, which is what twins
    are told apart by. Properties without a value are left out of the device.
    """

    own_name: str
    port: str
    nodes: tuple[Node, ...]
    properties: Mapping[str, str]
    numa_node: int | None = None
    params: Mapping[str, object] = field(default_factory=dict)


def listed(candidates: Sequence[Candidate], selection: Selection) -> tuple[list[Device], list[str]]:
    """Return the devices that a selection takes, with their ids, and the problems of all.

    Ids are made before anything is left out: what is selected must not decide what a twin is called.
    """
    found, problems = ids([(one.own_name, one.port) for one in candidates])
    devices = []
    for name, one in zip(found, candidates, strict=True):
        properties = {key: value for key, value in one.properties.items() if value}
        if selection.takes(properties):
            devices.append(Device(name, one.nodes, properties, one.numa_node, one.params))
    return devices, problems


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
