"""PCI functions as the kernel shows them: who they are, where they sit, what goes with them. Nothing is asked of them.

Everything here is what the kernel remembers: it stays right when the hardware is dead, and reading it wakes nothing.
What is read from the hardware itself is in ``pci_state``.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from devd.workers.hw import attributes, survey

DEVICES = "sys/bus/pci/devices"
GROUPS = "sys/kernel/iommu_groups"
ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
"""Domain, bus, device, function; a domain has more than four digits behind some storage controllers (VMD)."""
BRIDGE_CLASS = "06"
"""Base class of bridges, the root ports and switches among them."""
_ROOT = re.compile(r"pci([0-9a-f]{4,8}:[0-9a-f]{2})")
_PLAIN_BRIDGES = 2
"""A root port and a bridge without a port of its own for each function; behind a switch there are more."""
_VIRTUAL = re.compile(r"virtfn[0-9]+")
_ID_DIGITS = 4
_CLASS_DIGITS = 6
_REVISION_DIGITS = 2


@dataclass(frozen=True, slots=True)
class Function:
    """One function. ``vendor``, ``device`` and ``class_code`` are hexadecimal without 0x ("8086", "15b8", "020000").

    ``path_name`` says where it is plugged in: the root bus and the device and function numbers on the way, without
    the bus numbers in between, which change when a card with a bridge is added. ``physfn`` is the address of a
    virtual function's physical one.
    """

    address: str
    directory: Path
    vendor: str
    device: str
    subsystem: str
    class_code: str
    revision: str
    driver: str
    iommu_group: str
    physfn: str
    path_name: str
    numa_node: int | None

    @property
    def is_bridge(self) -> bool:
        """Return whether this is a bridge of any kind."""
        return self.class_code.startswith(BRIDGE_CLASS)


def functions(root: Path) -> list[Function]:
    """Return all functions by address; one that vanishes meanwhile is left out. Raises OSError."""
    addresses = [one for one in attributes.names(root / DEVICES) if ADDRESS.fullmatch(one)]
    return survey.each(addresses, lambda address: function(root, address))


def function(root: Path, address: str) -> Function | None:
    """Return one function, None if there is none (any more). Raises OSError."""
    directory = root / DEVICES / address
    vendor, device = _hex(directory, "vendor"), _hex(directory, "device")
    if not vendor or not device:
        return None
    physfn = attributes.target(directory / "physfn")
    subsystem = f"{_hex_or_not(directory, 'subsystem_vendor')}:{_hex_or_not(directory, 'subsystem_device')}"
    return Function(
        address=address,
        directory=directory,
        vendor=vendor,
        device=device,
        subsystem="" if subsystem == ":" else subsystem,
        class_code=_hex(directory, "class", _CLASS_DIGITS),
        revision=_hex_or_not(directory, "revision", _REVISION_DIGITS),
        driver=attributes.target(directory / "driver"),
        iommu_group=attributes.target(directory / "iommu_group"),
        physfn=physfn,
        path_name=_virtual_name(root, physfn, address) if physfn else path_name(directory),
        numa_node=attributes.numa_node(directory),
    )


def path_name(directory: Path) -> str:
    """Return where a function is plugged in, "0000:00-1c.4-00.0"; its address if the path in sysfs tells nothing."""
    parts = directory.resolve().parts
    roots = [match[1] for part in parts if (match := _ROOT.fullmatch(part))]
    steps = [part.rpartition(":")[2] for part in parts if ADDRESS.fullmatch(part)]
    return "-".join((roots[0], *steps)) if roots and steps else directory.name


def directory_of(device: Path) -> Path:
    """Return the directory of the function that a device is or is a part of; its own where that is none."""
    real = device.resolve()
    return next((one for one in (real, *real.parents) if ADDRESS.fullmatch(one.name)), real)


def address_of(device: Path) -> str:
    """Return the address of the function that a device is or is a part of, "" for what hangs on no PCI bus."""
    name = directory_of(device).name
    return name if ADDRESS.fullmatch(name) else ""


def upstream(root: Path, address: str) -> list[str]:
    """Return the bridges above a function, the nearest first, the root port last."""
    parts = (root / DEVICES / address).resolve().parts
    return [part for part in parts[:-1] if ADDRESS.fullmatch(part)][::-1]


def switch(directory: Path) -> str:
    """Return what joins a function, or anything below one, with its neighbours; "" for what hangs on no PCI bus.

    It is the upper end of the switch above it ("0000:17:00.0"), or the root complex ("pci0000:16") where no more than
    a root port is between.
    """
    parts = directory.resolve().parts
    functions = [part for part in parts if ADDRESS.fullmatch(part)]
    if not functions:
        return ""
    bridges = functions[:-1][::-1]
    if len(bridges) > _PLAIN_BRIDGES:
        return bridges[1]  # the nearest is the switch's own port for this function alone
    if len(bridges) == _PLAIN_BRIDGES:
        return bridges[0]
    return next((part for part in parts if _ROOT.fullmatch(part)), "")


def below(root: Path, address: str) -> list[str]:
    """Return the functions behind a bridge, at any depth; none for anything else. Raises OSError."""
    found = [one for one in attributes.names(root / DEVICES) if ADDRESS.fullmatch(one) and one != address]
    return [one for one in found if address in upstream(root, one)]


def same_bus(root: Path, address: str) -> list[str]:
    """Return the other functions that a reset of this one's bus takes along, what is behind them too. Raises OSError.

    On a root bus nothing is above that could reset it: none.
    """
    bridges = upstream(root, address)
    return [one for one in below(root, bridges[0]) if one != address] if bridges else []


def virtual_functions(root: Path, address: str) -> list[str]:
    """Return the addresses of a physical function's virtual ones. Raises OSError."""
    directory = root / DEVICES / address
    links = attributes.numbered(directory, _VIRTUAL)
    return [target for link in links if (target := attributes.target(directory / link))]


def group_members(root: Path, group: str) -> list[str]:
    """Return the addresses of all functions in an IOMMU group. Raises OSError."""
    return [one for one in attributes.names(root / GROUPS / group / "devices") if ADDRESS.fullmatch(one)]


def _virtual_name(root: Path, physfn: str, address: str) -> str:
    """Return a virtual function's place: its physical one's, and its number there."""
    directory = root / DEVICES / physfn
    for link in attributes.numbered(directory, _VIRTUAL):
        if attributes.target(directory / link) == address:
            return f"{path_name(directory)}-vf{link.removeprefix('virtfn')}"
    return path_name(root / DEVICES / address)


def _hex(directory: Path, name: str, digits: int = _ID_DIGITS) -> str:
    """Return an attribute like 0x8086 without its 0x, "" for anything else. Raises OSError."""
    return _plain(attributes.text(directory / name) or "", digits)


def _hex_or_not(directory: Path, name: str, digits: int = _ID_DIGITS) -> str:
    """Return the same of an attribute that a function can do without."""
    return _plain(attributes.optional(directory / name), digits)


def _plain(found: str, digits: int) -> str:
    return found[2:] if re.fullmatch(f"0x[0-9a-f]{{{digits}}}", found) else ""
