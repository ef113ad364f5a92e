"""USB devices as the kernel shows them: who they are and which port they are plugged into. Nothing is opened."""

import re
from dataclasses import dataclass
from pathlib import Path

from devd.ipc.messages import Node
from devd.workers.hw import attributes, nodes, pci, survey

DEVICES = "sys/bus/usb/devices"
NAME = re.compile(r"[0-9]+-[0-9]+(?:\.[0-9]+)*")
"""Bus and ports on the way ("1-4.2"); root hubs ("usb1") and interfaces ("1-4.2:1.0") are named otherwise."""
HUB_CLASS = "09"
_ID = re.compile(r"[0-9a-f]{4}")
_CLASS = re.compile(r"[0-9a-f]{2}")
_INTERFACE = re.compile(rf"{NAME.pattern}:[0-9]+\.[0-9]+")
_ROOT_HUB = re.compile(r"usb[0-9]+")
_VERSION = re.compile(r"([0-9]{1,2})\.[0-9]{2}")


@dataclass(frozen=True, slots=True)
class UsbDevice:
    """One device. ``name`` is the kernel's ("1-4.2"), ``vendor`` and ``product`` are hexadecimal.

    ``port`` says where it is plugged in and outlives a reboot: the host controller's own place, the USB version of
    the bus (one socket has a USB 2 and a USB 3 port), and the ports on the way. ``node`` is the raw device's, which
    has another number after each replug. ``interface_classes`` are those of its interfaces ("03", "08"), each once: a
    device says there what it is for, not in ``device_class``. None while it is not configured.
    """

    name: str
    directory: Path
    vendor: str
    product: str
    serial: str
    manufacturer: str
    product_name: str
    device_class: str
    interface_classes: tuple[str, ...]
    speed_mbps: str
    port: str
    node: tuple[Node, ...]
    numa_node: int | None

    @property
    def ids(self) -> str:
        """Return "vendor:product"."""
        return f"{self.vendor}:{self.product}"


def devices(root: Path) -> list[UsbDevice]:
    """Return all devices but root hubs; one that vanishes meanwhile is left out. Raises OSError."""
    names = [one for one in attributes.names(root / DEVICES) if NAME.fullmatch(one)]
    return survey.each(names, lambda name: device(root, name))


def device(root: Path, name: str) -> UsbDevice | None:
    """Return one device, None if there is none (any more). Raises OSError."""
    directory = root / DEVICES / name

    def text(attribute: str) -> str:
        return attributes.text(directory / attribute) or ""

    vendor, product = text("idVendor"), text("idProduct")
    if not _ID.fullmatch(vendor) or not _ID.fullmatch(product):
        return None
    return UsbDevice(
        name=name,
        directory=directory,
        vendor=vendor,
        product=product,
        serial=text("serial"),
        manufacturer=attributes.optional(directory / "manufacturer"),
        product_name=attributes.optional(directory / "product"),
        device_class=found if _CLASS.fullmatch(found := text("bDeviceClass")) else "",
        interface_classes=_interface_classes(directory),
        speed_mbps=attributes.optional(directory / "speed"),
        port=port(directory),
        node=_node(directory),
        numa_node=_numa_node(directory),
    )


def port(directory: Path) -> str:
    """Return where a device is plugged in, "0000:00-14.0-usb2-4.2"; its name if the path in sysfs tells nothing."""
    real = directory.resolve()
    hub = next((one for one in real.parents if _ROOT_HUB.fullmatch(one.name)), None)
    if hub is None:
        return directory.name
    version = _VERSION.fullmatch(attributes.text(hub / "version") or "")
    controller = pci.path_name(hub.parent)  # a controller on no PCI bus has a name of its own
    return f"{controller}-usb{version[1] if version else ''}-{real.name.partition('-')[2]}"


def port_directory(root: Path, name: str) -> Path | None:
    """Return the directory of the hub's port that a device is plugged into, None if the kernel shows none."""
    link = root / DEVICES / name / "port"
    return link if link.exists() else None


def below(root: Path, name: str) -> list[str]:
    """Return the devices plugged into a hub, at any depth; none for anything else. Raises OSError."""
    return [one for one in attributes.names(root / DEVICES) if NAME.fullmatch(one) and one.startswith(f"{name}.")]


def bus_directory(name: str) -> str:
    """Return where the raw nodes of a device's bus lie, whatever number it has now: its name begins with the bus's."""
    return f"/dev/bus/usb/{int(name.partition('-')[0]):03d}"


def _node(directory: Path) -> tuple[Node, ...]:
    """Return the raw device's node, which is named by bus and number with three digits each."""
    bus, number = attributes.whole(directory / "busnum"), attributes.whole(directory / "devnum")
    if bus is None or number is None:
        return ()
    return nodes.of_directory(directory, f"/dev/bus/usb/{bus:03d}/{number:03d}", "char")


def _interface_classes(directory: Path) -> tuple[str, ...]:
    """Return the classes of a device's interfaces, which are directories of their own below its. Raises OSError."""
    interfaces = [directory / one for one in attributes.names(directory) if _INTERFACE.fullmatch(one)]
    found = {attributes.text(one / "bInterfaceClass") or "" for one in interfaces}
    return tuple(sorted(one for one in found if _CLASS.fullmatch(one)))


def _numa_node(directory: Path) -> int | None:
    """Return the NUMA node of the host controller."""
    for one in directory.resolve().parents:
        if _ROOT_HUB.fullmatch(one.name):
            return attributes.numa_node(one.parent)
    return None
