"""VFIO as the kernel shows it: IOMMU groups, their nodes, and who keeps a group from being handed over.

Only ``group_flags`` opens anything.
"""

import errno
import fcntl
import os
import struct
from pathlib import Path

from devd.ipc.messages import Node
from devd.workers.hw import attributes, nodes, pci

VFIO_GROUP_GET_STATUS = 0x3B67
"""_IO(';', 103) of linux/vfio.h."""
FLAG_VIABLE = 0x1
_STATUS = struct.Struct("=II")
"""struct vfio_group_status: its own size, the flags."""
_STUBS = ("pci-stub", "pcieport")
"""Drivers that never do DMA of their own: the kernel lets a group be handed over beside them."""
_PCI_BRIDGE = "0604"


def takes(driver: str) -> bool:
    """Return whether a driver is VFIO's own or one of its vendors' variants (mlx5_vfio_pci)."""
    return "vfio" in driver


def group_node(root: Path, group: str) -> tuple[Node, ...]:
    """Return a group's node, none if VFIO has none for it. Raises OSError."""
    return nodes.of_directory(root / "sys/class/vfio" / group, f"/dev/vfio/{group}", "char")


def has_no_iommu(root: Path, group: str) -> bool:
    """Return whether a group is VFIO's make-believe for a machine without an IOMMU: nothing is isolated there."""
    return attributes.text(root / pci.GROUPS / group / "name") == "vfio-noiommu" or bool(
        group_node(root, f"noiommu-{group}")
    )


def container_node(root: Path) -> tuple[Node, ...]:
    """Return the node that groups are joined by, which all of them share. Raises OSError."""
    return nodes.of_directory(root / "sys/class/misc/vfio", "/dev/vfio/vfio", "char")


def iommu_node(root: Path) -> tuple[Node, ...]:
    """Return iommufd's node, which all devices share. Raises OSError."""
    return nodes.of_directory(root / "sys/class/misc/iommu", "/dev/iommu", "char")


def device_nodes(directory: Path) -> tuple[Node, ...]:
    """Return a function's own node for iommufd, none on older kernels. Raises OSError."""
    found: list[Node] = []
    for name in attributes.names(directory / "vfio-dev"):
        found.extend(nodes.of_directory(directory / "vfio-dev" / name, f"/dev/vfio/devices/{name}", "char"))
    return tuple(found)


def blockers(root: Path, group: str) -> list[str]:
    """Return the members whose drivers keep a group from being handed over, in words. Raises OSError."""
    found = []
    base = root / pci.GROUPS / group / "devices"
    for name in attributes.names(base):
        driver = attributes.target(base / name / "driver")
        one = pci.function(root, name) if pci.ADDRESS.fullmatch(name) else None
        is_bridge = one is not None and one.class_code.startswith(_PCI_BRIDGE)
        if driver and not takes(driver) and driver not in _STUBS and not is_bridge:
            found.append(f"{name} is bound to {driver}")
    return found


def group_flags(path: Path) -> int | None:
    """Return a group's status flags, None while somebody has it: it opens once at a time. Raises OSError."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.EBUSY:
            return None
        raise
    try:
        answer = fcntl.ioctl(fd, VFIO_GROUP_GET_STATUS, _STATUS.pack(_STATUS.size, 0))
    finally:
        os.close(fd)
    _size, flags = _STATUS.unpack(answer)
    return int(flags)
