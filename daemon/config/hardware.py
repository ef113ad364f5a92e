"""What the drivers with signals of their own can select by, check and reset: names for the configuration.

The workers carry it out; a test compares these names with theirs, for the front imports nothing of them.
"""

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from devd.daemon.config.rules import OneOrMore, choice, flag, whole
from devd.daemon.config.section import Section
from devd.daemon.config.values import PciClass, Text, UsbClass

ENTRY_POINTS = "devd.drivers"
"""Entry point group of third parties' drivers; their names alone are read here."""

Globs = Annotated[tuple[Text, ...], OneOrMore()]

_NODES = "Globs of the device nodes a container gets, as below /dev"


def _key(meaning: str) -> tuple[Text, ...]:
    found: tuple[Text, ...] = Field((), description=meaning)
    return found


class HardwareMatch(Section):
    """A selector by properties: a device is taken when each key fits (one of its globs) and nothing excludes it."""

    def plain(self) -> dict[str, object]:
        """Return the selector as plain values, without the keys that were not given."""
        return {key: value for key, value in super().plain().items() if value not in ([], {})}


class NvmeKeys(HardwareMatch):
    """NVMe disks and controllers."""

    model: Globs = _key("The model.")
    serial: Globs = _key("The controller's serial number.")
    firmware: Globs = _key("The firmware's revision.")
    address: Globs = _key("The controller's PCI address.")
    transport: Globs = _key("`pcie`, `tcp`, `rdma`, `fc`, `loop`.")
    subsysnqn: Globs = _key("The subsystem's name.")
    wwid: Globs = _key("The disk's own id.")
    name: Globs = _key("The kernel's name (`nvme0n1`); it can change with each boot.")


class NvmeMatch(NvmeKeys):
    """Driver `nvme`: disks or controllers. Globs on any key, and `exclude` with the same keys."""

    offer: Annotated[Literal["namespace", "controller"], choice("namespace", "controller")] = Field(
        "namespace", description="`namespace` offers disks, `controller` the admin nodes."
    )
    exclude: NvmeKeys = Field(NvmeKeys(), description="What is left out, by the same keys.")


class InfinibandKeys(HardwareMatch):
    """RDMA devices."""

    name: Globs = _key("The kernel's name (`mlx5_0`).")
    node_guid: Globs = _key("The node's GUID.")
    hca_type: Globs = _key("The adapter's type (`MT4129`).")
    board_id: Globs = _key("The board's id.")
    firmware: Globs = _key("The firmware's version.")
    driver: Globs = _key("The kernel's driver.")
    address: Globs = _key("The PCI address.")
    link_layer: Globs = _key("`InfiniBand` or `Ethernet`.")
    netdev: Globs = _key("Its network interfaces, joined by commas.")
    physfn: Globs = _key("Of a virtual function: the physical one's PCI address.")


class InfinibandMatch(InfinibandKeys):
    """Driver `infiniband`: RDMA devices with their bundle of nodes. Globs on any key, and `exclude` likewise."""

    ports: Annotated[tuple[Annotated[int, whole(1, 254)], ...], OneOrMore(int)] = Field(
        (), description="The ports that count; absent: all."
    )
    nodes: Annotated[
        tuple[Annotated[Literal["uverbs", "umad", "rdma_cm"], choice("uverbs", "umad", "rdma_cm")], ...], OneOrMore()
    ] = Field((), description="What a container gets of the bundle; absent: all of it.")
    exclude: InfinibandKeys = Field(InfinibandKeys(), description="What is left out, by the same keys.")


class NvidiaKeys(HardwareMatch):
    """NVIDIA GPUs and their parts."""

    model: Globs = _key("The model (`NVIDIA H200`).")
    uuid: Globs = _key("The GPU's or MIG device's UUID.")
    address: Globs = _key("The PCI address.")
    minor: Globs = _key("The number in the node's name.")
    name: Globs = _key("The node's name (`nvidia0`).")
    instance: Globs = _key("Of a MIG device: its instances (`gi1-ci0`).")


class NvidiaMatch(NvidiaKeys):
    """Driver `nvidia`: whole GPUs or MIG devices. Globs on any key, and `exclude` likewise; none given: all."""

    offer: Annotated[Literal["gpu", "mig"], choice("gpu", "mig")] = Field(
        "gpu", description="`gpu` offers GPUs that are not split, `mig` the parts of those that are."
    )
    exclude: NvidiaKeys = Field(NvidiaKeys(), description="What is left out, by the same keys.")


class PciKeys(HardwareMatch):
    """PCI functions."""

    vendor: Globs = _key("The vendor's id (`10de`).")
    device: Globs = _key("The device's id.")
    subsystem_id: Globs = _key("The subsystem's vendor and device (`10de:1234`).")
    class_: Annotated[tuple[PciClass, ...], OneOrMore()] = Field(
        (), alias="class", description="The class code, or its beginning (`0302`); without it bridges are left out."
    )
    driver: Globs = _key("The kernel's driver.")
    address: Globs = _key("The address (`0000:3b:00.0`).")
    path: Globs = _key("The way through the bridges, which no renumbering changes.")
    physfn: Globs = _key("Of a virtual function: the physical one's address.")


