"""The few Linux calls Python does not wrap: prctl(2), a pipe that ends the process, a process's children."""

import ctypes
import fcntl
import os
import signal
from contextlib import suppress
from pathlib import Path

# Numbers of linux/prctl.h.
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

COMM_CHARS = 14
"""One below the kernel's 15: with 15 psutil's ``name()`` reads /proc/PID/cmdline, which blocks on a hung process."""

_libc = ctypes.CDLL(None, use_errno=True)
_prctl = _libc.prctl
_prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)


def prctl(option: int, value: int) -> None:
    """Set one attribute of this process, one that takes a number. Raises OSError."""
    if _prctl(option, value, 0, 0, 0) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def prctl_pair(option: int, first: int, second: int) -> None:
    """Make a prctl(2) call of two numbers. Raises OSError."""
    if _prctl(option, first, second, 0, 0) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}, {first}): {os.strerror(number)}")


def set_name(name: str) -> None:
    """Name this process for ps(1) and /proc, cut to ``COMM_CHARS``."""
    text = ctypes.create_string_buffer(name.encode("ascii", "replace")[:COMM_CHARS])
    if _prctl(PR_SET_NAME, ctypes.addressof(text), 0, 0, 0) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl(PR_SET_NAME): {os.strerror(number)}")


def die_with_parent(parent: int) -> None:
    """Have this process SIGKILLed when its parent ends; ends it at once when the parent is gone already.

    For use between fork and exec: it allocates next to nothing and takes no lock.
    """
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(os.EX_UNAVAILABLE)


def end_with_pipe(fd: int) -> None:
    """Have SIGIO end this process when the last writer of a pipe closes it, wherever the main thread is by then.

    SIGIO's default action is to terminate; a byte written to the pipe does the same. Unlike PR_SET_PDEATHSIG this
    survives a change of uid and hangs on the pipe's owner alone.
    """
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_ASYNC | os.O_NONBLOCK)


def children() -> list[int]:
    """Return the pids of this single-threaded-forking process's children, zombies included.

    Empty as well where the kernel lacks CONFIG_PROC_CHILDREN.
    """
    pids: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # a thread that ended meanwhile, or a kernel without the file
            pids.extend(int(pid) for pid in (task / "children").read_text().split())
    return pids


def kill(pid: int) -> None:
    """SIGKILL a child of ours; one that is gone already is no error."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def kill_group(pgid: int) -> None:
    """SIGKILL a process group; an empty one is no error."""
    with suppress(ProcessLookupError):
        os.killpg(pgid, signal.SIGKILL)


def group_exists(pgid: int) -> bool:
    """Return whether any process, zombies included, is left in a group."""
    try:
        os.killpg(pgid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # someone of another uid is in it
        return True
    return True
