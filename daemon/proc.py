"""What /proc says of one of our own processes: only reads that cannot block, whatever the process hangs in.

``/proc/PID/{stat,wchan,status}`` are answered from the task alone; cmdline, environ, maps and fd are not (they take
the process's memory lock or walk to the hung file) and are never read here.
"""

import os
from collections.abc import Collection
from pathlib import Path

PROC = Path("/proc")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")

SECCOMP_FILTER = "2"
"""proc_pid_status(5): the process stands behind a filter."""

STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "in uninterruptible sleep",
    "T": "stopped",
    "t": "traced",
    "Z": "dead, its end not collected yet",
    "X": "dead",
    "I": "idle",
}


def observe(pid: int) -> str:
    """Return state, kernel wait channel and (as root) the kernel stack of a process, in one line."""
    state = _state(pid)
    if state is None:
        return f"process {pid} is gone"
    words = f"process {pid} is {STATES.get(state, state)} ({state})"
    channel = _read(PROC / str(pid) / "wchan")
    if channel and channel != "0":
        words += f" in {channel}"
    stack = _read(PROC / str(pid) / "stack")
    if stack:
        calls = [line.split("] ", 1)[-1].split("+")[0] for line in stack.splitlines()]
        words += f", kernel stack {' < '.join(calls[:6])}"
    return words


def contradicted(pid: int, claimed: Collection[str], uid: int) -> str:
    """Return a layer of the sandbox that a process claims to stand behind and does not, by the kernel's word.

    Only what /proc/PID/status shows can be seen from outside; nothing is returned for a process that is gone.
    """
    fields = dict(line.split(":\t", 1) for line in _read(PROC / str(pid) / "status").splitlines() if ":\t" in line)
    if not fields:
        return ""
    seen = {
        "no_new_privs": fields.get("NoNewPrivs") == "1",
        "seccomp": fields.get("Seccomp") == SECCOMP_FILTER,
        "identity": fields.get("Uid", "").split()[:2] == [str(uid)] * 2,
    }
    return next((layer for layer, there in seen.items() if layer in claimed and not there), "")


def used_s(pid: int) -> float:
    """Return the processor time a process and its threads have used, in seconds; 0.0 for one that is gone."""
    fields = _stat_fields(pid)
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S if fields else 0.0


def stopped(pid: int) -> bool:
    """Return whether a process was stopped (SIGSTOP) or is held by a debugger."""
    return _state(pid) in {"T", "t"}


def start_time_ticks(pid: int) -> int | None:
    """Return field 22 of /proc/PID/stat (clock ticks since boot): with the boot id it names a process for good."""
    fields = _stat_fields(pid)
    return int(fields[19]) if fields else None


def _state(pid: int) -> str | None:
    fields = _stat_fields(pid)
    return fields[0] if fields else None


def _stat_fields(pid: int) -> list[str]:
    """Return the fields after the command name, which may itself hold spaces and parentheses."""
    text = _read(PROC / str(pid) / "stat")
    return text.rpartition(")")[2].split() if text else []


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
