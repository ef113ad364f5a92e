"""What the supervisor holds of each device or scout, and whom it asks and tells."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from devd.daemon.device_state import BLANK, DeviceState, Memory, Policy
from devd.daemon.occupancy import Occupied
from devd.ipc.messages import Fault, Findings, Listing, Node, Sandbox, WorkerSpec, Written

CAUSES_TOLD = 8
"""Different causes that are logged of one Unhealthy time; a device that finds new ones without end is not news."""

_NUMBERS = re.compile(r"\d+")

SpecMaker = Callable[[int, str, str], WorkerSpec]
"""(incarnation, health endpoint, command endpoint) -> the worker's spec."""


@dataclass(slots=True)
class Charge:
    """One supervised device or scout. Times named ``wall`` are for people; nothing is decided by them."""

    resource: str
    state: DeviceState
    policy: Policy
    make_spec: SpecMaker
    nodes: tuple[Node, ...] = ()
    """What its worker was made for, or is to be."""
    kept: Memory = BLANK
    """What of its state was last handed over to be remembered."""
    sandbox: Sandbox | None = None
    findings: Findings | None = None
    asks_usage: bool = False
    simulated: bool = False
    injected: Fault | None = None
    forgets: bool = False
    stirred_at_s: float = -math.inf
    uid: int = -1
    since_wall_s: float = 0.0
    last_probe_wall_s: float = 0.0
    _told: set[str] = field(default_factory=set)

    def news(self, before: DeviceState) -> bool:
        """Return whether a step is worth a line: health that turned, or a cause not told yet while it is away.

        A cause that differs in its numbers alone (an age, a pid, a counter) is the same.
        """
        after = self.state
        if after.healthy:
            self._told.clear()
            return not before.healthy
        cause = _NUMBERS.sub("#", after.cause)
        fresh = bool(cause) and after.cause != before.cause and cause not in self._told
        if fresh and len(self._told) < CAUSES_TOLD:
            self._told.add(cause)
        else:
            fresh = False
        return before.healthy or fresh


@dataclass(frozen=True, slots=True)
class Listeners:
    """Whom the supervisor tells.

    ``changed`` comes after each step that changed what is shown of a device, ``turned`` before it when the kubelet's
    list is another one by it. ``departed`` comes before ``forgotten`` for a device that has left the node. ``respects``
    is asked when a reset begins: for a device and those who wait for it, it returns what tells at any moment whom the
    reset must not disturb.
    """

    changed: Callable[[str], None]
    turned: Callable[[str], None]
    forgotten: Callable[[str], None]
    departed: Callable[[str], None]
    listed: Callable[[str, Listing], None]
    answered: Callable[[int, str, bool, str], None]
    respects: Callable[[str, Sequence[int]], Callable[[], Occupied]]
    journal: Callable[[str, str, dict[str, object]], None]
    greeted: Callable[[str], None]
    wrote: Callable[[Written], None]


class Keeper(Protocol):
    """What the supervisor asks of the devices' memory."""

    def recall(self, device: str) -> Memory:
        """Return what is known of a device from earlier, without its worker."""

    def when_read(self, call: Callable[[], None]) -> None:
        """Have ``call`` made by whatever thread when nothing could be recalled yet and now can."""

    def take_late(self) -> None:
        """Know from now on what could not be recalled at the start."""

    def begin(self) -> None:
        """Write down what is kept, from now on."""

    def keep(self, device: str, memory: Memory, nodes: tuple[Node, ...] = (), resource: str = "") -> None:
        """Remember a device by this from now on; ``nodes`` are what its worker was made for."""

    def departed(self, device: str) -> None:
        """Take note that a device has left the node."""

    def baseline(self, device: str) -> Mapping[str, object]:
        """Return what the last worker of a device left to its next."""

    def keep_baseline(self, device: str, baseline: Mapping[str, object]) -> None:
        """Remember what a device's worker leaves to its next."""
