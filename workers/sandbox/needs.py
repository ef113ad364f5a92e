"""What a probe, a reset or a driver needs of the system, as data: all else is taken from its worker.

Whoever reaches for something new (a file, a system call, a capability) says so beside its code. The operator may widen
it by name, see ``widened``; nothing else does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from devd.ipc.messages import Node
from devd.workers.errors import SpecError
from devd.workers.params import Params
from devd.workers.sandbox.capabilities import CAPABILITIES
from devd.workers.sandbox.requests import Request
from devd.workers.sandbox.syscalls import GROUPS

MIB = 1 << 20
MEMORY_BYTES = 256 * MIB
"""Private writable memory (RLIMIT_DATA). A worker has some 40 MiB by this count, two thirds of it thread stacks."""
EXEC_MEMORY_BYTES = 1024 * MIB
"""The same for a worker that runs commands, each of which inherits it."""
FILES = 64
"""Open files; a worker has 15."""
EXEC_FILES = 256
PROCESSES = 8
"""Processes and threads; a worker is one process of three threads."""
EXEC_PROCESSES = 64
WRITTEN_FILE_BYTES = 16 * MIB
"""Largest file a worker may make, where it may write at all."""


@dataclass(frozen=True, slots=True)
class PathNeed:
    """A file, or a directory with all below it.

    ``rights`` are letters: l(ist a directory, open nothing in it), r(ead), w(rite, make and remove below a directory),
    x(ecute), i(octl on a device node).
    With ``node`` the rights are given only while the path leads to what discovery saw. A ``vital`` path is one that
    the worker's own uid must be able to use: a group or a capability is kept for it if need be. ``places`` are those
    below which a path that discovery chose must lie (see ``reach``); None for one that it has no part in.
    """

    path: str
    rights: str
    node: Node | None = None
    vital: bool = False
    places: tuple[str, ...] | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class SandboxNeeds:
    """Everything a worker may keep.

    ``groups`` are groups of system calls, ``requests`` those of ioctl(2), ``capabilities`` names in small letters.
    """

    paths: tuple[PathNeed, ...] = ()
    groups: frozenset[str] = frozenset()
    capabilities: frozenset[str] = frozenset()
    memory_bytes: int = MEMORY_BYTES
    files: int = FILES
    processes: int = PROCESSES
    requests: frozenset[Request] = frozenset()

    @property
    def executes(self) -> bool:
        """Whether it starts other programs."""
        return "exec" in self.groups

    @property
    def uses_network(self) -> bool:
        """Whether it needs the node's own network namespace."""
        return bool(self.groups & {"network", "netlink"})

    @property
    def writes_files(self) -> bool:
        """Whether it makes files or directories."""
        return "files" in self.groups

    @property
    def only_looks(self) -> bool:
        """Whether it lists and reads alone: no ioctl, no program, nobody's library, nothing written."""
        return self.groups <= {"watch"} and not any(set(need.rights) & set("wxi") for need in self.paths)

    def __or__(self, other: "SandboxNeeds") -> "SandboxNeeds":
        return SandboxNeeds(
            paths=tuple(dict.fromkeys((*self.paths, *other.paths))),
            groups=self.groups | other.groups,
            requests=self.requests | other.requests,
            capabilities=self.capabilities | other.capabilities,
            memory_bytes=max(self.memory_bytes, other.memory_bytes),
            files=max(self.files, other.files),
            processes=max(self.processes, other.processes),
        )


NOTHING = SandboxNeeds()


def widened(needs: SandboxNeeds, options: Mapping[str, object]) -> SandboxNeeds:
    """Return needs with what the operator added: lists ``read``, ``write``, ``capabilities``, ``syscalls`` and limits.

    The limits are ``memory_bytes``, ``files`` and ``processes``. Raises SpecError for a name that does not exist.
    """
    params = Params("sandbox", options)
    capabilities = _known(params, "capabilities", CAPABILITIES)
    groups = _known(params, "syscalls", GROUPS)
    reads, writes = params.texts("read"), params.texts("write")
    for path in (*reads, *writes):
        if not path.startswith("/"):
            raise SpecError(f"sandbox: {path!r} found, an absolute path is needed")
    paths = [PathNeed(path, "rx" if needs.executes else "r", vital=True) for path in reads]
    paths += [PathNeed(path, "rw", vital=True) for path in writes]
    more = SandboxNeeds(
        paths=tuple(paths),
        groups=groups | ({"files"} if writes else frozenset()),
        capabilities=capabilities,
    )
    return replace(
        needs | more,
        memory_bytes=params.whole("memory_bytes", needs.memory_bytes, least=1),
        files=params.whole("files", needs.files, least=1),
        processes=params.whole("processes", needs.processes, least=1),
    )


def _known(params: Params, key: str, known: Mapping[str, object]) -> frozenset[str]:
    names = frozenset(params.texts(key))
    unknown = sorted(names - set(known))
    if unknown:
        raise SpecError(f"sandbox.{key}: {unknown[0]!r} is unknown, allowed are {', '.join(sorted(known))}")
    return names
