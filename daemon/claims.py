"""Who offers what: no id and no device node may be offered by two resources of a node.

The kubelet looks a pod's device up by id alone, and a device given twice is a device shared by accident. Nodes are
compared by their numbers, not by path: /dev/serial/by-id/x and /dev/ttyUSB0 are one. What belongs to the whole driver
(/dev/vfio/vfio) comes along with any number of devices.
"""

from dataclasses import dataclass, field

from devd.ipc.messages import Device

NodeKey = tuple[str, int, int]


@dataclass(slots=True)
class Claims:
    """The first claim stands until it is released."""

    _ids: dict[str, str] = field(default_factory=dict)
    _nodes: dict[NodeKey, tuple[str, str]] = field(default_factory=dict)

    def claim(self, resource: str, device: Device) -> str | None:
        """Claim a device for a resource; return why not, or None. Claiming again with other nodes moves the claim."""
        holder = self._ids.get(device.id, resource)
        if holder != resource:
            return (
                f"device id {device.id!r} is offered by {holder} already: narrow the match of {resource} or of {holder}"
            )
        own = [node for node in device.nodes if not node.shared]
        for node in own:
            other = self._nodes.get((node.kind, node.major, node.minor))
            if other is not None and other != (resource, device.id):
                return (
                    f"{node.path} is the same device as {other[1]} of {other[0]}: "
                    f"narrow the match of {resource} or of {other[0]}, or offer it once with replicas"
                )
        self.release(device.id)
        self._ids[device.id] = resource
        for node in own:
            self._nodes[(node.kind, node.major, node.minor)] = (resource, device.id)
        return None

    def release(self, device_id: str) -> None:
        """Give a device free."""
        self._ids.pop(device_id, None)
        self.release_nodes(device_id)

    def release_nodes(self, device_id: str) -> None:
        """Give a device's nodes free and keep its id: it is gone, and its numbers may soon be another's."""
        for key in [key for key, held in self._nodes.items() if held[1] == device_id]:
            del self._nodes[key]
