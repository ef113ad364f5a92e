"""What /proc says of our own processes and their groups: only reads that cannot block, whatever the process hangs in.

``/proc/PID/{stat,wchan,status}`` are answered from the task alone; cmdline, environ, maps and fd are not (they take
the process's memory lock or walk to the hung file) and are never read here.
"""

import os
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
LOOK_AGAIN_S = 1.0
"""How old a look at all processes may be: it takes some 10 ms on a busy node, and hundreds may ask at once."""
MAX_NAMED = 3
"""Processes of a group that are told of."""
MAX_DESCENDANTS = 64
"""Of a worker, that are looked at."""

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


def name(pid: int) -> str:
    """Return the name of a process, or "?" for one that is gone."""
    text = _read(PROC / str(pid) / "stat")
    return text.partition("(")[2].rpartition(")")[0] or "?"


@dataclass(frozen=True, slots=True)
class Member:
    """A process that is more than a zombie: its pid, and its start as in ``start_time_ticks``."""

    pid: int
    started_ticks: int


def groups() -> dict[int, list[Member]]:
    """Return what lives by the number of its process group, and of its session: a look at all processes of the node."""
    found: dict[int, list[Member]] = {}
    for entry in os.listdir(PROC):  # noqa: PTH208 - names are wanted
        fields = _stat_fields(int(entry)) if entry.isdecimal() else []
        if not fields or (fields[0] in "ZX" and int(fields[17]) <= 1):
            continue
        for number in {int(fields[2]), int(fields[3])}:
            found.setdefault(number, []).append(Member(int(entry), int(fields[19])))
    return found


class Groups:
    """What workers hang in, where it may be a process they started."""

    def __init__(self) -> None:
        self._seen: Mapping[int, list[Member]] = {}
        self._seen_at_s = 0.0

    def observe(self, worker: int) -> str:
        """Return as ``observe`` does, for a worker and whoever of its group holds its device in its place."""
        state = _state(worker)
        if state in {"D", "T", "t"}:
            return observe(worker)
        if state is not None and state not in "ZX":
            return "; ".join(one for one in (observe(worker), stuck(worker)) if one)
        left = [one.pid for one in self._members(worker) if one.pid != worker]
        if not left:
            return observe(worker)
        # Who sleeps uninterruptibly is who holds it.
        left.sort(key=lambda pid: _state(pid) != "D")
        shown = "; ".join(_named(pid) for pid in left[:MAX_NAMED])
        return f"process {worker} is gone, what it started is left: {shown}"

    def _members(self, leader: int) -> list[Member]:
        now_s = time.monotonic()
        if now_s - self._seen_at_s > LOOK_AGAIN_S:
            self._seen, self._seen_at_s = groups(), now_s
        return self._seen.get(leader, [])


def stuck(worker: int) -> str:
    """Return which processes that a worker has started sleep uninterruptibly, as ``observe`` does, or nothing."""
    pids = [pid for pid in _descendants(worker) if _state(pid) == "D"]
    return "; ".join(f"its {_named(pid)}" for pid in pids[:MAX_NAMED])


def _named(pid: int) -> str:
    """Return what ``observe`` does, with the process's name."""
    return observe(pid).replace(f"process {pid} ", f"process {pid} ({name(pid)}) ", 1)


def _descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, and theirs; none where the kernel lacks CONFIG_PROC_CHILDREN."""
    found: list[int] = []
    waiting = [pid]
    while waiting and len(found) < MAX_DESCENDANTS:
        one = waiting.pop()
        try:
            tasks = list((PROC / str(one) / "task").iterdir())
        except OSError:
            continue
        children = [int(child) for task in tasks for child in _read(task / "children").split()]
        found += children
        waiting += children
    return found


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
