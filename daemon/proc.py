"""What /proc says of one of our own processes: only reads that cannot block, whatever the process hangs in.

``/proc/PID/{stat,wchan,status}`` are answered from the task alone; cmdline, environ, maps and fd are not (they take
the process's memory lock or walk to the hung file) and are never read here.
"""

from pathlib import Path

PROC = Path("/proc")

STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "in uninterruptible sleep",
    "T": "stopped",
    "t": "traced",
    "Z": "zombie",
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
