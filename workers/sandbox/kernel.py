"""Raw system calls, for what neither Python nor the C library wraps."""

import ctypes
import errno
import os

from devd.workers.sandbox.numbers import this_machine

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
MACHINE = this_machine()
_AT_FDCWD, _AT_EACCESS = -100, 0x200
_WORD = 0xFFFFFFFF


def call(name: str, *arguments: int) -> int:
    """Make a system call by name and return its result. Raises OSError; ENOSYS on an unknown architecture."""
    number = MACHINE.number(name) if MACHINE is not None else None
    if number is None:
        raise OSError(errno.ENOSYS, f"{name}: no such call on this architecture")
    result: int = _syscall(ctypes.c_long(number), *(ctypes.c_long(one) for one in arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def set_filesystem_ids(uid: int, gid: int) -> None:
    """Check files as another user from now on, in this thread alone (setfsuid(2), setfsgid(2)).

    Unlike the other ids these change for the calling thread only, also through the C library. Raises OSError.
    """
    for change, wanted in ((_libc.setfsgid, gid), (_libc.setfsuid, uid)):
        change(ctypes.c_uint(wanted))
        # It tells of no error; asked for an id that cannot be, it returns the present one.
        if change(ctypes.c_int(-1)) & _WORD != wanted:
            raise OSError(errno.EINVAL, f"id {wanted} is not to be had in this user namespace")


def may(path: str, mode: int) -> bool:
    """Return whether this thread may use a path (modes of access(2)), by its filesystem ids and capabilities.

    The C library of older systems answers this for the real ids. Raises OSError: ENOSYS before Linux 5.8.
    """
    name = ctypes.create_string_buffer(os.fsencode(path))
    try:
        call("faccessat2", _AT_FDCWD, ctypes.addressof(name), mode, _AT_EACCESS)
    except OSError as error:
        if error.errno == errno.ENOSYS:
            raise
        return False
    return True
