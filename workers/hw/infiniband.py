"""RDMA devices as the kernel shows them: adapters, their ports, nodes and network interfaces. Reads sysfs only.

Reading a port's attributes asks the adapter's firmware and can block as long as that takes (60 s with mlx5).
"""

import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from devd.ipc.messages import Node
from devd.workers.hw import attributes, nodes, pci, survey

CLASS = "sys/class/infiniband"
_NUMBER = re.compile(r"[0-9]+")
_ZERO_GUID = re.compile(r"[0:]*")
_NUMBERED_WORD = re.compile(r"([0-9]+): *(.+)")
_INTERFACE = re.compile(r"(?!\.{1,2}$)[^/:\s\0]{1,15}")
"""What the kernel allows as an interface's name: it becomes part of a path here."""
_LOWER = "lower_"
"""How sysfs calls the links from an interface to those it is stacked upon."""
MAX_STACKED = 3
"""A VLAN upon a bond upon the port's own; more levels are not followed."""
_NOTHING_THERE = (errno.EINVAL, errno.ENODEV)
"""An empty entry of a GID table, a counter of a port without performance management."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """One RDMA device. ``guid`` is "" where it is zero.

    ``address`` is the PCI address of the function it is or is a part of (mlx5's sub-functions), ``devlink`` the handle
    by which devlink knows it; both are "" for a software device.
    """

    name: str
    directory: Path
    guid: str
    address: str
    devlink: str
    driver: str
    ports: tuple[int, ...]
    numa_node: int | None

    @property
    def place(self) -> str:
        """Return where it is: its function's address, with its own part of it if it is no whole one."""
        kind, _slash, part = self.devlink.partition("/")
        return self.address + (f"-{part}" if kind != "pci" else "") if self.address else self.name


@dataclass(frozen=True, slots=True)
class PortState:
    """A port's logical state and the link's, as numbers with the kernel's words; 0 is what makes no sense."""

    state: int
    state_word: str
    link: int
    link_word: str


DOWN, INIT, ARMED, ACTIVE, ACTIVE_DEFER = 1, 2, 3, 4, 5
"""Logical states of a port, InfiniBand Architecture Specification, PortState."""
LINK_UP = 5
"""The physical state LinkUp."""


def adapters(root: Path) -> list[Adapter]:
    """Return all RDMA devices, sorted by name. Raises OSError."""
    base = root / CLASS
    return survey.each(attributes.names(base), lambda name: _adapter(base / name))


def port_directory(directory: Path, port: int) -> Path:
    """Return where a port's attributes are."""
    return directory / "ports" / str(port)


def port_state(directory: Path, port: int) -> PortState | None:
    """Return a port's states, None when the port is gone. Raises OSError."""
    where = port_directory(directory, port)
    state, link = attributes.text(where / "state"), attributes.text(where / "phys_state")
    if state is None:
        return None
    return PortState(*_numbered(state), *_numbered(link or ""))


def link_layer(directory: Path, port: int) -> str:
    """Return "InfiniBand" or "Ethernet", "" if the kernel does not say. Raises OSError."""
    return attributes.text(port_directory(directory, port) / "link_layer") or ""


def counter(directory: Path, port: int, name: str) -> int | None:
    """Return one of a port's counters, None if it is not offered ("N/A (no PMA)"). Raises OSError."""
    path = port_directory(directory, port) / "counters" / name
    return attributes.number(attributes.text(path, absent=_NOTHING_THERE))


def interface(root: Path, directory: Path, port: int) -> str:
    """Return the network interface of an Ethernet port, "" if there is none in this network namespace.

    The interface of a port that a pod has got stands in the pod's namespace: no interface is no fault. The kernel
    tells its name all the same, which may be another interface's here: only one of the adapter's own function, or one
    stacked upon such, is taken. Raises OSError.
    """
    return next((name for name in _named(directory, port) if is_its_own(root, directory, name)), "")


def is_its_own(root: Path, directory: Path, name: str, *, stacked: int = MAX_STACKED) -> bool:
    """Return whether the interface that has this name here is the adapter's. Raises OSError.

    It is when it stands below the adapter's function; or, ``stacked`` levels high, upon one that does (a bond, a VLAN).
    A software device has no function of its own: the interface it was made for is known by its name alone.
    """
    at = root / "sys/class/net" / name
    device = directory / "device"
    if not device.exists():
        return at.exists()
    if (device / "net" / name).exists():
        return True
    lower = [one.removeprefix(_LOWER) for one in attributes.names(at) if one.startswith(_LOWER)] if stacked else []
    return any(is_its_own(root, directory, one, stacked=stacked - 1) for one in lower)


def lent(root: Path, directory: Path, port: int) -> bool:
    """Return whether a port's interface is not here: a pod may have it. Raises OSError.

    An InfiniBand port need not have one; an Ethernet port has, wherever it is.
    """
    if not (directory / "device").exists() or interface(root, directory, port):
        return False
    return link_layer(directory, port) == "Ethernet" or next(_named(directory, port), "") != ""


def interfaces(root: Path, directory: Path, ports: tuple[int, ...]) -> tuple[str, ...]:
    """Return every network interface of an adapter's function and of these ports. Raises OSError."""
    found = [interface(root, directory, port) for port in ports]
    return tuple(dict.fromkeys([*filter(None, found), *attributes.names(directory / "device" / "net")]))


def char_nodes(root: Path, name: str) -> dict[str, tuple[Node, ...]]:
    """Return an adapter's nodes by kind: uverbs, umad (one a port), rdma_cm (one for all adapters). Raises OSError."""
    return {
        "uverbs": _of_class(root, "infiniband_verbs", "uverbs", name),
        "umad": _of_class(root, "infiniband_mad", "umad", name),
        "rdma_cm": nodes.of_directory(root / "sys/class/misc/rdma_cm", "/dev/infiniband/rdma_cm", "char"),
    }


def virtual_functions(function: Path) -> tuple[str, ...]:
    """Return the PCI addresses of a physical function's enabled virtual ones. Raises OSError."""
    if not attributes.whole(function / "sriov_numvfs"):
        return ()
    links = attributes.numbered(function, re.compile(r"virtfn[0-9]+"))
    return tuple(attributes.target(function / link) for link in links) or ("not named by the kernel",)


def _named(directory: Path, port: int) -> Iterator[str]:
    """Yield the names that the kernel has for a port's interfaces, in whatever network namespace they are."""
    table = port_directory(directory, port) / "gid_attrs" / "ndevs"
    for name in attributes.numbered(table, _NUMBER):
        found = attributes.text(table / name, absent=_NOTHING_THERE) or ""
        if _INTERFACE.fullmatch(found):
            yield found
    parent = attributes.text(directory / "parent", absent=_NOTHING_THERE) or ""
    if _INTERFACE.fullmatch(parent):
        yield parent


def _adapter(directory: Path) -> Adapter:
    guid = attributes.text(directory / "node_guid") or ""
    device = directory / "device"
    address = pci.address_of(device) if device.exists() else ""
    parent = attributes.target(device)
    return Adapter(
        name=directory.name,
        directory=directory,
        guid="" if _ZERO_GUID.fullmatch(guid) else guid,
        address=address,
        devlink=_devlink(address, parent),
        driver=attributes.target(device / "driver"),
        ports=tuple(int(port) for port in attributes.numbered(directory / "ports", _NUMBER)),
        numa_node=attributes.numa_node(pci.directory_of(device)),
    )


def _devlink(address: str, parent: str) -> str:
    """Return by which handle devlink knows an adapter: its function's, or its own as a part of one."""
    if not address:
        return ""
    return f"pci/{address}" if parent == address else f"auxiliary/{parent}"


def _of_class(root: Path, of_class: str, prefix: str, adapter: str) -> tuple[Node, ...]:
    base = root / "sys/class" / of_class
    found: list[Node] = []
    for name in attributes.numbered(base, re.compile(prefix + "[0-9]+")):
        if attributes.text(base / name / "ibdev") == adapter:
            found.extend(nodes.of_directory(base / name, f"/dev/infiniband/{name}", "char"))
    return tuple(found)


def _numbered(found: str) -> tuple[int, str]:
    """Return ("4: ACTIVE") as number and word; 0 and the text itself for anything else."""
    match = _NUMBERED_WORD.fullmatch(found)
    value = attributes.number(match[1]) if match else None
    return (value, match[2]) if match and value is not None else (0, found)
