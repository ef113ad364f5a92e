"""Loads the system call filter into all threads of this process."""

import ctypes
import errno
import os

from devd.workers.sandbox import bpf, kernel

_SET_MODE_FILTER = 1
_TSYNC = 1


class _Program(ctypes.Structure):
    """struct sock_fprog of linux/filter.h."""

    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def prepare(groups: frozenset[str]) -> None:
    """Build what does not depend on the process, so that a fork finds it done."""
    if kernel.MACHINE is not None:
        bpf.program(kernel.MACHINE, groups, 0, 0)


def restrict(groups: frozenset[str]) -> None:
    """Allow the base calls and these groups from now on, in every thread; no_new_privs must be set. Raises OSError."""
    if kernel.MACHINE is None:
        raise OSError(errno.ENOSYS, f"no table of system calls for {os.uname().machine}")
    code = bpf.program(kernel.MACHINE, groups, os.getpid(), os.sched_getscheduler(0))
    text = ctypes.create_string_buffer(code, len(code))
    packed = _Program(len(code) // bpf.INSTRUCTION.size, ctypes.addressof(text))
    odd_thread = kernel.call("seccomp", _SET_MODE_FILTER, _TSYNC, ctypes.addressof(packed))
    if odd_thread:
        raise OSError(errno.EBUSY, f"thread {odd_thread} stands behind another filter")
