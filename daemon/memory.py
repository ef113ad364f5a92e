"""What is kept of a device across restarts of devd, as the bytes of one small file. Pure.

What a reboot cures is worth nothing after one: worker, failure and flaps count only under the boot id they were
written under. A cordon is an operator's word and stays.
"""

import json
import zlib
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path

from devd.daemon.device_state import BLANK, Memory
from devd.ipc.messages import Node

VERSION = 1
"""Written into each file. It grows when a field changes its meaning; fields may be added without it, and a devd that
does not know them writes them again as they were."""
MAX_FILE_BYTES = 64 * 1024
"""A file holds two texts, a few numbers and a baseline."""
MAX_BASELINE_BYTES = 32 * 1024
"""As JSON; a counter takes some 120 bytes."""
MAX_FALLS = 1000
"""The most a configuration can count."""
MAX_NODES = 64
"""Nodes that are written down of what a worker holds; a device has a few."""


class MemoryCorruptError(Exception):
    """Raised when a file is not what devd wrote; the text says what is wrong with it."""


class MemoryNewerError(MemoryCorruptError):
    """Raised when a file is a newer devd's, and its fields may mean something else: no damage, and not to be lost."""


@dataclass(frozen=True, slots=True)
class Here:
    """Where monotonic times and pids have their meaning: this boot, and this namespace of pids."""

    boot_id: str
    pid_namespace: str


@dataclass(frozen=True, slots=True)
class WorkerMark:
    """A process for good: its pid, and when it started in clock ticks since boot (proc_pid_stat(5), field 22).

    ``nodes`` are those it was made for, under whatever id they are offered later, and ``resource`` who offered them.
    """

    pid: int
    started_ticks: int
    nodes: tuple[Node, ...] = ()
    resource: str = ""


@dataclass(frozen=True, slots=True)
class Kept:
    """One file's content. ``memory.worker`` is always the pid of ``worker``.

    ``baseline`` is the device's workers' own: it names its boot itself where that matters. ``departed`` says that the
    device left the node; ``unknown`` is what a newer devd wrote beside all that.
    """

    device: str
    memory: Memory
    worker: WorkerMark | None = None
    baseline: Mapping[str, object] = field(default_factory=dict)
    departed: bool = False
    unknown: Mapping[str, object] = field(default_factory=dict)

    @property
    def blank(self) -> bool:
        """Return whether there is nothing to keep."""
        return self.memory == BLANK and not self.baseline and not self.unknown


_KNOWN = frozenset(
    (
        *("version", "device", "boot_id", "pid_namespace", "cordon", "failed", "falls", "held", "cause"),
        *("worker", "worker_nodes", "worker_resource", "baseline", "departed"),
    )
)


def here() -> Here:
    """Return this boot's id and this process's pid namespace. Raises OSError where /proc is not to be had."""
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return Here(boot_id, str(Path("/proc/self/ns/pid").readlink()))


def encode(kept: Kept, place: Here) -> bytes:
    """Return a file's bytes: JSON on one line, with a checksum over all of it."""
    memory = kept.memory
    facts: dict[str, object] = {
        "version": VERSION,
        "device": kept.device,
        "boot_id": place.boot_id,
        "pid_namespace": place.pid_namespace,
        "cordon": memory.cordon,
        "failed": memory.failed,
        "falls": list(memory.falls),
        "held": memory.held,
        "cause": memory.cause,
        "worker": None if kept.worker is None else [kept.worker.pid, kept.worker.started_ticks],
        "worker_nodes": [] if kept.worker is None else list(map(list, map(astuple, kept.worker.nodes[:MAX_NODES]))),
        "worker_resource": "" if kept.worker is None else kept.worker.resource,
        "baseline": dict(kept.baseline),
        "departed": kept.departed,
    }
    facts = {**kept.unknown, **facts}
    return _line({**facts, "checksum": _checksum(facts)})


