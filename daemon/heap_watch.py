"""Watches the front's own memory on the event loop, and has whoever makes it grow without end be ended.

What is read cannot block: /proc/self/statm, the kernel's queues of our own sockets, the workers' /proc/PID/stat.
"""

import ctypes
import logging
import os
import time
from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable
from pathlib import Path

from devd.daemon import proc
from devd.daemon.heap_rules import MIB, Accepted, Culprit, HeapRules, Seen
from devd.daemon.waiting_bytes import waiting
from devd.daemon.workforce import Workforce
from devd.ipc.endpoints import RuntimeLayout

LOOK_S = 0.1
"""Several times within what a sender takes to fill BOUND_BYTES: some 400 MiB a second were measured. Costs 20 us."""
_STATM = Path("/proc/self/statm")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

log = logging.getLogger("devd.heap")


class HeapWatch:
    """``misbehaved`` gets a worker's id and what it did; ``cut`` ends all connections of the control socket."""

    def __init__(
        self,
        loop: AbstractEventLoop,
        workforce: Workforce,
        layout: RuntimeLayout,
        misbehaved: Callable[[str, str], None],
        cut: Callable[[str], None],
    ) -> None:
        """Begin. Make it before the first worker: what is used now is what everything is measured by."""
        self._loop = loop
        self._workforce = workforce
        self._layout = layout
        self._misbehaved = misbehaved
        self._cut = cut
        self._trim = _trimmer()
        self._rules = HeapRules(_resident_bytes())
        self.ended = 0
        """How often somebody was ended for it."""
        self.accepted = 0
        """How often the memory had grown and nobody was to be found."""
        self._timer: TimerHandle = loop.call_later(LOOK_S, self._look)

    def close(self) -> None:
        """Watch no longer."""
        self._timer.cancel()

    def _look(self) -> None:
        self._timer = self._loop.call_later(LOOK_S, self._look)
        pids = self._workforce.pids
        try:
            resident_bytes = _resident_bytes()
            if not self._rules.alarmed(resident_bytes, len(pids)):
                return
            # What was freed meanwhile, by one that was ended, is not anybody's growth.
            self._trim()
            resident_bytes = _resident_bytes()
            found = waiting(self._layout.root)
        except OSError:
            return  # no descriptor to be had this time
        control = str(self._layout.control)
        # One that was ended a moment ago may have left something behind.
        senders = frozenset(one.pid for one in found if one.pid in pids or one.socket == control)
        used_s = {pid: proc.used_s(pid) for pid in pids}
        verdict = self._rules.judge(Seen(time.monotonic(), resident_bytes, len(pids), senders, used_s))
        if isinstance(verdict, Culprit):
            self._end(verdict)
        elif isinstance(verdict, Accepted):
            self.accepted += 1
            text = "the daemon's memory has grown by %d MiB and nobody is found who sends it; it is taken as normal now"
            log.error(text, verdict.grown_bytes // MIB, extra={"event": "memory"})

    def _end(self, found: Culprit) -> None:
        self.ended += 1
        device = self._workforce.device_of(found.pid)
        if device:
            self._misbehaved(device, found.why)
        else:
            self._cut(f"{found.why} (pid {found.pid})")


def _resident_bytes() -> int:
    """Return what of this process is in memory. Raises OSError."""
    return int(_STATM.read_text(encoding="ascii").split()[1]) * _PAGE_BYTES


def _trimmer() -> Callable[[], object]:
    """Return what gives freed memory back to the kernel: glibc keeps it, other C libraries have no such call."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return (lambda: None) if trim is None else (lambda: trim(0))
