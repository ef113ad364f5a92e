"""The kernel's word that a device changed, as its resource's scout passes it on: its worker is asked to probe at once.

Bounded whatever a scout says: its own resource's devices alone, each a few times a second. The probes' period stands
behind it.
"""

from collections.abc import Callable
from typing import Protocol

from devd.daemon.charge import Charge
from devd.ipc.messages import Stirred

PAUSE_S = 0.2
"""Least time between two such probes of a device; a scout passes on what it heard with each of its scans."""


class Supervised(Protocol):
    """What is asked of the supervisor."""

    def get(self, device: str) -> Charge | None:
        """Return a charge, or None."""

    def probe_now(self, device: str) -> bool:
        """Ask a device's worker to probe at once; False when none can be asked."""


class Stirring:
    """Owner of when each device was stirred last."""

    def __init__(self, supervised: Supervised, now_s: Callable[[], float]) -> None:
        self._supervised = supervised
        self._now_s = now_s

    def take(self, stirred: Stirred) -> None:
        """Have the devices' workers probe."""
        now_s = self._now_s()
        for device in stirred.devices:
            charge = self._supervised.get(device)
            if charge is None or charge.resource != stirred.resource or now_s - charge.stirred_at_s < PAUSE_S:
                continue
            charge.stirred_at_s = now_s
            self._supervised.probe_now(device)