def decode(data: bytes, place: Here) -> Kept:
    """Return what a file says that still holds at this place. Raises MemoryCorruptError, or its MemoryNewerError."""
    try:
        facts = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MemoryCorruptError(f"not JSON: {error}") from error
    if not isinstance(facts, dict):
        raise MemoryCorruptError("no map")
    checksum = facts.pop("checksum", None)
    if checksum != _checksum(facts):
        raise MemoryCorruptError("the checksum does not fit")
    version = facts.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise MemoryNewerError(f"a newer devd wrote it, in version {version!r:.20}; this one knows {VERSION}")
    return _kept(facts, place)


def _kept(facts: Mapping[str, object], place: Here) -> Kept:
    cordon = facts.get("cordon")
    memory = replace(BLANK, cordon=None if cordon is None else _text(facts, "cordon"))
    device = _text(facts, "device")
    unknown = {name: value for name, value in facts.items() if name not in _KNOWN}
    kept = Kept(device, memory, None, _baseline(facts), facts.get("departed") is True, unknown)
    if facts.get("boot_id") != place.boot_id:
        return kept
    memory = replace(memory, failed=_text(facts, "failed"), falls=_falls(facts), held=facts.get("held") is True)
    if memory.held and "cause" in facts:
        memory = replace(memory, cause=_text(facts, "cause"))
    # Another namespace's pids name nobody here, or somebody else.
    worker = _worker(facts) if facts.get("pid_namespace") == place.pid_namespace else None
    return replace(kept, memory=replace(memory, worker=worker.pid if worker else None), worker=worker)


def baseline_fits(baseline: Mapping[str, object]) -> bool:
    """Return whether a worker's baseline is plain and small enough to be kept."""
    try:
        return len(_line(baseline)) <= MAX_BASELINE_BYTES
    except (TypeError, ValueError, RecursionError):
        return False


def _baseline(facts: Mapping[str, object]) -> dict[str, object]:
    value = facts.get("baseline", {})
    if not isinstance(value, dict):
        raise MemoryCorruptError("baseline is no map")
    return value


def _text(facts: Mapping[str, object], name: str) -> str:
    value = facts.get(name)
    if not isinstance(value, str):
        raise MemoryCorruptError(f"{name} is {value!r:.40}, a text is needed")
    return value


def _falls(facts: Mapping[str, object]) -> tuple[float, ...]:
    value = facts.get("falls")
    if not isinstance(value, list) or len(value) > MAX_FALLS or not all(_is_number(one) for one in value):
        raise MemoryCorruptError("falls is no list of numbers")
    return tuple(float(one) for one in value)


def _worker(facts: Mapping[str, object]) -> WorkerMark | None:
    match facts.get("worker"):
        case None:
            return None
        case [int() as pid, int() as ticks] if pid > 0 and ticks >= 0:
            resource = facts.get("worker_resource")
            return WorkerMark(pid, ticks, _nodes(facts), resource if isinstance(resource, str) else "")
    raise MemoryCorruptError("worker is no pair of pid and start time")


def _nodes(facts: Mapping[str, object]) -> tuple[Node, ...]:
    value = facts.get("worker_nodes", [])
    if not isinstance(value, list) or len(value) > MAX_NODES:
        raise MemoryCorruptError("worker_nodes is no list of nodes")
    return tuple(map(_node, value))


def _node(value: object) -> Node:
    match value:
        case [str() as path, ("char" | "block" | "other") as kind, int() as major, int() as minor, bool() as shared]:
            return Node(path, kind, major, minor, shared)
    raise MemoryCorruptError(f"worker_nodes has {value!r:.80}, which is no node")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def _checksum(facts: Mapping[str, object]) -> int:
    return zlib.crc32(_line(facts))


def _line(facts: Mapping[str, object]) -> bytes:
    return json.dumps(facts, sort_keys=True, separators=(",", ":")).encode("ascii") + b"\n"
