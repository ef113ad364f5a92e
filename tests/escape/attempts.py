"""The forbidden things: each a function that does it and raises OSError where it is refused."""

import ctypes
import errno
import fcntl
import mmap
import os
import resource
import signal
import socket
import stat
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.escape.by_file import FILES
from tests.escape.by_memory import MEMORY
from tests.escape.scene import CORE_BYTES, IS_X86, MIB, Attempt, Scene, call, checked, libc

OTHER_NODE = "/dev/ptmx"
"""A node that every uid may open, on every system."""
_PTRACE_SEIZE = 0x4206
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNS, _CLONE_NEWNET = 0x20000, 0x40000000
_F_SETSIG = 10
_FIOSETOWN, _TIOCSTI = 0x8901, 0x5412
_UFFD_USER_MODE_ONLY = 1
_PROCESS_KEYRING = -2 & (1 << 64) - 1
_X32_BIT = 0x40000000


def _open_by_handle(scene: Scene) -> None:
    if not scene.handle:
        raise OSError(errno.EOPNOTSUPP, "no file handles on this file system")
    handle = ctypes.create_string_buffer(scene.handle, len(scene.handle))
    os.close(call("open_by_handle_at", scene.folder_fd, ctypes.addressof(handle), os.O_RDONLY))


def _make_descriptor(name: str, *arguments: int) -> None:
    os.close(call(name, *arguments))


def _with_text(name: str, text: bytes, *arguments: int) -> None:
    """Make a call that takes a text first and returns a descriptor."""
    place = ctypes.create_string_buffer(text)
    os.close(call(name, ctypes.addressof(place), *arguments))


def _io_uring() -> None:
    parameters = ctypes.create_string_buffer(120)
    _make_descriptor("io_uring_setup", 1, ctypes.addressof(parameters))


def _perf_event() -> None:
    """Count the processor time of this process: struct perf_event_attr of linux/perf_event.h, its first version."""
    software, size, cpu_clock, exclude_kernel = 1, 64, 0, 1 << 5
    attributes = struct.pack("=IIQQQQQIIQ", software, size, cpu_clock, 0, 0, 0, exclude_kernel, 0, 0, 0)
    place = ctypes.create_string_buffer(attributes, size)
    _make_descriptor("perf_event_open", ctypes.addressof(place), 0, -1, -1, 0)


def _add_key() -> None:
    kind, name, value = (ctypes.create_string_buffer(one) for one in (b"user", b"devd-test", b"x"))
    places = (ctypes.addressof(kind), ctypes.addressof(name), ctypes.addressof(value))
    call("add_key", *places, 1, _PROCESS_KEYRING)


def _shared_memory() -> None:
    identifier = call("shmget", 0, 4096, 0o600)
    call("shmctl", identifier, 0, 0)


def _netlink() -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as one:
        one.bind((0, 0))


def _signal_by_pidfd(scene: Scene) -> None:
    pidfd = os.pidfd_open(scene.victim)
    try:
        call("pidfd_send_signal", pidfd, signal.SIGURG, 0, 0)
    finally:
        os.close(pidfd)


