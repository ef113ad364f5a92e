"""The fork server's children: who lives, who has ended, and whose process group still has something in it.

A worker's pid is its process group's id (setsid). The group is killed while the worker's zombie still pins that
number, and the worker's end is told only once the group is empty: nothing that was its is left then.
"""

import os
import select
import time
from dataclasses import dataclass, field

from devd.ipc.messages import ChildExit
from devd.workers import linux

GROUP_POLL_S = 0.05
"""How often a process group whose leader is reaped is looked at; only while there is one."""
LAST_WAIT_S = 0.5
"""What ``kill_all`` waits for the killed: they need milliseconds; one that needs more hangs in the kernel."""


@dataclass
class Children:
    """All processes forked here. Single-threaded; nothing here blocks but ``kill_all``, which is bounded."""

    _living: set[int] = field(default_factory=set)
    _lingering: dict[int, ChildExit] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._living) + len(self._lingering)

    @property
    def lingering(self) -> bool:
        """Whether a group waits to become empty, so that ``take_exits`` is due every ``GROUP_POLL_S``."""
        return bool(self._lingering)

    def add(self, pid: int) -> None:
        """Take a fresh child into account: its exit will be told."""
        self._living.add(pid)

    def take_exits(self) -> list[ChildExit]:
        """Reap whoever has ended and return the exits that are complete: worker and group are gone."""
        reaped = False
        while (pid := _next_dead()) is not None:
            self._reap(pid)
            reaped = True
        if reaped:
            self._kill_strays()
        done = [pid for pid in self._lingering if not linux.group_exists(pid)]
        return [self._lingering.pop(pid) for pid in done]

    def _reap(self, pid: int) -> None:
        known = pid in self._living
        if known:
            linux.kill_group(pid)
        _, status, usage = os.wait4(pid, 0)  # a zombie for certain: does not block
        if not known:
            return  # an orphan of a worker's command, or a child that was given up at birth
        self._living.discard(pid)
        ended_by_signal = os.WIFSIGNALED(status)
        self._lingering[pid] = ChildExit(
            pid=pid,
            code=-1 if ended_by_signal else os.WEXITSTATUS(status),
            signal=os.WTERMSIG(status) if ended_by_signal else -1,
            user_s=usage.ru_utime,
            system_s=usage.ru_stime,
            max_rss_kib=usage.ru_maxrss,
        )

    def _kill_strays(self) -> None:
        """Kill what a worker's command left behind outside its group: this process adopts it (subreaper).

        The death of one may bring its own children here, with another SIGCHLD.
        """
        for pid in linux.children():
            if pid not in self._living:
                linux.kill(pid)

    def kill_all(self) -> None:
        """SIGKILL every child, its group and every stray; wait for their ends, ``LAST_WAIT_S`` at the most."""
        for pid in self._living:
            linux.kill(pid)  # it may not have made its own group yet
            linux.kill_group(pid)
        until_s = time.monotonic() + LAST_WAIT_S
        self.take_exits()
        while len(self) and time.monotonic() < until_s:
            select.poll().poll(5)
            self.take_exits()


def _next_dead() -> int | None:
    """Return the pid of a zombie child without reaping it, or None."""
    try:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if ended is None else ended.si_pid
