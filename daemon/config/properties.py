"""The properties that devices of each driver may have: names for templates.

A device has those of them that its hardware tells; a test compares the names with what the drivers give.
"""

from collections.abc import Mapping
from types import MappingProxyType

_KERNEL = {"sysfs": "its directory in sysfs", "subsystem": "the kernel's subsystem"}
_DRIVER = {"driver": "the kernel's driver"}
_PCI = {"address": "the PCI address", "pcie_switch": "the PCIe switch or root complex above it"}
_FUNCTION = {
    "path": "the way through the bridges",
    "vendor": "the vendor's id",
    "device": "the device's id",
    "subsystem_id": "the subsystem's vendor and device",
    "class": "the class code",
    "revision": "the revision",
    "iommu_group": "the IOMMU group",
    "physfn": "of a virtual function: the physical one's address",
}
CDI: Mapping[str, str] = MappingProxyType({"cdi": "the name by which a runtime gives it, see [cdi.md](cdi.md)"})
"""What a device of any driver may have."""

PROPERTIES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "infiniband": {
            **_KERNEL,
            **_DRIVER,
            **_PCI,
            "name": "the kernel's name",
            "node_guid": "the node's GUID",
            "hca_type": "the adapter's type",
            "board_id": "the board's id",
            "firmware": "the firmware's version",
            "link_layer": "`InfiniBand` or `Ethernet`",
            "netdev": "its network interfaces, joined by commas",
            "physfn": "of a virtual function: the physical one's address",
        },
        "node": {**_KERNEL, **_DRIVER, **_PCI},
        "nvidia": {
            **_KERNEL,
            **_DRIVER,
            **_PCI,
            "driver_version": "the loaded driver's version",
            "name": "the node's name",
            "minor": "the number in the node's name",
            "model": "the model",
            "uuid": "the UUID",
            "instance": "of a MIG device: its instances",
        },
        "nvme": {
            **_KERNEL,
            **_PCI,
            "name": "the kernel's name",
            "model": "the model",
            "serial": "the controller's serial number",
            "firmware": "the firmware's revision",
            "transport": "the transport",
            "subsysnqn": "the subsystem's name",
            "wwid": "the disk's own id",
            "nsid": "the namespace's number",
        },
        "pci": {**_KERNEL, **_DRIVER, **_PCI, **_FUNCTION},
        "sim": {},
        "usb": {
            **_KERNEL,
            "name": "the kernel's name",
            "vendor": "the vendor's id",
            "product": "the product's id",
            "serial": "the serial number",
            "port": "where it is plugged in",
            "class": "the device class",
            "interfaces": "the classes of its interfaces, joined by commas",
            "manufacturer": "what it calls its maker",
            "product_name": "what it calls itself",
            "speed": "the speed",
        },
        "vfio": {
            **_KERNEL,
            **_DRIVER,
            **_PCI,
            **_FUNCTION,
            "addresses": "the PCI addresses of all functions of the group, joined by commas",
        },
    }
)
"""Driver -> property -> what it is. A third party's driver is not here: its properties are its own."""
