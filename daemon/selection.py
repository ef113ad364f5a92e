"""What a scout may list: devices whose nodes its resource selects. A scout is no more trusted than a worker."""

from collections.abc import Iterable, Mapping

from devd.daemon.config import Resource
from devd.ipc.messages import Listing
from devd.ipc.patterns import matches

HARDWARE_NODES: Mapping[str, tuple[str, ...]] = {
    "infiniband": ("/dev/infiniband/*",),
    "nvidia": ("/dev/nvidia*", "/dev/nvidia-caps/*"),
    "nvme": ("/dev/nvme*", "/dev/ng*"),
    "pci": (),
    "usb": (
        "/dev/bus/usb/*/*",
        "/dev/serial/by-id/*",
        "/dev/serial/by-path/*",
        "/dev/disk/by-id/*",
        "/dev/disk/by-path/*",
    ),
    "vfio": ("/dev/vfio/*", "/dev/vfio/devices/*", "/dev/iommu"),
}
"""Where a driver's devices have their nodes, beside those that the selector's ``nodes`` names."""
SHARED_NODES: Mapping[str, tuple[str, ...]] = {
    "infiniband": ("/dev/infiniband/rdma_cm",),
    # The parts of a split GPU have its own node in common.
    "nvidia": ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia[0-9]*"),
    "vfio": ("/dev/vfio/vfio", "/dev/iommu"),
}
"""What more than one device may bring along."""


def foreign(resource: Resource, listing: Listing) -> str:
    """Return a path in a listing that the resource's selector does not name, or nothing."""
    paths = [node.path for device in listing.devices for node in device.nodes]
    match = resource.match
    if resource.driver == "sim":
        named = {str(one["path"]) for one in _maps(match.get("devices")) if one.get("path")}
        return next((path for path in paths if path not in named), "")
    if resource.driver in HARDWARE_NODES:
        shared = SHARED_NODES.get(resource.driver, ())
        allowed = [*HARDWARE_NODES[resource.driver], *(f"/dev/{one}" for one in _texts(match.get("nodes")))]
        nodes = [node for device in listing.devices for node in device.nodes]
        wrong = (
            one.path for one in nodes if not _fits(one.path, allowed) or (one.shared and not _fits(one.path, shared))
        )
        return next(wrong, "")
    if resource.driver != "node":
        return next((path for path in paths if not path.startswith("/dev/")), "")
    patterns, excluded = _texts(match.get("path")), _texts(match.get("exclude"))
    patterns += [one for group in _maps(match.get("groups")) for one in _texts(group.get("path"))]
    for path in paths:
        if not _fits(path, patterns) or _fits(path, excluded):
            return path
    return ""


def _fits(path: str, patterns: Iterable[str]) -> bool:
    return any(matches(path, pattern) for pattern in patterns)


def _texts(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list | tuple) else []


def _maps(value: object) -> list[dict[str, object]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list | tuple) else []
