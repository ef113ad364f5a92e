"""Who has device nodes open, and what is mounted: the front's look at /proc for workers that may not look themselves.

Landlock hides other processes from a worker, and a reset must know them. Nothing here touches a device: links in /proc
are read, and never followed. It takes some milliseconds on a busy node, so a thread does it.
"""

import os
import re
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from devd.ipc.messages import Mounted, OpenFile, Usage

PROC = Path("/proc")
FIRST_PID_NAMESPACE = "pid:[4026531836]"
"""PROC_PID_INIT_INO of linux/proc_ns.h, the same on every machine."""
MAX_OPEN = 5000
MAX_MOUNTS = 5000
"""More than any node has; a message must stay below its bound."""
PATH_CHARS = 200
MAX_NAMED = 4
"""Processes named in one reason; of more the number is told."""

_MOUNTINFO_FIELDS = 5
_ORDINARY = re.compile(r"/dev/(null|zero|full|u?random|tty\d*|console|ptmx|pts/.*|shm/.*|mqueue/.*|log|hugepages/.*)")
_REGION = re.compile(r"/sys/devices/.*/resource\d+(_wc)?")
"""A PCI function's memory, mapped by its driver in user space."""

Then = Callable[[Usage], None]


class Census:
    """One look at a time, for all who asked before it began."""

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[Then] = []
        self._looking = False
        self._closed = False

    def ask(self, then: Then) -> None:
        """Look, and call ``then`` with what was seen, on the event loop."""
        self._waiting.append(then)
        self._begin()

    def close(self) -> None:
        """Tell nobody any more."""
        self._closed = True
        self._waiting.clear()

    def _begin(self) -> None:
        if self._looking or not self._waiting or self._closed:
            return
        asked, self._waiting = self._waiting, []
        self._looking = True
        looked: Future[Usage] = self._loop.run_in_executor(None, look)
        looked.add_done_callback(lambda done: self._ended(done, asked))

    def _ended(self, done: "Future[Usage]", asked: list[Then]) -> None:
        self._looking = False
        if done.cancelled() or self._closed:
            return
        error = done.exception()
        usage = Usage(unseen=f"/proc cannot be read: {error}") if error is not None else done.result()
        for then in asked:
            then(usage)
        self._begin()


def look(proc: Path = PROC) -> Usage:
    """Return what is in use on this node, as its first pid namespace shows it. Raises OSError without /proc."""
    if _target(proc / "self/ns/pid") not in ("", FIRST_PID_NAMESPACE):
        return Usage(unseen="processes outside this container cannot be seen: give devd the host's pid namespace")
    found: list[OpenFile] = []
    closed: list[int] = []
    for pid in sorted(int(name) for name in os.listdir(proc) if name.isdecimal()):  # noqa: PTH208 - names are wanted
        try:
            found.extend(_open_by(proc, pid))
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended meanwhile
        except PermissionError:
            closed.append(pid)
    mounts = tuple(_mounts(proc))
    unseen = _closed(proc, closed)
    if len(found) > MAX_OPEN or len(mounts) > MAX_MOUNTS:
        unseen = f"more than {MAX_OPEN} open devices or {MAX_MOUNTS} mounts: not all were looked at"
    return Usage(tuple(found[:MAX_OPEN]), mounts[:MAX_MOUNTS], unseen)


def _closed(proc: Path, pids: list[int]) -> str:
    """Return in words whose descriptors may not be read, "" for nobody's."""
    if not pids:
        return ""
    named = ", ".join(f"{pid} ({_program(proc, pid)})" for pid in pids[:MAX_NAMED])
    more = f" and {len(pids) - MAX_NAMED} more" if len(pids) > MAX_NAMED else ""
    return f"what pid {named}{more} has open may not be looked at: run devd as root, with CAP_SYS_PTRACE"


def _program(proc: Path, pid: int) -> str:
    try:
        return (proc / str(pid) / "comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "?"


def _open_by(proc: Path, pid: int) -> list[OpenFile]:
    """Return the devices a process has open, each once. Raises OSError."""
    folder = proc / str(pid) / "fd"
    paths = dict.fromkeys(_target(folder / name) for name in os.listdir(folder))  # noqa: PTH208 - names are wanted
    devices = [path for path in paths if _counts(path)]
    if not devices:
        return []
    program = _program(proc, pid)
    return [OpenFile(pid, program, path[:PATH_CHARS]) for path in devices]


def _counts(path: str) -> bool:
    if path.startswith("/dev/"):
        return not _ORDINARY.fullmatch(path)
    return _REGION.fullmatch(path) is not None


def _mounts(proc: Path) -> Iterator[Mounted]:
    """Yield the mounts of the first process, which are the node's own, and of this one."""
    seen: set[Mounted] = set()
    for pid in ("1", "self"):
        with suppress(OSError):
            for line in (proc / pid / "mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
                fields = line.split(" ", _MOUNTINFO_FIELDS)
                major, colon, minor = fields[2].partition(":") if len(fields) >= _MOUNTINFO_FIELDS else ("", "", "")
                if colon and major.isdecimal() and minor.isdecimal() and int(major):  # 0 is no block device
                    one = Mounted(int(major), int(minor), fields[4][:PATH_CHARS])
                    if one not in seen:
                        seen.add(one)
                        yield one


def _target(link: Path) -> str:
    try:
        return os.readlink(link)  # noqa: PTH115 - text is wanted
    except FileNotFoundError:
        return ""
