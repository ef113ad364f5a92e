"""What a forked child does before its role begins: drops all it inherited, takes its name, waits at the gate.

The gate is a pipe whose write end the front holds. One byte through it says that the front knows this pid; from then
on the pipe is the lifeline, and its end is the worker's.
"""

import contextlib
import faulthandler
import fcntl
import os
import resource
import select
import signal
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from devd.ipc.messages import WorkerSpec
from devd.workers import linux
from devd.workers.errors import (
    EXIT_BAD_SPEC,
    EXIT_CRASHED,
    EXIT_STOPPED,
    DeviceGoneError,
    NodeRenewedError,
    SandboxBrokenError,
    SpecError,
    StaleDriverError,
)

LIFELINE_FD = 3
"""Where the gate's read end lies in every child; nothing above it is inherited."""

_KEPT_IGNORED = {signal.SIGPIPE, signal.SIGXFSZ}
"""Python's own choice: a broken pipe or a full file is an OSError, not a silent death."""

Role = Callable[[WorkerSpec, int], int]
"""(spec, lifeline fd) -> exit code."""


def become(spec: WorkerSpec, gate_fd: int, stderr_fd: int, role: Role) -> NoReturn:
    """Run a role in this fresh child and exit; nothing ever returns into the server's code."""
    code = EXIT_CRASHED
    try:
        _leave_the_server(spec, gate_fd, stderr_fd)
        code = role(spec, LIFELINE_FD) if _gate_opens(LIFELINE_FD) else EXIT_STOPPED
    except SpecError as error:
        _say(f"{spec.device}: {error}\n")
        code = EXIT_BAD_SPEC
    except (DeviceGoneError, NodeRenewedError, SandboxBrokenError, StaleDriverError) as error:
        _say(f"{spec.device}: {error}\n")
    except BaseException:  # noqa: BLE001 - the process ends here, whatever it was; its story goes to stderr
        _say(traceback.format_exc())
    finally:
        os._exit(code)


def process_name(spec: WorkerSpec) -> str:
    """Return the name for ps(1), at most ``linux.COMM_CHARS`` characters."""
    if spec.role == "scout":
        return f"devd-s-{spec.resource.rpartition('/')[2]}"[: linux.COMM_CHARS]
    if spec.role == "scribe":
        return "devd-scribe"
    return f"devd-{spec.device}"[: linux.COMM_CHARS]


def _leave_the_server(spec: WorkerSpec, gate_fd: int, stderr_fd: int) -> None:
    os.setsid()
    linux.set_name(process_name(spec))
    _take_descriptors(gate_fd, stderr_fd)
    faulthandler.disable()  # else enable() below would take the handlers just dropped for its own
    _default_signals()
    faulthandler.enable(file=2)


def _take_descriptors(gate_fd: int, stderr_fd: int) -> None:
    """Keep the null device as stdin, the front's pipe as stdout and stderr, the gate; close all else."""
    # Copies above the targets first: either may lie on a number that is about to be overwritten.
    above = LIFELINE_FD + 1
    stderr_copy = fcntl.fcntl(stderr_fd, fcntl.F_DUPFD_CLOEXEC, above)
    gate_copy = fcntl.fcntl(gate_fd, fcntl.F_DUPFD_CLOEXEC, above)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(stderr_copy, 1)
    os.dup2(stderr_copy, 2)
    os.dup2(gate_copy, LIFELINE_FD, inheritable=False)
    os.closerange(above, _descriptor_limit())


def _descriptor_limit() -> int:
    """Return a number no open descriptor reaches (close_range(2) takes any; a loop would take its time)."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 1 << 20  # the kernel's default fs.nr_open
    return most if hard == resource.RLIM_INFINITY else max(hard, 1024)


def _default_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - _KEPT_IGNORED:
        with contextlib.suppress(OSError, ValueError):  # SIGKILL, SIGSTOP and those libc keeps
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _gate_opens(fd: int) -> bool:
    """Wait for the byte that lets this worker begin; False when the front went away instead."""
    if not os.read(fd, 1):
        return False
    linux.end_with_pipe(fd)
    # An end between the byte and the line above raised no signal.
    poll = select.poll()
    poll.register(fd, 0)
    return not poll.poll(0)


def _say(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # nobody reads stderr any more
        sys.stderr.write(text)
        sys.stderr.flush()
