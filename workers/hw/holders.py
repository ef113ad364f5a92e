"""Who uses a device: kernel users of a block device, processes with a node open. Nothing here opens the device.

What cannot be looked at is not "nobody": each look says what it could not see, and a reset refuses then.
"""

import errno
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from devd.ipc.messages import Usage
from devd.workers.errors import explain
from devd.workers.hw import attributes

MAX_NAMED = 8
"""Users named in one reason; of more the number is told."""
_MOUNTINFO_FIELDS = 5
_FIRST_PID_NAMESPACE = "pid:[4026531836]"
"""PROC_PID_INIT_INO of linux/proc_ns.h, the same on every machine."""


@dataclass(frozen=True, slots=True)
class Users:
    """Who is in the way, in words ("mounted on /data", "pid 7 (fio) has /dev/nvme0n1 open").

    ``unseen`` stands among ``found`` as well: what could not be looked at may be in the way.
    """

    found: tuple[str, ...] = ()
    unseen: str = ""

    @property
    def known(self) -> tuple[str, ...]:
        """Return those that were seen."""
        return tuple(one for one in self.found if one != self.unseen)

    def words(self) -> str:
        """Return all of them as one text, "" for nobody."""
        named = ", ".join(self.found[:MAX_NAMED])
        return f"{named} and {len(self.found) - MAX_NAMED} more" if len(self.found) > MAX_NAMED else named


_told: ContextVar[Usage | None] = ContextVar("_told", default=None)


@contextmanager
def as_told(usage: Usage | None) -> Iterator[None]:
    """Answer from what the front saw instead of /proc: the sandbox hides other processes from a worker."""
    token = _told.set(usage)
    try:
        yield
    finally:
        _told.reset(token)


def of_block(root: Path, name: str) -> Users:
    """Return what the kernel does with a block device and its partitions: holders, mounts, swap. Raises OSError."""
    folder = root / "sys/class/block" / name
    found: list[str] = []
    for part in (name, *partitions(root, name)):
        directory = folder if part == name else folder / part
        found.extend(f"{part} is held by {holder}" for holder in attributes.names(directory / "holders"))
        numbers = attributes.device_number(directory)
        if numbers is not None:
            found.extend(f"{part} is mounted on {where}" for where in _mounts(root, numbers))
        if part in _swaps(root):
            found.append(f"{part} is swap space")
    return Users(tuple(dict.fromkeys(found)))


def partitions(root: Path, name: str) -> list[str]:
    """Return a block device's partitions, which are entries of its own directory. Raises OSError."""
    folder = root / "sys/class/block" / name
    return [one for one in attributes.names(folder) if (folder / one / "partition").exists()]


def of_nodes(root: Path, paths: Collection[str]) -> Users:
    """Return the processes that have one of these nodes open or mapped by the path's own name, and whose they are.

    A device that was given to another container counts, open or not; PCI addresses among ``paths`` ask for that alone.

    Only links in /proc are read: a stat of what they lead to can hang with the device. A process whose descriptors
    may not be read is named as one that could not be looked at. One that opened the node under another name (a
    container with a path of its own) shows that name, and is not seen.
    """
    told = _told.get()
    if told is not None:
        return _of_told(told, paths)
    if not _sees_all(root):
        hidden = "processes outside this container cannot be seen: give devd the host's pid namespace"
        return Users((hidden,), hidden)
    own = str(os.getpid())
    found: list[str] = []
    closed = 0
    for pid in attributes.names(root / "proc"):
        if not pid.isdecimal() or pid == own:
            continue
        try:
            opened = _open_paths(root / "proc" / pid / "fd") & set(paths)
        except ProcessLookupError:
            continue  # ended meanwhile
        except PermissionError:
            closed += 1
            continue
        found.extend(f"pid {pid} ({_comm(root, pid)}) has {path} open" for path in sorted(opened))
    unseen = f"{closed} processes may not be looked at" if closed else ""
    return Users((*found, unseen) if unseen else tuple(found), unseen)


def of_exclusive(path: Path) -> Users:
    """Return whether a block device is claimed in any mount namespace: an exclusive open is refused then.

    The open is for reading and changes nothing. Not for character devices. Raises OSError.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.EBUSY:
            return Users((explain("exclusive open", str(path), error),))
        raise
    os.close(fd)
    return Users()


def _of_told(told: Usage, paths: Collection[str]) -> Users:
    own = os.getpid()
    found = [
        f"pid {one.pid} ({one.program}) has {one.path} open"
        for one in told.open_files
        if one.path in paths and one.pid != own
    ]
    found.extend(one.holder for one in told.allocated if not set(paths).isdisjoint(one.names))
    return Users((*found, told.unseen) if told.unseen else tuple(found), told.unseen)


def _mounts(root: Path, numbers: tuple[int, int]) -> list[str]:
    """Return where a device is mounted, as the first process and this one see it."""
    told = _told.get()
    if told is not None:
        return [one.where for one in told.mounts if (one.major, one.minor) == numbers]
    wanted = f"{numbers[0]}:{numbers[1]}"
    found: dict[str, None] = {}
    for pid in ("1", "self"):
        for line in (attributes.content(root / "proc" / pid / "mountinfo") or "").splitlines():
            fields = line.split(" ", _MOUNTINFO_FIELDS)
            if len(fields) >= _MOUNTINFO_FIELDS and fields[2] == wanted:
                found[fields[4]] = None
    return list(found)


def _swaps(root: Path) -> set[str]:
    """Return the kernel's names of the block devices that are swapped to."""
    lines = (attributes.content(root / "proc/swaps") or "").splitlines()[1:]
    return {line.split(maxsplit=1)[0].rpartition("/")[2] for line in lines if line.strip()}


def _open_paths(directory: Path) -> set[str]:
    """Return where a process's descriptors lead. Raises PermissionError."""
    found = set()
    for name in attributes.names(directory):
        try:
            found.add(os.readlink(directory / name))  # noqa: PTH115 - text is wanted
        except FileNotFoundError:
            continue  # closed meanwhile
    return found


def _sees_all(root: Path) -> bool:
    """Return whether /proc is the whole machine's; told by the number the kernel gives its first pid namespace."""
    return attributes.target(root / "proc/self/ns/pid") in ("", _FIRST_PID_NAMESPACE)


def _comm(root: Path, pid: str) -> str:
    try:
        return attributes.text(root / "proc" / pid / "comm") or "?"
    except OSError:
        return "?"
