"""A device as its lifecycle knows it: phases, the policy it lives by, and its state. Values only."""

from dataclasses import dataclass
from enum import StrEnum

from devd.ipc.messages import Health

LEASE_SLACK_S = 0.15
"""How late a report may be beyond what period and timeout allow: scheduling and transport on a busy node."""


IN_FLIGHT_S = 1.0
"""What workers said during an absence of the front is not there at once: libzmq's own thread was away as well, and
full queues hold the oldest words first. Given once a deadline and once a lease, however often the front is away: else
a front that is starved for long would put them off faster than time passes."""


class Phase(StrEnum):
    """Where a device is. Each phase but ABSENT has at most one deadline, with one meaning."""

    ABSENT = "absent"
    STARTING = "starting"
    SERVING = "serving"
    RESETTING = "resetting"
    LEAVING = "leaving"
    STOPPING = "stopping"
    BACKOFF = "backoff"
    FAILED = "failed"


PHASES: dict[Phase, tuple[str, str]] = {
    Phase.ABSENT: ("not discovered now, no worker", "none"),
    Phase.STARTING: ("a worker was ordered, no report yet", "first report due, else killed"),
    Phase.SERVING: ("the worker reports", "next report due, else killed as hung"),
    Phase.RESETTING: ("the worker resets the device", "reset's answer due, else killed as hung"),
    Phase.LEAVING: ("the worker was asked to stop", "exit due, else killed"),
    Phase.STOPPING: ("killed, exit not seen: it still holds the device", "exit due, else wedged: the device is fenced"),
    Phase.BACKOFF: ("no worker; the last one ended", "next worker is started"),
    Phase.FAILED: ("no worker; restart intensity exceeded", "slow retry"),
}
"""Phase -> what it means, what its deadline means."""

WORKER_PHASES = frozenset({Phase.STARTING, Phase.SERVING, Phase.RESETTING, Phase.LEAVING, Phase.STOPPING})
"""Phases in which a process of the device may exist: no other may be started."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The numbers a device lives by, from its resource's configuration. All durations in seconds."""

    period_s: float
    timeout_s: float
    failures: int = 1
    successes: int = 1
    reset_timeout_s: float | None = None
    linger_s: float = 60.0
    intensity: int = 5
    window_s: float = 60.0
    backoff_s: float = 0.2
    backoff_max_s: float = 30.0
    retry_s: float = 300.0
    flap_count: int = 0
    flap_within_s: float = 600.0
    flap_hold_s: float = 1800.0

    @property
    def lease_s(self) -> float:
        """How long one passing probe is good for, from its report's arrival."""
        return self.period_s + self.timeout_s + LEASE_SLACK_S


@dataclass(frozen=True, slots=True)
class Memory:
    """What of a device outlives the daemon. ``falls`` as in the state; ``worker`` is the pid that may still hold it.

    ``cause`` is what a device that is held back fell for. ``fence`` is why no worker may be started now, where that is
    more than a worker of its own: it is found out anew at each start.
    """

    cordon: str | None = None
    failed: str = ""
    falls: tuple[float, ...] = ()
    held: bool = False
    worker: int | None = None
    cause: str = ""
    fence: str = ""


BLANK = Memory()


@dataclass(frozen=True, slots=True)
class DeviceState:
    """All the front knows of a device's health and worker. ``*_at_s`` and ``*_s`` as in the events.

    ``well`` is a live lease; ``healthy`` is what is offered: well, and neither cordoned nor held back for its flaps.
    ``falls`` are when it fell from well; ``stale``: its worker was made by a spec that is not valid any more. What
    began before ``forgiven_s`` counts from then only: the front was away. ``excused`` and ``lease_excused``: the
    deadline and the lease have had their IN_FLIGHT_S. ``earned_until_s`` is the lease without what a reset holds open;
    ``heard_s`` when the worker last spoke. ``loop_from``: the incarnation whose end began this crash loop; with
    ``salt``, this run of devd's, it makes the loop's jitter. ``over``: its process has ended, and its end has not been
    told. ``killed_for`` is why devd ends this worker; ``last_exit`` how the last one ended by the kernel's word,
    ``last_end`` the same with whose doing it was.
    """

    id: str
    phase: Phase
    incarnation: int
    since_s: float
    deadline_s: float | None = None
    phase_since_s: float = 0.0
    present: bool = True
    wanted: bool = True
    leave_list_at_s: float | None = None
    listed: bool = True
    healthy: bool = False
    well: bool = False
    cordon: str | None = None
    falls: tuple[float, ...] = ()
    held: bool = False
    hold_until_s: float | None = None
    failed: str = ""
    lease_until_s: float | None = None
    earned_until_s: float | None = None
    excused: bool = False
    lease_excused: bool = False
    reason: str = "waiting for the first probe"
    cause: str = ""
    decided: bool = False
    pid: int | None = None
    spawned_at_s: float = 0.0
    served_from_s: float | None = None
    over: bool = False
    wedged: bool = False
    respawn: bool = False
    stale: bool = False
    seq: int = 0
    probe_count: int = 0
    passes: int = 0
    fails: int = 0
    last: Health | None = None
    activity: str = ""
    activity_at_s: float = 0.0
    heard_s: float = 0.0
    forgiven_s: float = 0.0
    restarts: int = 0
    exits: tuple[float, ...] = ()
    streak: int = 0
    loop_from: int = 0
    salt: int = 0
    probation: bool = False
    last_exit: str = ""
    killed_for: str = ""
    last_end: str = ""
    reset_id: int = 0
    waiters: tuple[int, ...] = ()


def remembered(state: DeviceState) -> Memory:
    """Return what of a state has to outlive the daemon."""
    return Memory(state.cordon, state.failed, state.falls, state.held, state.pid, state.cause if state.held else "")
