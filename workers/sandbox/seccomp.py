"""Loads the system call filter into all threads of this process."""

import ctypes
import errno
import os

from devd.workers.sandbox import bpf, kernel
from devd.workers.sandbox.requests import Request

_SET_MODE_FILTER = 1
_TSYNC = 1


class _Program(ctypes.Structure):
    """struct sock_fprog of linux/filter.h."""

    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def prepare(groups: frozenset[str], requests: frozenset[Request] = frozenset()) -> None:
    """Build what does not depend on the process, so that a fork finds it done."""
    if kernel.MACHINE is not None:
        bpf.program(kernel.MACHINE, groups, requests, 0, 0)


def restrict(groups: frozenset[str], requests: frozenset[Request]) -> None:
    """Allow the base calls, these groups and requests of ioctl from now on, in every thread. Raises OSError.

    no_new_privs must be set.
    """
    if kernel.MACHINE is None:
        raise OSError(errno.ENOSYS, f"no table of system calls for {os.uname().machine}")
    code = bpf.program(kernel.MACHINE, groups, requests, os.getpid(), os.sched_getscheduler(0))
    text = ctypes.create_string_buffer(code, len(code))
    packed = _Program(len(code) // bpf.INSTRUCTION.size, ctypes.addressof(text))
    odd_thread = kernel.call("seccomp", _SET_MODE_FILTER, _TSYNC, ctypes.addressof(packed))
    if odd_thread:
        raise OSError(errno.EBUSY, f"thread {odd_thread} stands behind another filter")
