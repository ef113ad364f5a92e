"""What a reset of PCI functions takes along, and who is in the way of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from devd.workers.errors import ResetError
from devd.workers.hw import attributes, holders, pci, subtree

OWN_METHODS = ("device_specific", "acpi", "flr", "af_flr", "pm")
"""Ways of the kernel to reset one function alone (drivers/pci/pci.c, pci_reset_fn_methods); others reset the bus.

``pm`` is one of them: it takes that function's own power state from D0 to D3hot and back.
"""
NETWORK_CLASS = "02"
"""Base class of network controllers."""
_REGION_PREFIX = "resource"


@dataclass(frozen=True, slots=True)
class Reach:
    """The addresses of all functions that go along, those that are meant first."""

    root: Path
    addresses: tuple[str, ...]

    def refuse_if_used(self) -> None:
        """Raise ResetError naming everyone who uses any of the functions. Raises OSError."""
        directories = [self.root / pci.DEVICES / one for one in self.addresses]
        found = [why for one in self.addresses for why in (*_virtual(self.root, one), *_unseen(self.root, one))]
        paths = [path for one in self.addresses for path in _paths(self.root, one)]
        there = [one for one in directories if one.exists()]
        found.extend(subtree.users(self.root, there, [*self.addresses, *paths]).found)
        if found:
            words = holders.Users(tuple(dict.fromkeys(found))).words()
            raise ResetError(f"refused, {', '.join(self.addresses)} would be reset: {words}")


def of_functions(root: Path, addresses: Sequence[str]) -> Reach:
    """Return what goes along when each function is reset by itself: its virtual functions. Raises OSError."""
    return _reach(root, [(one, *pci.virtual_functions(root, one)) for one in addresses])


def of_removal(root: Path, addresses: Sequence[str]) -> Reach:
    """Return what goes along when functions are removed or unbound: virtual ones, what is behind a bridge too."""
    return _reach(root, [(one, *pci.virtual_functions(root, one), *pci.below(root, one)) for one in addresses])


def of_bus(root: Path, addresses: Sequence[str]) -> Reach:
    """Return what goes along when the bus of the functions is reset: everything behind the bridge. Raises OSError."""
    parts = [(one, *pci.virtual_functions(root, one)) for one in addresses]
    parts.extend(tuple(pci.same_bus(root, one)) for one in addresses)
    return _reach(root, parts)


def _reach(root: Path, parts: Sequence[Sequence[str]]) -> Reach:
    first = [part[0] for part in parts if part]
    rest = [one for part in parts for one in part[1:]]
    return Reach(root, tuple(dict.fromkeys((*first, *rest))))


def _paths(root: Path, address: str) -> list[str]:
    """Return the files outside the function's own nodes by which a process can have it: VFIO's, mapped regions."""
    directory = root / pci.DEVICES / address
    group = attributes.target(directory / "iommu_group")
    found = [f"/dev/vfio/{group}", f"/dev/vfio/noiommu-{group}"] if group else []
    real = attributes.below(root, directory)
    names = [one for one in attributes.names(directory) if one.startswith(_REGION_PREFIX)]
    found.extend(f"{real}/{one}" for one in names)
    found.extend(f"/dev/vfio/devices/{one}" for one in attributes.names(directory / "vfio-dev"))
    return found


def _virtual(root: Path, address: str) -> list[str]:
    """Return the virtual functions of one: used or not, they would be lost, and a pod may have been promised one."""
    return [f"{address} has the virtual function {one}" for one in pci.virtual_functions(root, address)]


def _unseen(root: Path, address: str) -> list[str]:
    """Return why it cannot be said that nobody uses a function: its network interface may be in a pod's namespace."""
    one = pci.function(root, address)
    if one is None or not one.class_code.startswith(NETWORK_CLASS) or not one.driver:
        return []
    if "vfio" in one.driver or one.driver.startswith("uio") or subtree.interfaces(one.directory):
        return []
    return [f"{address} has no network interface here: it may be in a pod's network namespace"]
