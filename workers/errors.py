"""The errors of worker processes, and how a failed system call is told to an operator."""

import errno
import os

EXIT_STOPPED = 0
"""A worker that was asked to stop, or whose front is gone."""
EXIT_CRASHED = 1
"""An error nobody foresaw; the traceback stands on stderr."""
EXIT_BAD_SPEC = 78
"""EX_CONFIG of sysexits.h: the spec itself is wrong, another start would end the same."""


class WorkerError(Exception):
    """Base of every error this package raises on purpose."""


class SpecError(WorkerError):
    """Raised when a spec handed to a worker cannot be carried out: a parameter is missing, unknown or ill-typed."""


class ProbeError(WorkerError):
    """Raised when a probe found its device unwell; the text is the reason an operator reads."""


class OutOfReachError(ProbeError):
    """Raised when what discovery said of a device would lead its worker to something that is no device's."""


class ResetError(WorkerError):
    """Raised when a reset did not work; the text is the reason an operator reads."""


class BusLostError(WorkerError):
    """Raised when the front does not answer on the health bus: the worker cannot be heard and ends."""


class NodeRenewedError(WorkerError):
    """Raised when a path of the device leads to a file that was not there when the sandbox was made: start again."""


class SandboxBrokenError(WorkerError):
    """Raised when what must not work works behind the sandbox: who cannot say so by a verdict ends."""


class DeviceGoneError(WorkerError):
    """Raised when a worker found nothing of its device at its start and has said so for a while: start again."""


class StaleDriverError(WorkerError):
    """Raised when what this process has loaded of a driver fits it no longer: start again."""


def explain(call: str, path: str, error: OSError) -> str:
    """Return a failed call in words: ``open /dev/x: EACCES (Permission denied): what to do``."""
    number = error.errno or 0
    name = errno.errorcode.get(number, f"errno {number}")
    text = f"{call} {path}: {name} ({os.strerror(number)})" if number else f"{call} {path}: {error}"
    advice = _advice(number)
    return f"{text}: {advice}" if advice else text


def _advice(number: int) -> str:
    if number in (errno.EACCES, errno.EPERM):
        uid = os.geteuid()
        if uid == 0:
            return "the worker runs as root: a device cgroup, a security module or the driver itself refuses"
        return f"the worker runs as uid {uid}; run devd as root or add a group rule for the node, or widen its sandbox"
    return _ADVICE.get(number, "")


_ADVICE = {
    errno.ENOENT: "the node is gone",
    errno.ENXIO: "no driver or no hardware stands behind the node",
    errno.ENODEV: "no driver or no hardware stands behind the node",
    errno.EIO: "the hardware or its driver reports an error",
    errno.EROFS: "the filesystem is mounted read-only",
    errno.EMFILE: "the worker is at its limit of open files",
    errno.ENFILE: "the node is at its limit of open files",
}
