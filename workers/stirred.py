"""Which devices a uevent is about: the kernel says that something changed, and their workers had better look."""

import os
from collections.abc import Collection, Iterable

from devd.ipc.messages import Device

ACTIONS = frozenset({"change", "bind", "unbind", "online", "offline"})
"""What may make a device sick or well; those that come and go are the list's own matter."""
MAX_PATHS = 256
"""Changed devices that are remembered until the next scan; of more the probes' period has to do."""
_LINKS = ("/sys/bus/", "/sys/class/")


def whose(paths: Collection[str], devices: Iterable[Device]) -> tuple[str, ...]:
    """Return the ids of the devices that a change of one of these paths below /sys may be about.

    It is about a device at or below whose directory it happened (a GPU's DRM node), and about one that hangs on what it
    happened to (the PCI function of a disk, the port above a function).
    """
    if not paths:
        return ()
    return tuple(one.id for one in devices if _is_about(paths, _directory(one)))


def _is_about(paths: Iterable[str], directory: str) -> bool:
    """Return whether one of the paths is a directory's, or above or below it."""
    if not directory:
        return False
    own = f"{directory}/"
    return any(own.startswith(f"{path}/") or path.startswith(own) for path in paths)


def _directory(device: Device) -> str:
    """Return a device's directory as uevents name it ("/devices/..."), "" for one that has none."""
    path = device.properties.get("sysfs", "")
    if path.startswith(_LINKS):
        path = os.path.realpath(path)
    return path.removeprefix("/sys") if path.startswith("/sys/devices/") else ""
