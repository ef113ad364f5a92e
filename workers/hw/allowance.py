"""What a worker's sandbox must let through for one device, as plain data, and as what the sandbox takes."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from devd.ipc.messages import Device
from devd.workers.sandbox.needs import EXEC_FILES, EXEC_MEMORY_BYTES, EXEC_PROCESSES, PathNeed, SandboxNeeds
from devd.workers.sandbox.reach import PLACES
from devd.workers.sandbox.requests import Request
from devd.workers.sandbox.runtime import ETC, PROGRAMS, PSEUDO_DEVICES

_PREFIX = "CAP_"
_SOCKETS = {"AF_NETLINK": "netlink"}
LIBRARIES = tuple(
    PathNeed(path, "rx")
    for path in (
        "/usr/lib",
        "/usr/lib64",
        "/lib",
        "/lib64",
        "/usr/local/lib",
        "/usr/local/nvidia",
        "/run/nvidia/driver",
    )
)
"""Where shared libraries lie, a GPU operator's driver container included."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """Absolute paths by what is done with them; a directory stands for everything below it.

    ``look`` are directories that are listed, and nothing in them is opened; ``ioctl`` are nodes that are opened and get
    ioctls, ``requests`` the numbers of those (and of what sockets and the programs below get), or a type's class where
    a library makes more than one can list; ``execute`` are programs that are run (a plain name is looked up in PATH),
    ``libraries`` whether shared libraries are loaded late; ``sockets`` are address families; ``groups`` are further
    groups of system calls ("watch", "files": to write files that are no attributes); ``memory_bytes`` and ``processes``
    (threads count) are limits where more than a plain worker's is needed; ``why`` says what is lost without it.
    """

    look: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    ioctl: tuple[str, ...] = ()
    requests: tuple[Request, ...] = ()
    execute: tuple[str, ...] = ()
    libraries: bool = False
    capabilities: tuple[str, ...] = ()
    sockets: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    memory_bytes: int = 0
    processes: int = 0
    why: str = ""

    def __post_init__(self) -> None:
        """Raise ValueError for nodes whose requests nobody named: each would be refused, and look like a fault."""
        if self.ioctl and not self.requests:
            raise ValueError(f"ioctls of {self.ioctl[0]} are declared without the requests that are made")


def needs_of(allowed: Allowance, device: Device | None = None, places: tuple[str, ...] = PLACES) -> SandboxNeeds:
    """Return an allowance as the sandbox takes it.

    A path that is a node of the device is allowed only while it is the one that discovery saw; no path of a device's
    worker may lie outside the driver's ``places``.
    """
    bounds = places if device is not None else None
    nodes = {node.path: node for node in device.nodes} if device is not None else {}
    paths = [PathNeed(path, "l", places=bounds) for path in allowed.look]
    paths += [PathNeed(path, "r", places=bounds) for path in allowed.read]
    paths += [PathNeed(path, "rw", vital=True, places=bounds) for path in allowed.write]
    # The node's own identity where it is known; of what lies in a directory, or is another's, the path alone.
    paths += [PathNeed(path, "rwi", nodes.get(path), vital=True, places=bounds) for path in allowed.ioctl]
    paths += LIBRARIES if allowed.libraries else ()
    groups = {*allowed.groups, *(_SOCKETS[one] for one in allowed.sockets)}
    needs = SandboxNeeds(
        paths=tuple(paths),
        groups=frozenset(groups),
        requests=frozenset(allowed.requests),
        capabilities=frozenset(one.removeprefix(_PREFIX).lower() for one in allowed.capabilities),
    )
    needs |= SandboxNeeds(
        memory_bytes=max(allowed.memory_bytes, needs.memory_bytes), processes=max(allowed.processes, needs.processes)
    )
    return needs | _programs(allowed.execute) if allowed.execute else needs


def _programs(names: tuple[str, ...]) -> SandboxNeeds:
    own = []
    for name in names:
        path = shutil.which(name) or name
        if path.startswith("/"):
            own += [PathNeed(path, "rx", vital=True), PathNeed(str(Path(path).resolve().parent), "rx")]
    return SandboxNeeds(
        paths=(*own, *PROGRAMS, *ETC, *PSEUDO_DEVICES),
        groups=frozenset({"exec"}),
        memory_bytes=EXEC_MEMORY_BYTES,
        files=EXEC_FILES,
        processes=EXEC_PROCESSES,
    )
