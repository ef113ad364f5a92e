"""What the daemon's own process uses: read from /proc/self, which cannot block, and never of another process."""

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path

_SELF = Path("/proc/self")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_THREADS, _START_TICKS = 17, 19
"""Places in /proc/self/stat behind the command name: fields 20 and 22 of proc(5)."""


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """One reading. Memory in bytes; ``started_s`` is Unix time."""

    cpu_s: float
    resident_bytes: int
    virtual_bytes: int
    open_fds: int
    max_fds: float
    threads: int
    started_s: float


class OwnProcess:
    """Reads what this process uses; keeps when it was started."""

    def __init__(self) -> None:
        age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - int(_stat()[_START_TICKS]) / _TICKS_PER_S
        self._started_s = time.time() - age_s

    def read(self) -> ProcessUse:
        """Return what is used now. Raises OSError where /proc cannot be read, as without a free descriptor."""
        times = os.times()
        virtual, resident = (_SELF / "statm").read_text(encoding="ascii").split()[:2]
        most_fds, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return ProcessUse(
            cpu_s=times.user + times.system,
            resident_bytes=int(resident) * _PAGE_BYTES,
            virtual_bytes=int(virtual) * _PAGE_BYTES,
            open_fds=_open_fds(),
            max_fds=float("inf") if most_fds == resource.RLIM_INFINITY else most_fds,
            threads=int(_stat()[_THREADS]),
            started_s=self._started_s,
        )


def _open_fds() -> int:
    # Kernels since 6.2 say how many there are; before that the size is 0, and a listing of thousands takes 3 ms.
    count = (_SELF / "fd").stat().st_size
    # One of those listed is the listing's own.
    return count or len(os.listdir(_SELF / "fd")) - 1  # noqa: PTH208 - a count is all that is wanted


def _stat() -> list[str]:
    """Return the fields after the command name, which may itself hold spaces and parentheses."""
    return (_SELF / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
