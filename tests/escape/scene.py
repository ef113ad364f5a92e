"""What an attempt finds and how it is written: the scene of one worker, and raw system calls by name."""

import ctypes
import os
import resource
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from devd.workers.sandbox.needs import SandboxNeeds

MIB = 1 << 20
CORE_BYTES = 4096
"""What ``prepare`` leaves of a memory image; the soft limit may be raised to twice as much."""
libc = ctypes.CDLL(None, use_errno=True)
_AT_EMPTY_PATH = 0x1000
_HANDLE_BYTES = 128
NUMBERS = {  # x86-64, arm64
    "finit_module": (313, 273),
    "process_vm_readv": (310, 270),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "bpf": (321, 280),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "io_uring_setup": (425, 425),
    "userfaultfd": (323, 282),
    "perf_event_open": (298, 241),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fsopen": (430, 430),
    "memfd_create": (319, 279),
    "shmget": (29, 194),
    "shmctl": (31, 195),
    "syslog": (103, 116),
}
IS_X86 = os.uname().machine == "x86_64"
CALLS = {name: numbers[0] if IS_X86 else numbers[1] for name, numbers in NUMBERS.items()}


@dataclass
class Scene:
    """What an attempt finds: paths and ports of the test's making, the worker's parent, a process beside it."""

    arguments: Mapping[str, str]
    needs: SandboxNeeds
    parent: int
    victim: int
    open_file: int = field(default=-1)
    terminal: int = field(default=-1)
    folder_fd: int = field(default=-1)
    network_fd: int = field(default=-1)
    mount_fd: int = field(default=-1)
    """The root of a file system of the test's own, -1 where none could be mounted."""
    handle: bytes = b""
    """The secret file's, as open_by_handle_at takes it; empty where the file system has none."""

    def path(self, name: str) -> Path:
        """Return a path the test handed in."""
        return Path(self.arguments[name])

    def prepare(self) -> None:
        """Open, before the sandbox, what the worker is to have open."""
        # None is left where the filter ends the process; what may be raised is the soft limit.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 2 * CORE_BYTES))
        self.open_file = os.open(self.path("disk"), os.O_RDWR | os.O_CREAT)
        self.folder_fd = os.open(self.path("folder"), os.O_RDONLY)
        self.network_fd = os.open("/proc/self/ns/net", os.O_RDONLY)
        with suppress(OSError):  # root's alone
            self.mount_fd = os.open(self.arguments["mount"], os.O_RDONLY)
        with suppress(OSError):
            _master, self.terminal = os.openpty()
        with suppress(OSError):
            self.handle = _handle_of(self.path("secret"))

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
    kills: bool = False
    """Whether it works by the victim's death: the call may succeed and do nothing."""


def checked(result: int) -> int:
    """Return what a call of the C library returned. Raises OSError for a negative result."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def call(name: str, *arguments: int) -> int:
    """Make a system call by name. Raises OSError."""
    return checked(libc.syscall(ctypes.c_long(CALLS[name]), *(ctypes.c_long(one) for one in arguments)))


def _handle_of(path: Path) -> bytes:
    """Return a struct file_handle. Raises OSError."""
    fd = os.open(path, os.O_RDONLY)
    try:
        handle = ctypes.create_string_buffer(struct.pack("=Ii", _HANDLE_BYTES, 0), 8 + _HANDLE_BYTES)
        mount, empty = ctypes.c_int(), ctypes.create_string_buffer(b"")
        places = (ctypes.addressof(empty), ctypes.addressof(handle), ctypes.addressof(mount), _AT_EMPTY_PATH)
        call("name_to_handle_at", fd, *places)
        return handle.raw
    finally:
        os.close(fd)
