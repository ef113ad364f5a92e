"""Raw system calls, for what neither Python nor the C library wraps."""

import ctypes
import errno
import os

from devd.workers.sandbox.numbers import this_machine

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_ARGUMENTS = 6
# Given once, they spare an object for each argument of each call; a pointer is as wide as any argument.
_syscall.argtypes = (ctypes.c_long, *(ctypes.c_void_p,) * _ARGUMENTS)
MACHINE = this_machine()
_AT_FDCWD, _AT_EACCESS = -100, 0x200


def call(name: str, *arguments: int | bytes | ctypes.Array[ctypes.c_uint32]) -> int:
    """Make a system call by name and return its result; bytes and arrays stand for their addresses, while it lasts.

    Raises OSError; ENOSYS on an unknown architecture.
    """
    number = MACHINE.number(name) if MACHINE is not None else None
    if number is None:
        raise OSError(errno.ENOSYS, f"{name}: no such call on this architecture")
    result: int = _syscall(number, *arguments, *(0,) * (_ARGUMENTS - len(arguments)))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def may(path: str, mode: int) -> bool:
    """Return whether this thread may use a path (modes of access(2)), by its effective ids and capabilities.

    Older C libraries answer this by themselves, from the file's mode alone. Raises OSError: ENOSYS before Linux 5.8.
    """
    try:
        call("faccessat2", _AT_FDCWD, os.fsencode(path), mode, _AT_EACCESS)
    except OSError as error:
        if error.errno == errno.ENOSYS:
            raise
        return False
    return True
