"""What hangs on a device: the nodes and network interfaces below its sysfs directory, and who uses them.

A reset of a bus device takes everything below it along, whatever driver made it. Nothing is opened here but block
devices, exclusively and for reading, to see whether somebody has claimed them.
"""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from devd.ipc.messages import Node, NodeKind
from devd.workers.hw import attributes, holders

MAX_DIRECTORIES = 20_000
"""Most that is walked for one device; an adapter with 128 network queues has some 2,000."""
IFF_UP = 0x1
_SUBSYSTEMS = "sys/class/nvme-subsystem"


class TooMuchError(OSError):
    """Raised when a device has more below it than can be looked through."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One device with a node somewhere below a directory. ``name`` is the node's below /dev ("dri/card0")."""

    name: str
    subsystem: str
    directory: Path
    node: Node


def own_leaves(directory: Path, other: re.Pattern[str]) -> list[Leaf]:
    """Return the leaves that are not those of another device further down. Raises OSError.

    ``other`` fits the directory names of devices of the same bus: a hub's own leaves are not its devices'.
    """
    top = directory.resolve()
    return [
        leaf
        for leaf in leaves(directory)
        if not any(other.fullmatch(part) for part in leaf.directory.relative_to(top).parts)
    ]


def leaves(directory: Path) -> list[Leaf]:
    """Return what has a device node below a sysfs directory, sorted by the nodes' names. Raises OSError."""
    found = []
    for one in _walk(directory):
        numbers = attributes.device_number(one)
        if numbers is not None:
            name = _dev_name(one)
            subsystem = attributes.target(one / "subsystem")
            kind: NodeKind = "block" if subsystem == "block" else "char"
            found.append(Leaf(name, subsystem, one, Node(f"/dev/{name}", kind, *numbers)))
    return sorted(found, key=lambda leaf: leaf.name)


def interfaces(directory: Path) -> list[Path]:
    """Return the directories of the network interfaces below; those in other namespaces are not shown. Raises OSError.

    An interface stands in a directory ``net`` of its parent device.
    """
    return [one for one in _walk(directory) if one.parent.name == "net" and (one / "ifindex").exists()]


def users(root: Path, directories: Sequence[Path], paths: Sequence[str] = ()) -> holders.Users:
    """Return who uses anything below these directories, or has one of ``paths`` open. Raises OSError.

    Counted are: processes with a node open, what the kernel does with a block device (mounts, swap, stacked devices,
    exclusive claims), and network interfaces that are up.
    """
    found: list[str] = []
    opened = list(paths)
    for directory in directories:
        for leaf in leaves(directory):
            opened.append(leaf.node.path)
            if leaf.subsystem == "block":
                found.extend(_block_users(root, leaf.directory.name))
        for name in _multipath_heads(root, directory):
            opened.append(f"/dev/{name}")
            found.extend(_block_users(root, name))
        found.extend(f"network interface {one.name} is up" for one in interfaces(directory) if _is_up(one))
    found.extend(holders.of_nodes(root, list(dict.fromkeys(opened))).found)
    return holders.Users(tuple(dict.fromkeys(found)))


def _block_users(root: Path, name: str) -> list[str]:
    found = list(holders.of_block(root, name).found)
    node = root / "dev" / name
    if not found and node.is_block_device():
        found.extend(holders.of_exclusive(node).found)
    return found


def _multipath_heads(root: Path, directory: Path) -> list[str]:
    """Return the disks of NVMe controllers below that stand elsewhere, joined from several paths. Raises OSError."""
    controllers = {one.name for one in _walk(directory) if one.parent.name == "nvme"}
    if not controllers:
        return []
    heads: list[str] = []
    for subsystem in attributes.names(root / _SUBSYSTEMS):
        entries = attributes.names(root / _SUBSYSTEMS / subsystem)
        if controllers & set(entries):
            heads.extend(one for one in entries if (root / "sys/class/block" / one).exists())
    return heads


def _is_up(interface: Path) -> bool:
    """Return whether an interface is up; one that does not say counts as up."""
    found = attributes.text(interface / "flags") or ""
    try:
        return bool(int(found, 16) & IFF_UP)
    except ValueError:
        return True


def _dev_name(directory: Path) -> str:
    """Return a node's name below /dev as the kernel made it, the directory's name where it does not say."""
    for line in (attributes.text(directory / "uevent") or "").splitlines():
        key, _equals, value = line.partition("=")
        if key == "DEVNAME" and value and ".." not in value.split("/"):
            return value
    return directory.name.replace("!", "/")


def _walk(directory: Path) -> Iterator[Path]:
    """Yield a directory and all below it that are no links. Raises OSError, TooMuchError."""

    def failed(error: OSError) -> None:
        if error.errno not in attributes.NOT_OFFERED:  # what went away meanwhile has no users
            raise error

    for seen, (folder, _folders, _files) in enumerate(os.walk(directory.resolve(), onerror=failed)):
        if seen >= MAX_DIRECTORIES:
            raise TooMuchError(f"{directory}: more than {MAX_DIRECTORIES} directories below it")
        yield Path(folder)