def _signal_by_descriptor(own: Callable[[int], object]) -> None:
    """Make the victim the one who is signalled when something can be read, and let something be read."""
    reader, writer = socket.socketpair()
    with reader, writer:
        own(reader.fileno())
        fcntl.fcntl(reader, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
        writer.send(b"x")


def _own_by_fcntl(scene: Scene) -> None:
    read_fd, write_fd = os.pipe()
    fcntl.fcntl(read_fd, fcntl.F_SETOWN, scene.victim)
    fcntl.fcntl(read_fd, _F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(read_fd, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    os.write(write_fd, b"x")


def _other_abi(_scene: Scene) -> None:
    """Ask for the pid the way 32-bit programs do, whose calls have other numbers."""
    if not IS_X86:
        raise OSError(errno.EOPNOTSUPP, "arm64 programs have one kind of call")
    code = bytes.fromhex("b814000000cd80c3")  # mov eax, 20; int 0x80; ret
    place = mmap.mmap(
        -1,
        mmap.PAGESIZE,
        flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS,
        prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC,
    )
    place.write(code)
    ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(place)))()


def _x32_call(_scene: Scene) -> None:
    if not IS_X86:
        raise OSError(errno.EOPNOTSUPP, "arm64 has no x32")
    checked(libc.syscall(ctypes.c_long(_X32_BIT | 39)))  # getpid


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
    call("process_vm_readv", pid, ctypes.addressof(vector), 1, ctypes.addressof(vector), 1, 0)


def _steal_descriptor(pid: int) -> None:
    pidfd = os.pidfd_open(pid)
    try:
        os.close(call("pidfd_getfd", pidfd, 0, 0))
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
    checked(libc.mount(b"none", where, b"tmpfs", 0, None))
    checked(libc.umount2(where, 2))


def _fill_disk(scene: Scene) -> None:
    os.lseek(scene.open_file, 32 * MIB, os.SEEK_SET)
    os.write(scene.open_file, b"x" * 4096)


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
    checked(libc.prlimit64(0, resource.RLIMIT_CORE, limits, None))


ATTEMPTS: dict[str, Attempt] = {
    "list_nodes": Attempt(lambda _scene: os.listdir("/dev")),  # noqa: PTH208 - as the scouts do
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
    "ptrace_parent": Attempt(lambda scene: checked(libc.ptrace(_PTRACE_SEIZE, scene.parent, 0, 0))),
    "ptrace_sibling": Attempt(lambda scene: checked(libc.ptrace(_PTRACE_SEIZE, scene.victim, 0, 0))),
    "memory_of_parent": Attempt(lambda scene: _memory_of(scene.parent)),
    "memory_of_sibling": Attempt(lambda scene: _memory_of(scene.victim)),
    "read_memory_of_sibling": Attempt(lambda scene: _process_vm_readv(scene.victim)),
    "environ_of_sibling": Attempt(lambda scene: _read(f"/proc/{scene.victim}/environ")),
    "environ_of_parent": Attempt(lambda scene: _read(f"/proc/{scene.parent}/environ")),
    "descriptor_of_sibling": Attempt(lambda scene: _steal_descriptor(scene.victim)),
    "starve_sibling": Attempt(
        lambda scene: os.sched_setscheduler(scene.victim, os.SCHED_IDLE, os.sched_param(0)),
    ),
    "push_sibling_aside": Attempt(lambda scene: os.sched_setaffinity(scene.victim, os.sched_getaffinity(0))),
    "renice_sibling": Attempt(lambda scene: os.setpriority(os.PRIO_PROCESS, scene.victim, 19)),
    "signal_by_pidfd": Attempt(_signal_by_pidfd),
    "signal_by_descriptor": Attempt(_own_by_fcntl, kills=True),
    "signal_by_ioctl": Attempt(
        lambda scene: _signal_by_descriptor(lambda fd: fcntl.ioctl(fd, _FIOSETOWN, struct.pack("=i", scene.victim))),
        kills=True,
    ),
    "files_of_sibling": Attempt(lambda scene: _read(f"/proc/{scene.victim}/fd/0")),
    "overwrite": Attempt(lambda scene: os.close(os.open(scene.path("setuid"), os.O_WRONLY))),
    "remove": Attempt(lambda scene: scene.path("own").unlink()),
    "open_by_handle": Attempt(_open_by_handle),
    "terminal_input": Attempt(lambda scene: fcntl.ioctl(scene.terminal, _TIOCSTI, b"x")),
    "raw_socket": Attempt(lambda _scene: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close()),
    "packet_socket": Attempt(lambda _scene: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()),
    "netlink": Attempt(lambda _scene: _netlink()),
    "io_uring": Attempt(lambda _scene: _io_uring()),
    "userfaultfd": Attempt(lambda _scene: _make_descriptor("userfaultfd", os.O_CLOEXEC | _UFFD_USER_MODE_ONLY)),
    "perf_event": Attempt(lambda _scene: _perf_event()),
    "add_key": Attempt(lambda _scene: _add_key()),
    "memory_file": Attempt(lambda _scene: _with_text("memfd_create", b"devd-test", 0)),
    "shared_memory": Attempt(lambda _scene: _shared_memory()),
    "other_abi": Attempt(_other_abi),
    "x32_call": Attempt(_x32_call),
    "mount_by_descriptors": Attempt(lambda _scene: _with_text("fsopen", b"tmpfs", 0)),
    "mount_namespace": Attempt(lambda _scene: checked(libc.unshare(_CLONE_NEWNS))),
    "enter_namespace": Attempt(lambda scene: checked(libc.setns(scene.network_fd, _CLONE_NEWNET))),
    "change_root": Attempt(lambda scene: os.chroot(scene.path("folder"))),
    "fork": Attempt(_one_process),
    "fork_many": Attempt(_many_processes),
    "exec_shell": Attempt(lambda _scene: os.execv("/bin/sh", ["sh", "-c", "exit 0"]), leaves=True),  # noqa: S606 - the point
    "mount": Attempt(_mount),
    "user_namespace": Attempt(lambda _scene: checked(libc.unshare(_CLONE_NEWUSER))),
    "load_module": Attempt(lambda _scene: call("finit_module", -1, 0, 0)),
    "bpf": Attempt(lambda _scene: call("bpf", -1, 0, 0)),
    "keyring": Attempt(lambda _scene: call("keyctl", 1, 0)),
    "raise_limit": Attempt(_raise_limit),
    "fill_disk": Attempt(_fill_disk),
    "make_setuid": Attempt(lambda scene: os.chmod(scene.path("setuid"), 0o4755)),  # noqa: PTH101, S103 - the point
    "mknod": Attempt(_mknod),
    "link_swapped": Attempt(lambda scene: _open(scene.path("own")), _swap_link),
    "driver_ioctl": Attempt(_driver_ioctl),
    "set_uid_back": Attempt(lambda _scene: os.setuid(0)),
    **FILES,
    **MEMORY,
}
