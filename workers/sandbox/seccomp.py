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

    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


USUAL = (
    frozenset[str](),
    frozenset({"exec"}),
    frozenset({"exec", "netlink"}),
    frozenset({"files"}),
    frozenset({"locks", "shared_memory"}),
    frozenset({"exec", "locks", "shared_memory"}),
    frozenset({"watch"}),
    frozenset({"locks", "shared_memory", "watch"}),
)
"""The sets of groups that devd's own probes, resets, drivers and scouts declare, alone and together."""


def prepare(groups: frozenset[str]) -> None:
    """Build what depends on neither the process nor its device, so that a fork finds it done."""
    if kernel.MACHINE is not None:
        bpf.program(kernel.MACHINE, groups, frozenset(), 0, 0)


def restrict(groups: frozenset[str], requests: frozenset[Request]) -> None:
    """Allow the base calls, these groups and requests of ioctl from now on, in every thread. Raises OSError.

    no_new_privs must be set.
    """
    if kernel.MACHINE is None:
        raise OSError(errno.ENOSYS, f"no table of system calls for {os.uname().machine}")
    code = bpf.program(kernel.MACHINE, groups, requests, os.getpid(), os.sched_getscheduler(0))
    packed = _Program(len(code) // bpf.INSTRUCTION.size, code)
    odd_thread = kernel.call("seccomp", _SET_MODE_FILTER, _TSYNC, ctypes.addressof(packed))
    if odd_thread:
        raise OSError(errno.EBUSY, f"thread {odd_thread} stands behind another filter")
