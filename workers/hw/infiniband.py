"""RDMA devices as the kernel shows them: adapters, their ports, nodes and network interfaces. Reads sysfs only.

Reading a port's attributes asks the adapter's firmware and can block as long as that takes (60 s with mlx5).
"""

import errno
import re
from dataclasses import dataclass
from pathlib import Path

from devd.ipc.messages import Node
from devd.workers.hw import attributes, nodes, survey

CLASS = "sys/class/infiniband"
_NUMBER = re.compile(r"[0-9]+")
_ZERO_GUID = re.compile(r"[0:]*")
_NUMBERED_WORD = re.compile(r"([0-9]+): *(.+)")
_INTERFACE = re.compile(r"(?!\.{1,2}$)[^/:\s\0]{1,15}")
"""What the kernel allows as an interface's name: it becomes part of a path here."""
_NOTHING_THERE = (errno.EINVAL, errno.ENODEV)
"""An empty entry of a GID table, a counter of a port without performance management."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """One RDMA device. ``address`` is its PCI address, "" for a software device; ``guid`` is "" where it is zero."""

    name: str
    directory: Path
    guid: str
    address: str
    driver: str
    ports: tuple[int, ...]
    numa_node: int | None


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


def interface(directory: Path, port: int) -> str:
    """Return the network interface of an Ethernet port, "" if there is none in this network namespace.

    The interface of a port that a pod has got stands in the pod's namespace: no interface is no fault.
    """
    table = port_directory(directory, port) / "gid_attrs" / "ndevs"
    for name in attributes.numbered(table, _NUMBER):
        found = attributes.text(table / name, absent=_NOTHING_THERE) or ""
        if _INTERFACE.fullmatch(found):
            return found
    parent = attributes.text(directory / "parent", absent=_NOTHING_THERE) or ""
    return parent if _INTERFACE.fullmatch(parent) else ""


def interfaces(directory: Path, ports: tuple[int, ...]) -> tuple[str, ...]:
    """Return every network interface of an adapter's function and of these ports. Raises OSError."""
    found = [interface(directory, port) for port in ports]
    return tuple(dict.fromkeys([*filter(None, found), *attributes.names(directory / "device" / "net")]))


def char_nodes(root: Path, name: str) -> dict[str, tuple[Node, ...]]:
    """Return an adapter's nodes by kind: uverbs, umad (one a port), rdma_cm (one for all adapters). Raises OSError."""
    return {
        "uverbs": _of_class(root, "infiniband_verbs", "uverbs", name),
        "umad": _of_class(root, "infiniband_mad", "umad", name),
        "rdma_cm": nodes.of_directory(root / "sys/class/misc/rdma_cm", "/dev/infiniband/rdma_cm", "char"),
    }


def virtual_functions(pci: Path) -> tuple[str, ...]:
    """Return the PCI addresses of a physical function's enabled virtual ones. Raises OSError."""
    if not attributes.whole(pci / "sriov_numvfs"):
        return ()
    links = attributes.numbered(pci, re.compile(r"virtfn[0-9]+"))
    return tuple(attributes.target(pci / link) for link in links) or ("not named by the kernel",)


def _adapter(directory: Path) -> Adapter:
    guid = attributes.text(directory / "node_guid") or ""
    pci = directory / "device"
    return Adapter(
        name=directory.name,
        directory=directory,
        guid="" if _ZERO_GUID.fullmatch(guid) else guid,
        address=attributes.target(pci),
        driver=attributes.target(pci / "driver"),
        ports=tuple(int(port) for port in attributes.numbered(directory / "ports", _NUMBER)),
        numa_node=attributes.numa_node(pci),
    )


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
