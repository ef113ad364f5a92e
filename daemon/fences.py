"""Workers that an earlier daemon left behind: each holds its device until the end of all of its process group is seen.

They are no children of this process; a pidfd proves their end all the same. A worker's pid is its group's id and its
session's: where the worker itself is gone, what is left of them (a probe's command) holds the device in its place.
"""

import os
import signal
from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from devd.daemon import proc
from devd.daemon.memory import WorkerMark
from devd.ipc.messages import Node


@dataclass(frozen=True, slots=True)
class Fence:
    """One worker of an earlier daemon, and a pidfd for each process of it that is waited for."""

    device: str
    mark: WorkerMark
    holders: dict[int, int] = field(default_factory=dict)

    @property
    def pid(self) -> int:
        """Return the process that holds the device: the worker, or the first of what it left."""
        return next(iter(self.holders))

    @property
    def words(self) -> str:
        """Return who holds the device."""
        worker = f"worker {self.mark.pid} of an earlier devd"
        if self.mark.pid in self.holders:
            return worker
        return f"process {self.pid} ({proc.name(self.pid)}), which {worker} left,"


class Fences:
    """Owner of all pidfds. ``ended(device)`` is called once for each fence, when nothing holds it any more."""

    def __init__(self, loop: AbstractEventLoop, ended: Callable[[str], None]) -> None:
        self._loop = loop
        self._ended = ended
        self._held: dict[str, Fence] = {}

    def hold(self, marks: Mapping[str, WorkerMark]) -> None:
        """Wait for the ends of these devices' workers; those that are gone with all they left are passed over."""
        for device, mark in marks.items():
            self._held[device] = fence = Fence(device, mark)
            pidfd = _opened(mark.pid, mark.started_ticks)
            if pidfd is not None:
                self._wait(fence, mark.pid, pidfd)
        orphaned = [self._held[device] for device in marks if not self._held[device].holders]
        if orphaned:
            self._hold_groups(orphaned)
        for fence in orphaned:
            if not fence.holders:
                del self._held[fence.device]

    def __iter__(self) -> Iterator[Fence]:
        return iter(list(self._held.values()))

    def of(self, device: str, nodes: Iterable[Node]) -> Fence | None:
        """Return what holds a device: its own fence, or one that holds one of its nodes under another id."""
        if not self._held:
            return None
        return self._held.get(device) or next((one for one in self if same_node(one.mark.nodes, nodes)), None)

    def mark(self, pid: int) -> WorkerMark | None:
        """Return the mark of the fence that a process holds, or None."""
        return next((one.mark for one in self if pid in one.holders), None)

    def kill(self, fence: Fence) -> None:
        """SIGKILL the worker that holds a device: it dies when the kernel lets it.

        What a worker left has had its SIGKILL with the worker's end; that it is the worker's is inferred from numbers,
        which is enough to wait for a process, and not to kill it.
        """
        pidfd = fence.holders.get(fence.mark.pid)
        if pidfd is not None:
            with suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)

    def close(self) -> None:
        """Wait for none of them any more; they stay in the state directory."""
        for fence in self:
            for pid in list(fence.holders):
                self._release(fence, pid)
        self._held.clear()

    def _hold_groups(self, fences: Iterable[Fence]) -> None:
        """Wait for what is left of each worker's group and session. One look at all processes of the node."""
        groups = proc.groups()
        for fence in fences:
            for one in groups.get(fence.mark.pid, ()):
                # Whoever started before the worker is of another that had the number.
                late = one.started_ticks >= fence.mark.started_ticks
                pidfd = _opened(one.pid, one.started_ticks) if late else None
                if pidfd is not None:
                    self._wait(fence, one.pid, pidfd)

    def _wait(self, fence: Fence, pid: int, pidfd: int) -> None:
        if pid in fence.holders:
            os.close(pidfd)
            return
        fence.holders[pid] = pidfd
        self._loop.add_reader(pidfd, self._over, fence, pid)

    def _over(self, fence: Fence, pid: int) -> None:
        self._release(fence, pid)
        if fence.holders:
            return
        self._hold_groups([fence])
        if not fence.holders:
            del self._held[fence.device]
            self._ended(fence.device)

    def _release(self, fence: Fence, pid: int) -> None:
        pidfd = fence.holders.pop(pid)
        self._loop.remove_reader(pidfd)
        os.close(pidfd)


def same_node(some: Iterable[Node], others: Iterable[Node]) -> str:
    """Return the path of a node that stands in both, as the first names it, or nothing. Numbers count.

    A node that belongs to a whole driver is held by nobody.
    """
    numbers = {(one.kind, one.major, one.minor) for one in others if not one.shared}
    return next((one.path for one in some if not one.shared and (one.kind, one.major, one.minor) in numbers), "")


def _opened(pid: int, started_ticks: int) -> int | None:
    """Return a pidfd of that very process; None when it is gone, or somebody else has its number."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    # Only now is it sure that the number will not change its owner under us.
    if proc.start_time_ticks(pid) == started_ticks:
        return pidfd
    os.close(pidfd)
    return None
