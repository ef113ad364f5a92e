"""The forbidden things: each a function that does it and raises OSError where it is refused."""

import ctypes
import fcntl
import mmap
import os
import resource
import signal
import socket
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from devd.workers.sandbox.needs import SandboxNeeds

MIB = 1 << 20
CORE_BYTES = 4096
OTHER_NODE = "/dev/ptmx"
"""A node that every uid may open, on every system."""
_libc = ctypes.CDLL(None, use_errno=True)
_PTRACE_SEIZE = 0x4206
_CLONE_NEWUSER = 0x10000000
_SECCOMP_SET_MODE_FILTER = 1
X86 = {"finit_module": 313, "process_vm_readv": 310, "pidfd_getfd": 438, "bpf": 321, "keyctl": 250, "clone3": 435}
ARM = {"finit_module": 273, "process_vm_readv": 270, "pidfd_getfd": 438, "bpf": 280, "keyctl": 219, "clone3": 435}
CALLS = X86 if os.uname().machine == "x86_64" else ARM


@dataclass
class Scene:
    """What an attempt finds: paths and ports of the test's making, the worker's parent, a process beside it."""

    arguments: Mapping[str, str]
    needs: SandboxNeeds
    parent: int
    victim: int
    open_file: int = field(default=-1)

    def path(self, name: str) -> Path:
        """Return a path the test handed in."""
        return Path(self.arguments[name])

    def prepare(self) -> None:
        """Open, before the sandbox, what the worker is to have open."""
        resource.setrlimit(resource.RLIMIT_CORE, (CORE_BYTES, 2 * CORE_BYTES))
        self.open_file = os.open(self.path("disk"), os.O_RDWR | os.O_CREAT)

    def reset(self) -> None:
        """Put everything back as it was: the control is free to do it all."""
        os.truncate(self.path("disk"), 0)
        for name in ("new", "node"):
            self.path(name).unlink(missing_ok=True)
        self.path("setuid").chmod(0o644)
        link = self.path("own")
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/null")


@dataclass(frozen=True)
class Attempt:
    """What the worker does, and what somebody outside does before it."""

    inside: Callable[[Scene], object]
    outside: Callable[[Scene], object] = lambda _scene: None
    leaves: bool = False
    """Whether the process becomes another program when it works."""


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _call(name: str, *arguments: int) -> int:
    return _checked(_libc.syscall(ctypes.c_long(CALLS[name]), *(ctypes.c_long(one) for one in arguments)))


def _read(path: Path | str) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.read(fd, 1)
    finally:
        os.close(fd)


def _open(path: Path | str) -> None:
    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY))


