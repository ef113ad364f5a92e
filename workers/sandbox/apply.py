"""The sandbox in two stages, around the worker's connections to the front.

First all that must be there before libzmq starts its threads: limits, namespaces, Landlock, capabilities. Then the
worker connects, still under the front's uid, which alone may use the sockets. Then the rest, for all threads: a uid of
its own, and the filter of system calls that forbids new connections.

Each layer is tried; one that is refused is reported with the reason, and the others still stand.
"""

import errno
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

from devd.ipc.messages import Sandbox
from devd.workers import linux
from devd.workers.params import Params
from devd.workers.sandbox import capabilities, identity, landlock, limits, seccomp
from devd.workers.sandbox.needs import SandboxNeeds

STRONG_LAYERS = frozenset({"landlock", "identity", "seccomp"})
"""Without any of them the sandbox is ``basic``: it saves the node from accidents, not from an attacker."""
SECRET = "/etc/shadow"  # noqa: S105 - a file every system has
BROKEN = "broken"
"""The level of a sandbox that does not hold: who stands behind it touches nothing, whatever the configuration says."""
_READ_ANYTHING = frozenset({"dac_override", "dac_read_search"})
_PR_SET_KEEPCAPS = 8
_TO_CHANGE_IDS = capabilities.mask_of(("setuid", "setgid"))


