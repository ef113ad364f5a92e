"""What is known of a device node beside its numbers: from sysfs up to the bus, and from udev. The node is not touched.

Names in capitals are udev's (``ID_SERIAL``, ``ID_PATH``) or the kernel's event's (``DEVTYPE``, ``PRODUCT``); all others
are attributes in sysfs (``idVendor``, ``interface``), of the device or the nearest above it that has one.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from devd.ipc.messages import Node
from devd.workers.hw import attributes, pci

UDEV = "run/udev/data"
"""Where udev keeps what its rules found out."""
_LETTERS = {"char": "c", "block": "b"}


def folder(root: Path, node: Node) -> Path | None:
    """Return a node's directory in sysfs, by its numbers; None where there is none. Raises OSError."""
    if node.kind not in _LETTERS:
        return None
    found = root / "sys/dev" / node.kind / f"{node.major}:{node.minor}"
    return found.resolve() if found.exists() else None


def of_node(root: Path, node: Node, wanted: Iterable[str] = ()) -> dict[str, str]:
    """Return the properties every node has, as far as it has them, and those wanted. Raises OSError."""
    directory = folder(root, node)
    if directory is None:
        return {}
    bus = _bus_device(directory)
    found = {
        "sysfs": attributes.below(root, directory),
        "subsystem": attributes.target(directory / "subsystem"),
        "driver": attributes.target(directory / "device/driver"),
        "address": bus.name if bus is not None else "",
        "pcie_switch": pci.switch(bus) if bus is not None else "",
    }
    found |= {name: _look_up(root, node, directory, name) for name in wanted if name not in found}
    return {name: value for name, value in found.items() if value}


def numa_node(root: Path, node: Node) -> int | None:
    """Return the NUMA node of the nearest device above that tells one; -1 is none. Raises OSError."""
    directory = folder(root, node)
    for one in _upwards(root, directory):
        if (one / "numa_node").exists():
            return attributes.numa_node(one)
    return None


def _look_up(root: Path, node: Node, directory: Path, name: str) -> str:
    if not name.isupper():
        return _attribute(root, directory, name)
    database = root / UDEV / f"{_LETTERS[node.kind]}{node.major}:{node.minor}"
    return _entry(database, f"E:{name}=") or _event(root, directory, name)


def _event(root: Path, directory: Path, name: str) -> str:
    """Return what the device, or the nearest above it, says in its events."""
    return next((found for one in _upwards(root, directory) if (found := _entry(one / "uevent", f"{name}="))), "")


def _attribute(root: Path, directory: Path, name: str) -> str:
    for one in _upwards(root, directory):
        if (one / name).is_file():
            return attributes.text(one / name) or ""
    return ""


def _entry(file: Path, start: str) -> str:
    lines = (attributes.content(file) or "").splitlines()
    return next((line.removeprefix(start).strip() for line in lines if line.startswith(start)), "")


def _bus_device(directory: Path) -> Path | None:
    """Return the PCI function a device belongs to."""
    above = (one for one in (directory, *directory.parents) if pci.ADDRESS.fullmatch(one.name))
    return next(above, None)


def _upwards(root: Path, directory: Path | None) -> Iterator[Path]:
    """Yield a device's directory and those above it, up to the root of all devices."""
    top = (root / "sys/devices").resolve()
    while directory is not None and top in directory.parents:
        yield directory
        directory = directory.parent
