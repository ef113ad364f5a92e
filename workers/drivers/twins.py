"""From what a scan saw to devices with ids: what happens when two devices call themselves the same.

A name that two devices bear at once belongs to places from then on, for good: an id must not depend on who else is
plugged in now. So a scan needs to know what earlier ones saw, of this scout and of those before it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from devd.ipc.messages import Device, Node
from devd.workers.drivers.base import device_id
from devd.workers.hw.selection import Selection

MAX_NAMES = 200
"""Names remembered of devices that are not there now, and in all for the next scout: at most 27 KB as JSON."""
_KEPT = "names"


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


@dataclass(frozen=True, slots=True)
class _Name:
    """What is known of a name.

    ``place`` is where the device is, or was last, whose id is the bare name: "" where nobody's is. ``shared``: two
    devices had the name at once; then the bare name stays with that place.
    """

    place: str
    shared: bool


class Twins:
    """The names that devices were seen to bear, and where. One for each scout; the next one is told what this knew."""

    def __init__(self) -> None:
        self._known: dict[str, _Name] = {}
        """By name, shortened as an id is; those seen last stand last."""

    @property
    def baseline(self) -> Mapping[str, object]:
        """Return what the next scout has to know: shared names before all, of the others those seen last."""
        newest = list(reversed(self._known.items()))
        ranked = sorted(newest, key=lambda one: not one[1].shared)[:MAX_NAMES]
        return {_KEPT: {name: [one.place, one.shared] for name, one in ranked}} if ranked else {}

    @baseline.setter
    def baseline(self, left: Mapping[str, object]) -> None:
        """Begin with what an earlier scout knew; what cannot be understood counts as unknown."""
        found = left.get(_KEPT)
        for name, one in list(found.items())[:MAX_NAMES] if isinstance(found, Mapping) else ():
            match one:
                case [str() as place, bool() as shared] if isinstance(name, str):
                    self._known[name] = _Name(place, shared)

    def see(self, names: Sequence[tuple[str, str]]) -> None:
        """Take note of all (own name, port) of one scan. Seeing the same again changes nothing."""
        ports: dict[str, list[str]] = {}
        for name, port in names:
            if name:
                ports.setdefault(device_id(name), []).append(device_id(port))
        for name, places in ports.items():
            before = self._known.pop(name, None)
            self._known[name] = _seen(before, places)
        self._forget(present=len(ports))

    def shared(self, name: str) -> bool:
        """Return whether more than one device was ever seen to bear a name at once."""
        known = self._known.get(device_id(name))
        return known is not None and known.shared

    def ids(self, names: Sequence[tuple[str, str]]) -> tuple[list[str], list[str]]:
        """Return an id for each (own name, port) of a scan, and a problem for each name that more than one device has.

        The bare name as long as nobody else was seen to bear it; after that the port stands in the id, except at the
        place whose device had the name before. A device without a name of its own is known by its port alone.
        """
        self.see(names)
        count = Counter(name for name, _port in names if name)
        problems = [
            f"{number} devices say they are {name}: told apart by their ports"
            for name, number in count.items()
            if number > 1
        ]
        return [self._id(name, port) for name, port in names], problems

    def _id(self, name: str, port: str) -> str:
        if not name:
            return device_id(port)
        known = self._known[device_id(name)]
        apart = known.shared and known.place != device_id(port)
        return device_id(f"{name}-{port}" if apart else name)

    def _forget(self, present: int) -> None:
        """Drop names nobody bears now, the oldest first and shared ones last; what is there now stays known."""
        absent = list(self._known)[: len(self._known) - present]
        absent.sort(key=lambda name: self._known[name].shared)
        for name in absent[: max(0, len(self._known) - max(MAX_NAMES, present))]:
            del self._known[name]


def _seen(before: _Name | None, places: Sequence[str]) -> _Name:
    """Return what is known of a name once it was seen at these places."""
    if before is not None and before.shared:
        return before
    if len(places) > 1:
        # Whoever was there first keeps its id: a pod may have it. Where nobody was, none of them is the first.
        return _Name(before.place if before is not None else "", shared=True)
    return _Name(places[0], shared=False)


def listed(candidates: Sequence[Candidate], selection: Selection, twins: Twins) -> tuple[list[Device], list[str]]:
    """Return the devices that a selection takes, with their ids, and the problems of all.

    Ids are made before anything is left out: what is selected must not decide what a twin is called.
    """
    found, problems = twins.ids([(one.own_name, one.port) for one in candidates])
    devices = []
    for name, one in zip(found, candidates, strict=True):
        properties = {key: value for key, value in one.properties.items() if value}
        if selection.takes(properties):
            devices.append(Device(name, one.nodes, properties, one.numa_node, one.params))
    return devices, problems


def ids(names: Sequence[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """Return the ids of a first scan, by one who knows of none before it (see ``Twins.ids``)."""
    return Twins().ids(names)