class PciMatch(PciKeys):
    """Driver `pci`: any PCI function. At least one key is needed; `exclude` has the same ones."""

    nodes: Globs = Field((), description=f"{_NODES} (`dri/*`); absent: none.")
    identity: Annotated[Literal["path", "address"], choice("path", "address")] = Field(
        "path", description="What a device is known by."
    )
    exclude: PciKeys = Field(PciKeys(), description="What is left out, by the same keys.")


class VfioMatch(PciKeys):
    """Driver `vfio`: IOMMU groups whose functions are bound to VFIO. Keys as for `pci`; all groups if none is given."""

    backend: Annotated[Literal["group", "cdev"], choice("group", "cdev")] = Field(
        "group", description="`group` gives /dev/vfio/GROUP and /dev/vfio/vfio, `cdev` iommufd's nodes."
    )
    noiommu: Annotated[bool, flag()] = Field(
        default=False, description="Whether groups that isolate nothing are offered as well."
    )
    exclude: PciKeys = Field(PciKeys(), description="What is left out, by the same keys.")


class UsbKeys(HardwareMatch):
    """USB devices."""

    vendor: Globs = _key("The vendor's id (`0403`).")
    product: Globs = _key("The product's id.")
    serial: Globs = _key("The serial number.")
    port: Globs = _key("Where it is plugged in: bus path and port.")
    name: Globs = _key("The kernel's name (`1-2.3`).")
    class_: Annotated[tuple[UsbClass, ...], OneOrMore()] = Field(
        (), alias="class", description="The device class (`09`); without it hubs are left out."
    )
    manufacturer: Globs = _key("What the device calls its maker.")
    product_name: Globs = _key("What the device calls itself.")


class UsbMatch(UsbKeys):
    """Driver `usb`: USB devices. At least one key is needed; `exclude` has the same ones."""

    nodes: Globs = Field((), description=f"{_NODES} (`ttyUSB*`); absent: the raw device.")
    identity: Annotated[Literal["serial", "port"], choice("serial", "port")] = Field(
        "serial", description="What a device is known by; one without a serial number by its port in any case."
    )
    exclude: UsbKeys = Field(UsbKeys(), description="What is left out, by the same keys.")


class PluginMatch(HardwareMatch):
    """A third party's driver: its keys are checked by itself, when it looks."""

    model_config = ConfigDict(extra="allow")


HARDWARE = ("infiniband", "nvidia", "nvme", "pci", "usb", "vfio")
"""Drivers with signals and resets of their own."""

_PCI_SIGNALS = (
    *("present", "identity", "node", "driver", "on-bus", "power", "link-width", "fatal-errors", "nonfatal-errors"),
    *("port-errors", "correctable-errors", "link-speed", "decode", "wake"),
)
SIGNALS: Mapping[str, tuple[str, ...]] = {
    "infiniband": (
        *("present", "identity", "node", "port-state", "subnet-manager", "link", "carrier", "flaps", "symbol-errors"),
        *("recoveries", "receive-errors", "integrity", "overruns", "discards", "firmware", "firmware-errors"),
    ),
    "nvidia": (
        *("nvml", "gpu", "identity", "node", "recovery-action", "xid", "ecc", "row-remap", "retired-pages", "mig"),
        *("slowdown", "thermal", "power-brake"),
    ),
    "nvme": (
        *("state", "identity", "node", "spare", "temperature", "reliability", "read-only", "backup", "pmr"),
        *("media-errors", "wear", "hot"),
    ),
    "pci": _PCI_SIGNALS,
    "usb": ("present", "identity", "node", "authorized", "configured", "answers", "over-current", "tty"),
    "vfio": (*(one for one in _PCI_SIGNALS if one != "decode"), "viable", "group"),
}
"""Driver -> the names its probe knows."""
METHODS: Mapping[str, tuple[str, ...]] = {
    "infiniband": ("recover", "link", "reload", "function"),
    "nvidia": ("gpu",),
    "nvme": ("controller", "subsystem"),
    "pci": ("function", "remove-rescan", "rebind"),
    "usb": ("port", "authorized"),
    "vfio": ("function",),
}
"""Driver -> the names of its resets."""
_WAYS = ("device_specific", "acpi", "flr", "af_flr", "pm", "bus", "cxl_bus")
WAYS: Mapping[str, tuple[str, ...]] = {"pci": _WAYS, "vfio": _WAYS}
"""Driver -> the ways of its method ``function`` (drivers/pci/pci.c, pci_reset_fn_methods); others have no ways."""
CURES = ("ignore", "app", "ask", "reset", "reboot", "vm", "check")
"""What an XID of an NVIDIA GPU can be taken for."""


def plugins() -> frozenset[str]:
    """Return the names of third parties' drivers that are installed."""
    return frozenset(point.name for point in entry_points(group=ENTRY_POINTS))


Switches = dict[Text, Annotated[bool, flag()]]
Cures = dict[Text, Annotated[str, choice(*CURES)]]
