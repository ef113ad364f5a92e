"""RDMA worlds for the drivers' tests: adapters with a port, their nodes and interfaces, as sysfs has them."""

from collections.abc import Mapping
from pathlib import Path

from tests.unit.workers.drivers.tree import Content, grow, link

GUID = "0002:c903:00ab:cdef"
PCI = "0000:05:00.0"
COUNTERS = (
    "symbol_error",
    "link_error_recovery",
    "link_downed",
    "port_rcv_errors",
    "local_link_integrity_errors",
    "excessive_buffer_overrun_errors",
    "port_xmit_discards",
)


def adapter(
    root: Path,
    name: str = "mlx5_0",
    *,
    number: int = 0,
    address: str = PCI,
    guid: str = GUID,
    layer: str = "InfiniBand",
    interface: str = "",
    part: str = "",
    port: Mapping[str, Content] | None = None,
) -> Path:
    """Grow one adapter with one port, its nodes and, for Ethernet, its interface; return the adapter's directory.

    ``part`` is the auxiliary device that it is, where it is no whole function ("mlx5_core.sf.4").
    """
    function = f"sys/devices/pci0000:00/{address}"
    pci = f"{function}/{part}" if part else function
    netdev_name = interface or f"eth{number}"
    real = f"{pci}/infiniband/{name}"
    attributes: dict[str, Content] = {
        "state": "4: ACTIVE",
        "phys_state": "5: LinkUp",
        "link_layer": layer,
        **{f"counters/{one}": "0" for one in COUNTERS},
        **(port or {}),
    }
    files: dict[str, Content] = {
        f"{function}/numa_node": "0",
        f"{function}/sriov_numvfs": "0",
        f"{function}/reset_method": "flr bus",
        f"{function}/reset": "",
        f"{real}/node_guid": guid,
        f"{real}/fw_ver": "20.1",
        f"{real}/hca_type": "MT4123",
        **{f"{real}/ports/1/{key}": content for key, content in attributes.items()},
        f"sys/class/infiniband_verbs/uverbs{number}/ibdev": name,
        f"sys/class/infiniband_verbs/uverbs{number}/dev": "1:3",
        f"sys/class/infiniband_mad/umad{number}/ibdev": name,
        f"sys/class/infiniband_mad/umad{number}/dev": "1:3",
        "sys/class/misc/rdma_cm/dev": "1:3",
        f"dev/infiniband/uverbs{number}": "-> /dev/null",
        f"dev/infiniband/umad{number}": "-> /dev/null",
        "dev/infiniband/rdma_cm": "-> /dev/null",
        "proc/sys/kernel/random/boot_id": "boot-1",
    }
    if layer == "Ethernet":
        netdev = f"{pci}/net/{netdev_name}"
        files |= {
            f"{real}/ports/1/gid_attrs/ndevs/0": netdev_name,
            f"{netdev}/carrier": "1",
            f"{netdev}/carrier_down_count": "3",
        }
        if not (root / f"sys/class/net/{netdev_name}").is_symlink():
            link(root, f"sys/class/net/{netdev_name}", netdev)
    grow(root, files)
    link(root, f"{real}/device", pci)
    if not (root / f"sys/bus/pci/devices/{address}").is_symlink():
        link(root, f"sys/bus/pci/devices/{address}", function)
    link(root, f"sys/class/infiniband/{name}", real)
    return root / real
