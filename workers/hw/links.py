"""Network interfaces: who of the host depends on one, and setting one down and up again (netdevice(7))."""

import fcntl
import socket
import struct
from pathlib import Path

from devd.workers.hw import attributes

SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 0x1
NAME_BYTES = 15
"""IFNAMSIZ less its NUL."""
_REQUEST = struct.Struct("16sH22x")
"""struct ifreq: the name, the flags, the rest of its 40 bytes."""


def users(root: Path, name: str) -> list[str]:
    """Return what of the host would lose the network with this interface, in words. Raises OSError.

    Looked for in this network namespace: bonds and bridges, interfaces stacked upon it, IPv4 routes through it.
    """
    directory = root / "sys/class/net" / name
    master = attributes.target(directory / "master")
    found = [f"{name} is part of {master}"] if master else []
    uppers = [one.removeprefix("upper_") for one in attributes.names(directory) if one.startswith("upper_")]
    found.extend(f"{name} carries {upper}" for upper in uppers if upper != master)
    lines = (attributes.content(root / "proc/net/route") or "").splitlines()[1:]
    routes = sum(line.split("\t", 1)[0].strip() == name for line in lines)
    if routes:
        found.append(f"{name} carries {routes} of the host's routes")
    return found


def down_and_up(name: str) -> None:
    """Set an interface down and up again; up also when it was down before. Needs CAP_NET_ADMIN. Raises OSError."""
    if len(name.encode()) > NAME_BYTES:
        raise ValueError(f"{name!r} is no interface name")
    # Any socket takes these, and netlink is the one family the sandbox leaves: its driver speaks it anyway.
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC) as sock:
        flags = _flags(sock, name)
        fcntl.ioctl(sock, SIOCSIFFLAGS, _REQUEST.pack(name.encode(), flags & ~IFF_UP))
        fcntl.ioctl(sock, SIOCSIFFLAGS, _REQUEST.pack(name.encode(), flags | IFF_UP))


def _flags(sock: socket.socket, name: str) -> int:
    answer = fcntl.ioctl(sock, SIOCGIFFLAGS, _REQUEST.pack(name.encode(), 0))
    _name, flags = _REQUEST.unpack(answer)
    return int(flags)
