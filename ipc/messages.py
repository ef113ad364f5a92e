"""Every message that devd's processes exchange: one frozen dataclass each, its fields the schema.

Times named ``*_at_s`` are CLOCK_MONOTONIC seconds (one clock for all processes of a node); ``*_s`` are durations in
seconds. A worker's word about its device is a claim: the front checks device, incarnation and sequence.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

PROTOCOL_VERSION = 1
"""Carried by every frame; a peer of another version is refused with both numbers."""

Verdict = Literal["pass", "fail", "none"]
"""What the last finished probe said; ``none`` before the first one."""

NodeKind = Literal["char", "block", "other"]
Role = Literal["worker", "scout", "scribe"]
FaultKind = Literal["fail", "hang", "slow", "crash", "exit", "exception", "oom", "flood"]


# ---- what a device is -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Node:
    """One file a device is reached by, as discovery saw it.

    ``path`` is what the operator's glob matched (a stable symlink stays one); ``major`` and ``minor`` are the device
    numbers, or (st_dev, st_ino) for a file that is no device node (``kind`` other). A ``shared`` node belongs to the
    whole driver (/dev/vfio/vfio): any number of devices may bring it along.
    """

    path: str
    kind: NodeKind
    major: int
    minor: int
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Device:
    """One device as a scout found it. ``params`` goes to its worker unread (the sim driver's script lives there)."""

    id: str
    nodes: tuple[Node, ...] = ()
    properties: Mapping[str, str] = field(default_factory=dict)
    numa_node: int | None = None
    params: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fault:
    """What an operator has a simulated device do, to rehearse it.

    ``until_s`` is CLOCK_MONOTONIC seconds; None is until it is taken back. ``reason`` is what a failing probe says.
    """

    do: FaultKind
    until_s: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """All a worker or scout is told at birth. It reads no configuration and no environment.

    ``probe`` and ``reset`` hold ``kind`` and that kind's parameters under the configuration's names, durations in
    seconds; ``match`` is the resource's selector (scouts), or where CDI specifications lie (the scribe). ``period_s``
    is the pause between the end of one probe (or scan) and the start of the next, ``timeout_s`` what one may take.
    ``leave_alone`` are paths that a scout must not touch: another process hangs in them. ``sandbox`` is what the
    operator widens and whether he requires all of it, and the uid the front gives this device. ``baseline`` is what the
    last worker of this device left to its next (see ``Findings``). ``injected`` is for a simulated device
    alone.
    """

    role: Role
    device: str
    resource: str
    driver: str
    incarnation: int
    health_endpoint: str
    command_endpoint: str
    period_s: float
    timeout_s: float
    probe: Mapping[str, object] = field(default_factory=dict)
    reset: Mapping[str, object] | None = None
    match: Mapping[str, object] = field(default_factory=dict)
    target: Device | None = None
    leave_alone: tuple[str, ...] = ()
    sandbox: Mapping[str, object] = field(default_factory=dict)
    baseline: Mapping[str, object] = field(default_factory=dict)
    injected: Fault | None = None


# ---- worker -> front --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Which layers of the sandbox a worker stands behind, and why the others are missing (layer -> reason)."""

    level: str
    active: tuple[str, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hello:
    """First word of a worker on its command channel, before its first probe."""

    device: str
    incarnation: int
    pid: int
    sandbox: Sandbox


@dataclass(frozen=True, slots=True)
class Health:
    """A worker's whole state, published at each start and end of a probe or reset; a lost one costs nothing.

    ``activity`` names the call under way ("open /dev/fuse"; empty when idle), begun at ``activity_at_s``. ``seq``
    grows by one with each message of an incarnation. ``probe_count`` counts finished probes: a message that only
    tells of a start repeats the last verdict under the same count.
    """

    device: str
    incarnation: int
    seq: int
    verdict: Verdict
    reason: str
    probe_count: int
    probe_kind: str
    probe_at_s: float
    probe_duration_s: float
    activity: str
    activity_at_s: float


@dataclass(frozen=True, slots=True)
class Findings:
    """What a driver's probe knows beside its verdict. Sent when it changed.

    ``offered`` are the signals this device really has, ``checked`` those of them that count for its health, ``notes``
    what is worth telling though it is no fault (what -> text). ``baseline`` is kept for the device's next worker,
    unread: counters are judged by their growth.
    """

    device: str
    incarnation: int
    offered: tuple[str, ...]
    checked: tuple[str, ...]
    notes: Mapping[str, str]
    baseline: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class ResetDone:
    """A reset's end, after the probe that followed it; ``health`` is the state from then on."""

    device: str
    incarnation: int
    reset_id: int
    ok: bool
    reason: str
    duration_s: float
    health: Health


@dataclass(frozen=True, slots=True)
class Listing:
    """All devices a scout sees now. Sent when it differs from the last one; ``problems`` are for the operator.

    ``left_alone`` is what it did not look at, as it was told to at that time: no word about those.
    """

    resource: str
    incarnation: int
    seq: int
    devices: tuple[Device, ...]
    problems: tuple[str, ...] = ()
    left_alone: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stirred:
    """Devices of a scout's list of which the kernel told a change: their workers had better probe at once."""

    resource: str
    incarnation: int
    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SpecFile:
    """One CDI specification: what the scribe was told last, and what stands in its file.

    ``wanted`` and ``standing`` are SHA-256 digests in hex, "" for no file; ``error`` says why they differ, or nothing.
    """

    name: str
    wanted: str
    standing: str
    error: str


@dataclass(frozen=True, slots=True)
class Written:
    """All the scribe knows, sent when it changed and after each order.

    ``known`` are those of the ``sought`` names that the specifications of others have.
    """

    device: str
    incarnation: int
    files: tuple[SpecFile, ...]
    sought: tuple[str, ...]
    known: tuple[str, ...]


FromWorker = Hello | ResetDone | Listing | Stirred | Findings | Written
"""What may come over a worker's own command channel."""


# ---- front -> worker --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProbeNow:
    """Probe (or scan) at once instead of at the period's end.

    A scout touches ``leave_alone`` no more until it is told others; None changes nothing of that.
    """

    leave_alone: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A device node that a process has open, by the name it was opened by in the host's file system."""

    pid: int
    program: str
    path: str


@dataclass(frozen=True, slots=True)
class Mounted:
    """A block device that is mounted, and where."""

    major: int
    minor: int
    where: str


@dataclass(frozen=True, slots=True)
class Allocated:
    """A device that the kubelet gave to a container: what a reset may know it by, and whose it is in words.

    ``names`` are its nodes' paths on the host and, for a PCI function, its address.
    """

    names: tuple[str, ...]
    holder: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Who uses what on this node, for a worker that may not look at other processes itself.

    ``unseen`` says what could not be looked at, and why; while it is not empty nobody can be said to use nothing.
    """

    open_files: tuple[OpenFile, ...] = ()
    mounts: tuple[Mounted, ...] = ()
    unseen: str = ""
    allocated: tuple[Allocated, ...] = ()


@dataclass(frozen=True, slots=True)
class Reset:
    """Reset the device, probe it, answer ``ResetDone`` with the same id. ``usage`` is None where it is not asked.

    ``spared`` says why the reset itself is left out, where it is: somebody else uses the device already.
    """

    reset_id: int
    timeout_s: float
    usage: Usage | None = None
    spared: str = ""


@dataclass(frozen=True, slots=True)
class Inject:
    """Have a simulated device do this from now on, and probe it at once; None is what its script says again."""

    fault: Fault | None


@dataclass(frozen=True, slots=True)
class Stop:
    """Leave in order: finish the call under way, close the device, exit 0."""


@dataclass(frozen=True, slots=True)
class SpecText:
    """What a CDI specification's file is to hold from now on, "" for no file at all."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class WriteSpecs:
    """Have these files hold these texts, each of them or what it held before; the others stay as they are.

    ``sought`` are all the names to look for in the specifications of others. The answer is ``Written``.
    """

    files: tuple[SpecText, ...]
    sought: tuple[str, ...]


ToWorker = ProbeNow | Reset | Inject | Stop | WriteSpecs
"""What the front may say on a worker's command channel; the last to the scribe alone."""


# ---- front <-> fork server --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fork:
    """Fork one worker. Two file descriptors come along: the gate's read end and the worker's stderr."""

    request_id: int
    spec: WorkerSpec


@dataclass(frozen=True, slots=True)
class Forked:
    """The worker's pid; its pidfd comes along. It touches nothing before a byte comes through its gate."""

    request_id: int
    pid: int


@dataclass(frozen=True, slots=True)
class ForkFailed:
    """No worker: ``reason`` has the errno's name and text."""

    request_id: int
    reason: str


@dataclass(frozen=True, slots=True)
class ChildExit:
    """A worker and everything left of its process group are gone.

    ``code`` is the exit status when it left by itself, ``signal`` the signal number when it was ended; the other is
    -1. Times are the worker's own CPU seconds, ``max_rss_kib`` its largest resident set (getrusage(2)).
    """

    pid: int
    code: int
    signal: int
    user_s: float
    system_s: float
    max_rss_kib: int


@dataclass(frozen=True, slots=True)
class Ping:
    """The front asks whether the fork server is there; Pong answers."""


@dataclass(frozen=True, slots=True)
class Pong:
    """The fork server is there."""


# ---- devd command line <-> front --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ControlRequest:
    """One question or order of an operator."""

    verb: str
    args: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ControlReply:
    """The answer; ``error`` is empty when it went well."""

    ok: bool
    error: str
    data: Mapping[str, object] = field(default_factory=dict)


MESSAGES: dict[str, type] = {
    cls.__name__: cls
    for cls in (
        Hello,
        Health,
        Findings,
        ResetDone,
        Listing,
        Stirred,
        Written,
        ProbeNow,
        Reset,
        Inject,
        Stop,
        WriteSpecs,
        Fork,
        Forked,
        ForkFailed,
        ChildExit,
        Ping,
        Pong,
        ControlRequest,
        ControlReply,
    )
}
"""Wire name -> dataclass: what may stand at the top of a frame."""
