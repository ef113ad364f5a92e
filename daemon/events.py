"""What can happen to a device and what its lifecycle may ask for: plain values, no behaviour.

Every event carries ``at_s``, CLOCK_MONOTONIC seconds at which the front learned of it. Events about a worker carry
the incarnation they are about, so that the last words of a dead worker change nothing.
"""

from dataclasses import dataclass

from devd.daemon.device_state import Memory
from devd.ipc.messages import Health

# ---- events -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """The scout lists the device (again)."""

    at_s: float


@dataclass(frozen=True, slots=True)
class Replaced:
    """The scout lists the same id on other nodes: whatever was true of the device is not known of this one."""

    at_s: float
    detail: str


@dataclass(frozen=True, slots=True)
class Vanished:
    """The scout no longer lists the device."""

    at_s: float
    detail: str


@dataclass(frozen=True, slots=True)
class Retired:
    """The device is not wanted any more: its resource left the configuration, or the daemon ends."""

    at_s: float


@dataclass(frozen=True, slots=True)
class Spawned:
    """The fork server made the worker; it waits at its gate."""

    at_s: float
    incarnation: int
    pid: int


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    """There is no worker of this incarnation, and none of it can appear any more."""

    at_s: float
    incarnation: int
    reason: str


@dataclass(frozen=True, slots=True)
class Reported:
    """A health message whose sender the front has made sure of."""

    at_s: float
    incarnation: int
    health: Health


@dataclass(frozen=True, slots=True)
class ResetFinished:
    """The worker's answer to SendReset; ``health`` holds from then on."""

    at_s: float
    incarnation: int
    reset_id: int
    ok: bool
    reason: str
    health: Health


@dataclass(frozen=True, slots=True)
class Died:
    """The worker's process has ended. That alone lets no other start: Exited says when nothing of it is left."""

    at_s: float
    incarnation: int


@dataclass(frozen=True, slots=True)
class Exited:
    """The worker and all of its process group are gone. ``detail`` says how ("killed by SIGSEGV").

    ``wait_s`` goes on top of the next one's own pause: many died at once, and they come back one after the other.
    """

    at_s: float
    incarnation: int
    detail: str
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Observed:
    """What /proc said of a worker that was late: its state and kernel wait channel."""

    at_s: float
    incarnation: int
    detail: str


@dataclass(frozen=True, slots=True)
class Misbehaved:
    """The worker broke the protocol (another's device id, garbage, a flood): it is not trusted any further."""

    at_s: float
    incarnation: int
    detail: str


@dataclass(frozen=True, slots=True)
class PreStartAsked:
    """A container with this device is about to start; ``waiter`` gets exactly one Answer."""

    at_s: float
    waiter: int


@dataclass(frozen=True, slots=True)
class PreStartExpired:
    """The waiter's time is up: it is answered now. The reset itself goes on."""

    at_s: float
    waiter: int


@dataclass(frozen=True, slots=True)
class RestartAsked:
    """An operator wants a fresh worker; a device that was given up is tried again at once."""

    at_s: float


@dataclass(frozen=True, slots=True)
class Respecified:
    """The configuration has another worker for the device; ``detail`` says what changed."""

    at_s: float
    detail: str


@dataclass(frozen=True, slots=True)
class Cordoned:
    """An operator withholds the device from new containers; ``reason`` is what they said."""

    at_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class Uncordoned:
    """An operator gives the device back."""

    at_s: float


@dataclass(frozen=True, slots=True)
class Recalled:
    """The disk has answered after the device was taken in: this is what was known of it from earlier."""

    at_s: float
    memory: Memory


@dataclass(frozen=True, slots=True)
class Stalled:
    """The front itself was away for ``for_s`` seconds: that time is nobody's fault but its own."""

    at_s: float
    for_s: float


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed: what is due is due."""

    at_s: float


Event = (
    Found
    | Replaced
    | Vanished
    | Retired
    | Spawned
    | SpawnFailed
    | Reported
    | ResetFinished
    | Died
    | Exited
    | Observed
    | Misbehaved
    | PreStartAsked
    | PreStartExpired
    | RestartAsked
    | Respecified
    | Cordoned
    | Uncordoned
    | Recalled
    | Stalled
    | Tick
)

# ---- effects ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Spawn:
    """Fork a worker of this incarnation; answered by Spawned or SpawnFailed."""

    incarnation: int


@dataclass(frozen=True, slots=True)
class AskStop:
    """Tell the worker to leave in order."""

    incarnation: int


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL the worker's group. ``inspect``: first see in /proc what it hangs in, and tell by Observed."""

    incarnation: int
    reason: str
    inspect: bool


@dataclass(frozen=True, slots=True)
class SendReset:
    """Have the worker reset and then probe its device."""

    incarnation: int
    reset_id: int


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer one PreStart."""

    waiter: int
    ok: bool
    text: str


@dataclass(frozen=True, slots=True)
class Record:
    """A line for the device's journal and the daemon's log."""

    event: str
    detail: str


@dataclass(frozen=True, slots=True)
class Forget:
    """No process and no interest is left: the state may be dropped."""


Effect = Spawn | AskStop | Kill | SendReset | Answer | Record | Forget