def _write_new(scene: Scene) -> None:
    fd = os.open(scene.path("new"), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(fd, b"x")
    finally:
        os.close(fd)


def _connect(family: int, kind: int, address: object) -> None:
    with socket.socket(family, kind) as one:
        one.settimeout(2)
        one.connect(address)  # type: ignore[arg-type]  # each family has its own kind of address
        one.send(b"x")


def _port(scene: Scene, name: str) -> tuple[str, int]:
    return "127.0.0.1", int(scene.arguments[name])


def _memory_of(pid: int) -> None:
    os.close(os.open(f"/proc/{pid}/mem", os.O_RDWR))


def _process_vm_readv(pid: int) -> None:
    text = ctypes.create_string_buffer(8)
    vector = (ctypes.c_size_t * 2)(ctypes.addressof(text), 8)
    # The victim is a fork: what lies at our address lies at its own.
    _call("process_vm_readv", pid, ctypes.addressof(vector), 1, ctypes.addressof(vector), 1, 0)


def _steal_descriptor(pid: int) -> None:
    pidfd = os.pidfd_open(pid)
    try:
        os.close(_call("pidfd_getfd", pidfd, 0, 0))
    finally:
        os.close(pidfd)


def _many_processes(scene: Scene) -> None:
    """Start twice as many as are allowed."""
    pids: list[int] = []
    try:
        for _ in range(2 * scene.needs.processes):
            pid = os.fork()
            if pid == 0:
                signal.pause()
                os._exit(0)
            pids.append(pid)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _one_process(_scene: Scene) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    with suppress(OSError):
        os.waitpid(pid, 0)


def _mount(scene: Scene) -> None:
    where = os.fsencode(scene.path("folder"))
    _checked(_libc.mount(b"none", where, b"tmpfs", 0, None))
    _checked(_libc.umount2(where, 2))


def _fill_disk(scene: Scene) -> None:
    os.lseek(scene.open_file, 32 * MIB, os.SEEK_SET)
    os.write(scene.open_file, b"x" * 4096)


def _allocate(size: int, flags: int) -> None:
    mmap.mmap(-1, size, flags=flags | mmap.MAP_ANONYMOUS).close()


def _mknod(scene: Scene) -> None:
    os.mknod(scene.path("node"), stat.S_IFCHR | 0o666, os.makedev(1, 5))
    _read(scene.path("node"))


def _swap_link(scene: Scene) -> None:
    scene.path("own").unlink()
    scene.path("own").symlink_to(OTHER_NODE)


def _driver_ioctl(_scene: Scene) -> None:
    fd = os.open("/dev/null", os.O_RDWR)
    try:
        fcntl.ioctl(fd, 0x5412, b"x")  # TIOCSTI: pushes input into a terminal; no terminal answers ENOTTY
    finally:
        os.close(fd)


def _raise_limit(_scene: Scene) -> None:
    """Raise the soft limit, which anyone may, by the call itself: Python hides its errno."""
    limits = (ctypes.c_uint64 * 2)(2 * CORE_BYTES, 2 * CORE_BYTES)
    _checked(_libc.prlimit64(0, resource.RLIMIT_CORE, limits, None))


ATTEMPTS: dict[str, Attempt] = {
    "own_node": Attempt(lambda scene: _read(scene.path("own"))),
    "read_shadow": Attempt(lambda _scene: _read("/etc/shadow")),
    "read_secret": Attempt(lambda scene: _read(scene.path("secret"))),
    "open_other_node": Attempt(lambda _scene: _open(OTHER_NODE)),
    "look_at_private": Attempt(lambda scene: scene.path("secret").stat()),
    "write_new_file": Attempt(_write_new),
    "tcp": Attempt(lambda scene: _connect(socket.AF_INET, socket.SOCK_STREAM, _port(scene, "tcp"))),
    "udp": Attempt(lambda scene: _connect(socket.AF_INET, socket.SOCK_DGRAM, _port(scene, "udp"))),
    "unix_socket": Attempt(lambda scene: _connect(socket.AF_UNIX, socket.SOCK_STREAM, scene.arguments["socket"])),
    "abstract_socket": Attempt(
        lambda scene: _connect(socket.AF_UNIX, socket.SOCK_STREAM, "\0" + scene.arguments["abstract"])
    ),
    "signal_parent": Attempt(lambda scene: os.kill(scene.parent, signal.SIGURG)),
    "signal_sibling": Attempt(lambda scene: os.kill(scene.victim, signal.SIGURG)),
    "ptrace_parent": Attempt(lambda scene: _checked(_libc.ptrace(_PTRACE_SEIZE, scene.parent, 0, 0))),
    "ptrace_sibling": Attempt(lambda scene: _checked(_libc.ptrace(_PTRACE_SEIZE, scene.victim, 0, 0))),
    "memory_of_parent": Attempt(lambda scene: _memory_of(scene.parent)),
    "memory_of_sibling": Attempt(lambda scene: _memory_of(scene.victim)),
    "read_memory_of_sibling": Attempt(lambda scene: _process_vm_readv(scene.victim)),
    "environ_of_sibling": Attempt(lambda scene: _read(f"/proc/{scene.victim}/environ")),
    "descriptor_of_sibling": Attempt(lambda scene: _steal_descriptor(scene.victim)),
    "starve_sibling": Attempt(
        lambda scene: os.sched_setscheduler(scene.victim, os.SCHED_IDLE, os.sched_param(0)),
    ),
    "fork": Attempt(_one_process),
    "fork_many": Attempt(_many_processes),
    "exec_shell": Attempt(lambda _scene: os.execv("/bin/sh", ["sh", "-c", "exit 0"]), leaves=True),  # noqa: S606 - the point
    "mount": Attempt(_mount),
    "user_namespace": Attempt(lambda _scene: _checked(_libc.unshare(_CLONE_NEWUSER))),
    "load_module": Attempt(lambda _scene: _call("finit_module", -1, 0, 0)),
    "bpf": Attempt(lambda _scene: _call("bpf", -1, 0, 0)),
    "keyring": Attempt(lambda _scene: _call("keyctl", 1, 0)),
    "raise_limit": Attempt(_raise_limit),
    "fill_disk": Attempt(_fill_disk),
    "allocate_private": Attempt(lambda scene: _allocate(scene.needs.memory_bytes, mmap.MAP_PRIVATE)),
    "allocate_shared": Attempt(lambda scene: _allocate(scene.needs.memory_bytes + 1024 * MIB, mmap.MAP_SHARED)),
    "make_setuid": Attempt(lambda scene: os.chmod(scene.path("setuid"), 0o4755)),  # noqa: PTH101, S103 - the point
    "mknod": Attempt(_mknod),
    "link_swapped": Attempt(lambda scene: _open(scene.path("own")), _swap_link),
    "driver_ioctl": Attempt(_driver_ioctl),
    "set_uid_back": Attempt(lambda _scene: os.setuid(0)),
}
