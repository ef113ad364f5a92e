"""Landlock: this process and its children see only the declared paths, and neither TCP nor strangers' processes.

What Landlock does not stop on any kernel so far: stat, chmod, chown and the like, connecting to unix sockets that have
a path, UDP. The uid and the system call filter do.
"""

import os
import stat
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from devd.workers.errors import ProbeError, explain
from devd.workers.probes.base import check_same
from devd.workers.sandbox import kernel
from devd.workers.sandbox.needs import PathNeed

# linux/landlock.h
_VERSION, _PATH_BENEATH = 1, 1
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REMOVE_DIR, REMOVE_FILE, MAKE_DIR, MAKE_REG, REFER = 1 << 4, 1 << 5, 1 << 7, 1 << 8, 1 << 13
TRUNCATE, IOCTL_DEV = 1 << 14, 1 << 15
_ALL_OF_ABI_1 = (1 << 13) - 1
_TCP_BIND_AND_CONNECT = 0b11
_ABSTRACT_SOCKETS_AND_SIGNALS = 0b11
ABI_REFER, ABI_TRUNCATE, ABI_TCP, ABI_IOCTL, ABI_SCOPES = 2, 3, 4, 5, 6

_FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
"""What a rule for something other than a directory may hold."""
_RIGHTS = {
    "l": READ_DIR,
    "r": READ_FILE | READ_DIR,
    "w": WRITE_FILE | TRUNCATE | MAKE_REG | MAKE_DIR | REMOVE_FILE | REMOVE_DIR | REFER,
    "x": EXECUTE,
    "i": IOCTL_DEV,
}
_RULE = struct.Struct("=Qi")

Seen = dict[str, tuple[int, int] | None]
"""Path -> (st_dev, st_ino) of what lay there when its rule was made; None for nothing, or something else."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One part of Landlock and the first ABI that has it."""

    name: str
    abi: int
    what: str


LATER_LAYERS = (
    Layer("landlock_truncate", ABI_TRUNCATE, "truncating files"),
    Layer("landlock_tcp", ABI_TCP, "TCP"),
    Layer("landlock_ioctl", ABI_IOCTL, "ioctls of devices"),
    Layer("landlock_scopes", ABI_SCOPES, "signals and abstract sockets of other processes"),
)


def abi() -> int:
    """Return the version of Landlock the kernel has, from 1. Raises OSError: ENOSYS without it, EOPNOTSUPP when off."""
    return kernel.call("landlock_create_ruleset", 0, 0, _VERSION)


def restrict(paths: Iterable[PathNeed], version: int, *, tcp: bool) -> Seen:
    """Confine this thread, and what it starts from now on, to ``paths``; no_new_privs must be set. Raises OSError.

    Call it while there is one thread: those there are already stay outside. A path that does not exist gives nothing.
    """
    handled = _handled(version)
    ruleset = _create(handled, version, tcp=tcp)
    seen: Seen = {}
    try:
        for need in paths:
            seen[need.path] = _allow(ruleset, need, handled)
        kernel.call("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)
    return seen


def lies_there(need: PathNeed) -> tuple[int, int] | None:
    """Return what ``restrict`` would see now: (st_dev, st_ino), or None. Raises OSError when it cannot be told."""
    try:
        status = os.stat(need.path)  # noqa: PTH116 - text paths throughout
    except (FileNotFoundError, NotADirectoryError):
        return None
    return None if _is_another(need, status) else (status.st_dev, status.st_ino)


def _handled(version: int) -> int:
    handled = _ALL_OF_ABI_1
    for right, since in ((REFER, ABI_REFER), (TRUNCATE, ABI_TRUNCATE), (IOCTL_DEV, ABI_IOCTL)):
        if version >= since:
            handled |= right
    return handled


def _create(handled: int, version: int, *, tcp: bool) -> int:
    """Return a new ruleset. The kernel refuses a structure that is longer than its own and not zero behind that."""
    fields = [handled]
    if version >= ABI_TCP:
        fields.append(0 if tcp else _TCP_BIND_AND_CONNECT)
    if version >= ABI_SCOPES:
        fields.append(_ABSTRACT_SOCKETS_AND_SIGNALS)
    packed = struct.pack(f"={len(fields)}Q", *fields)
    return kernel.call("landlock_create_ruleset", packed, len(packed), 0)


def _allow(ruleset: int, need: PathNeed, handled: int) -> tuple[int, int] | None:
    try:
        fd = os.open(need.path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return None  # nothing there, or not for this user: then nothing is allowed either
    try:
        status = os.fstat(fd)
        if _is_another(need, status):
            return None
        rights = 0
        for letter in need.rights:
            rights |= _RIGHTS[letter]
        rights &= handled
        if not stat.S_ISDIR(status.st_mode):
            rights &= _FILE_RIGHTS
        if not rights:
            return status.st_dev, status.st_ino
        try:
            kernel.call("landlock_add_rule", ruleset, _PATH_BENEATH, _RULE.pack(rights, fd), 0)
        except OSError as error:
            raise OSError(error.errno, explain("landlock rule for", need.path, error)) from error
    finally:
        os.close(fd)
    return status.st_dev, status.st_ino


def _is_another(need: PathNeed, status: os.stat_result) -> bool:
    """Return whether a path leads to something else than discovery saw: no worker gets another's device."""
    if need.node is None:
        return False
    try:
        check_same(need.node, status)
    except ProbeError:
        return True
    return False