class Confinement:
    """One process's sandbox: ``before_connect``, then ``after_connect``, both from its one Python thread."""

    def __init__(self, device: str, needs: SandboxNeeds, options: Mapping[str, object]) -> None:
        """Take note. Raises SpecError for options that make no sense."""
        self._needs = needs
        self._uid = identity.uid_for(device, options)
        self._cgroup = Params("sandbox", options).text("cgroup", "")
        self._no_cgroup = Params("sandbox", options).text("no_cgroup", "")
        self._identity: identity.Identity | None = None
        self._seen: landlock.Seen = {}
        self._active: list[str] = []
        self._missing: dict[str, str] = {}
        self._broken = ""

    def before_connect(self) -> None:
        """Apply what must precede the first thread. Never raises for a layer that is refused."""
        needs = self._needs
        with self._layer("identity", later=True):
            self._identity = identity.plan(self._uid, needs.paths)
        self._try("no_core", limits.limit_core)
        self._try("limits", lambda: limits.limit_use(needs))
        self._try("oom_score", limits.die_first)
        self._try("nice", limits.be_nice)
        self._try("io_nice", limits.be_nice_to_disks)
        if self._cgroup:
            self._try("cgroup", lambda: limits.join_cgroup(self._cgroup, needs))
        elif self._no_cgroup:
            self._missing["cgroup"] = self._no_cgroup
        if not needs.uses_network:
            self._try("network_namespace", limits.leave_network)
        self._try("no_new_privs", lambda: linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1))
        self._confine_paths()
        self._drop_capabilities()
        # Last: it hands /proc/self to root, where the OOM score was written.
        self._try("undumpable", lambda: linux.prctl(linux.PR_SET_DUMPABLE, 0))

    def after_connect(self) -> Sandbox:
        """Apply the rest, try three forbidden things, and report. Never raises for a layer that is refused."""
        self._change_identity()
        self._try("seccomp", lambda: seccomp.restrict(self._needs.groups, self._needs.requests))
        self._try("self_test", self._test)
        return Sandbox(self._level(), tuple(self._active), self._missing)

    def outdated(self) -> str:
        """Return a path of the worker's own that is not any more what its rule was made for, or nothing.

        Landlock's rules hold for what lay at a path when the worker began: a node that was made anew is shut to it.
        """
        for need in self._needs.paths:
            if not need.vital or need.path not in self._seen:
                continue
            with suppress(OSError):  # not to be told: then it is no matter of age
                if landlock.lies_there(need) != self._seen[need.path]:
                    return need.path
        return ""

    def _confine_paths(self) -> None:
        version = 0
        with self._layer("landlock"):
            version = landlock.abi()
            self._seen = landlock.restrict(self._needs.paths, version, tcp="network" in self._needs.groups)
        if not version or "landlock" in self._missing:
            return
        for part in landlock.LATER_LAYERS:
            if version >= part.abi:
                self._active.append(part.name)
            else:
                self._missing[part.name] = f"{part.what}: Landlock ABI {part.abi} is needed, the kernel has {version}"

    def _drop_capabilities(self) -> None:
        """Drop them before there is another thread, each of which has its own; only those to change ids stay."""
        kept = capabilities.mask_of(self._kept())
        with self._layer("capabilities"):
            if capabilities.held() & capabilities.mask_of(("setpcap",)):
                capabilities.drop_bounding(kept)
            more = _TO_CHANGE_IDS if self._identity is not None else 0
            capabilities.keep_only(kept | more, for_commands=False)
            if self._identity is None:
                capabilities.keep_only(kept, for_commands=self._needs.executes)

    def _change_identity(self) -> None:
        if self._identity is None:
            self._missing["process_limit"] = "the uid is shared: its processes are not this worker's alone"
            return
        user = self._identity
        kept = capabilities.mask_of(self._kept())
        with self._layer("identity"):
            if kept:
                linux.prctl(_PR_SET_KEEPCAPS, 1)
            identity.become(user)
        if "identity" in self._missing:
            return
        with self._layer("capabilities", later=True):
            capabilities.keep_only(kept, for_commands=self._needs.executes)
        self._try("process_limit", lambda: limits.limit_processes(self._needs.processes))

    def _kept(self) -> frozenset[str]:
        own = self._identity.capabilities if self._identity is not None else frozenset()
        return self._needs.capabilities | own

    @property
    def broken(self) -> str:
        """Return why the sandbox does not hold although it was put on, or nothing; known after the second stage."""
        return self._broken

    def _test(self) -> None:
        """Try what must not work. Raises OSError naming what did."""
        if _works(lambda: os.close(os.open(SECRET, os.O_RDONLY | os.O_CLOEXEC))):
            if by := self._shuts_files():
                self._broken = f"the sandbox does not hold: {SECRET} can be read in spite of {by}"
            raise OSError(errno.EEXIST, f"{SECRET} can be read")
        if "network" not in self._needs.groups and _works(lambda: socket.socket(socket.AF_INET).close()):
            raise OSError(errno.EEXIST, "an internet socket can be made")
        if _works(lambda: os.kill(os.getppid(), 0)):
            raise OSError(errno.EEXIST, f"process {os.getppid()} can be signalled")

    def _shuts_files(self) -> str:
        """Return the layer that shuts the secret to this process if it is what it is said to be, or nothing."""
        if any("r" in need.rights and _is_in(SECRET, need.path) for need in self._needs.paths):
            return ""
        if "landlock" in self._active:
            return "landlock"
        return "identity" if "identity" in self._active and not self._kept() & _READ_ANYTHING else ""

    def _level(self) -> str:
        if self._broken:
            return BROKEN
        if not self._missing:
            return "full"
        return "partial" if STRONG_LAYERS & set(self._active) else "basic"

    def _try(self, name: str, layer: Callable[[], None]) -> None:
        with self._layer(name):
            layer()

    @contextmanager
    def _layer(self, name: str, *, later: bool = False) -> Iterator[None]:
        """Take note whether a layer went on; ``later``: this alone does not make it active."""
        try:
            yield
        except OSError as error:
            number = errno.errorcode.get(error.errno or 0, "error")
            self._missing[name] = f"{number}: {error.strerror or error}"
            if name in self._active:
                self._active.remove(name)
        else:
            if not later:
                self._active.append(name)


def _is_in(path: str, folder: str) -> bool:
    real = os.path.realpath(folder)
    return path == real or path.startswith(f"{real.rstrip('/')}/")


def _works(attempt: Callable[[], None]) -> bool:
    try:
        attempt()
    except OSError:
        return False
    return True
