"""Who offers what: no id and no device node may be offered twice, by two resources of a node or by one.

The kubelet looks a pod's device up by id alone, and a device given twice is a device shared by accident. Nodes are
compared by their numbers and by their paths: /dev/serial/by-id/x and /dev/ttyUSB0 can be one, and a path that led to
one device can lead to another while a pod has it. What belongs to the whole driver (/dev/vfio/vfio) comes along with
any number of devices.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from devd.ipc.messages import Device, Node

Key = tuple[str, int, int] | str
"""What is held of a node: its kind and numbers, and its path."""


@dataclass(slots=True)
class Claims:
    """The first claim stands until it is released: as long as its id is in a list, whatever became of the device."""

    _resources: dict[str, str] = field(default_factory=dict)
    """By id."""
    _keys: dict[str, tuple[Key, ...]] = field(default_factory=dict)
    """By id."""
    _holders: dict[Key, str] = field(default_factory=dict)
    _leaving: set[str] = field(default_factory=set)
    _freed: bool = False

    def claim(self, resource: str, device: Device) -> str | None:
        """Claim a device for a resource; return why not, or None. Claiming again with other nodes moves the claim."""
        return self.claim_all(resource, (device,))[0]

    def claim_all(self, resource: str, devices: Sequence[Device]) -> list[str | None]:
        """Claim devices that were seen together, each with an id of its own; return for each why not, or None.

        What they hold already is no obstacle among themselves: two may have changed places. Whose claim is refused
        holds on to what it held.
        """
        moving = {one.id for one in devices if self._resources.get(one.id) == resource}
        wanted: dict[Key, str] = {}
        refused: dict[str, str] = {}
        for one in devices:
            why = self._obstacle(resource, one, moving, wanted)
            if why is None:
                wanted.update(dict.fromkeys(_keys_of(one), one.id))
            else:
                refused[one.id] = why
        self._hold_on(resource, {one.id: one for one in devices}, moving, wanted, refused)
        taken = [one for one in devices if one.id not in refused]
        for one in taken:
            self._drop(one.id, kept=set(_keys_of(one)))
        for one in taken:
            self._put(resource, one)
        return [refused.get(one.id) for one in devices]

    def leaving(self, device_id: str, *, vanished: bool) -> None:
        """Take note that a device is not offered any more, and still listed.

        Its nodes stay its own: whoever was given it may have them open. The number of a file that is no device node
        and has ``vanished`` says nothing: as long as anybody has the file the file system gives it to no other.
        """
        self._leaving.add(device_id)
        for key in self._keys.get(device_id, ()) if vanished else ():
            if key[0] == "other" and self._holders.get(key) == device_id:
                del self._holders[key]
                self._freed = True

    def release(self, device_id: str) -> None:
        """Give a device free."""
        self._drop(device_id, kept=set())
        self._freed = self._resources.pop(device_id, None) is not None or self._freed
        self._leaving.discard(device_id)

    def take_freed(self) -> bool:
        """Return whether anything became free since this was asked last."""
        freed, self._freed = self._freed, False
        return freed

    def _obstacle(self, resource: str, device: Device, moving: set[str], wanted: Mapping[Key, str]) -> str | None:
        holder = self._resources.get(device.id, resource)
        if holder != resource:
            return (
                f"device id {device.id!r} is offered by {holder} already: narrow the match of {resource} or of {holder}"
            )
        for node in _own(device):
            for key in _keys(node):
                other = self._holders.get(key)
                if other is None or other in moving:
                    other = wanted.get(key)
                if other is not None and other != device.id:
                    return self._taken(resource, node, key, other)
        return None

    def _taken(self, resource: str, node: Node, key: Key, other: str) -> str:
        holder = self._resources.get(other, resource)
        same = f"{node.path} is the same device as {other} of {holder}"
        if isinstance(key, str):
            same = f"{node.path} is where {other} of {holder} is reached"
        if other in self._leaving:
            return f"{same}, which is leaving the list: offered once that has left"
        return f"{same}: narrow the match of {resource} or of {holder}, or offer it once with replicas"

    def _hold_on(
        self,
        resource: str,
        devices: Mapping[str, Device],
        moving: set[str],
        wanted: dict[Key, str],
        refused: dict[str, str],
    ) -> None:
        """Refuse those as well who want what a refused one holds, and whoever wants what those hold."""
        staying = [one for one in refused if one in moving]
        while staying:
            stays = staying.pop()
            for key in self._keys.get(stays, ()):
                other = wanted.get(key)
                if other is None or other == stays:
                    continue
                device = devices[other]
                node = next(one for one in _own(device) if key in _keys(one))
                refused[other] = self._taken(resource, node, key, stays)
                for mine in _keys_of(device):
                    wanted.pop(mine, None)
                if other in moving:
                    staying.append(other)

    def _put(self, resource: str, device: Device) -> None:
        self._resources[device.id] = resource
        self._keys[device.id] = tuple(_keys_of(device))
        self._holders.update(dict.fromkeys(self._keys[device.id], device.id))
        self._leaving.discard(device.id)

    def _drop(self, device_id: str, kept: set[Key]) -> None:
        """Let go of what a device holds but for what it will hold again."""
        for key in self._keys.pop(device_id, ()):
            if self._holders.get(key) == device_id:
                del self._holders[key]
                self._freed = self._freed or key not in kept


def _own(device: Device) -> list[Node]:
    return [node for node in device.nodes if not node.shared]


def _keys(node: Node) -> tuple[Key, Key]:
    return (node.kind, node.major, node.minor), node.path


def _keys_of(device: Device) -> Iterator[Key]:
    for node in _own(device):
        yield from _keys(node)
