"""What a hardware driver offers beside discovery: signals, resets, and what each may touch. One ``DriverKind`` each.

Third parties bring theirs through the entry point group ``devd.drivers``: the name is what stands in the
configuration, the object a ``DriverKind``.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from devd.ipc.messages import Device
from devd.workers.command import CommandRunner
from devd.workers.drivers.base import Found
from devd.workers.drivers.signals import Signal
from devd.workers.hw.allowance import Allowance
from devd.workers.params import Params
from devd.workers.probes.base import Call
from devd.workers.sandbox.reach import PLACES


class Discovery(Protocol):
    """One resource's selector, made from its ``match``; SpecError if that makes no sense."""

    @property
    def what(self) -> str:
        """Name what is looked for."""

    def discover(self) -> Found:
        """Look once. Raises OSError when nothing can be said at all."""


@runtime_checkable
class Careful(Protocol):
    """A discovery that asks devices something, beside reading what the kernel remembers.

    ``leave_alone`` is set before each look: the paths of nodes in which another process hangs.
    """

    leave_alone: frozenset[str]


class LiveSignals(Protocol):
    """The signals of one device in its worker: what each driver must have. ``Extras`` is what it may have."""

    @property
    def offered(self) -> tuple[str, ...]:
        """Return the names this device really has."""

    def check(self, name: str) -> str:
        """Return "" when well, else the reason. Raises OSError, SpecError."""


class Extras:
    """What signals may have beside, as it is where they have it not: who needs one of them defines it, by its name.

    Without signals, as before the first probe, all is as where they have nothing.
    """

    def __init__(self, signals: LiveSignals | None) -> None:
        self._signals = signals

    @property
    def notes(self) -> Mapping[str, str]:
        """Return what is worth telling although it is no fault; nothing by default."""
        found: Mapping[str, str] = getattr(self._signals, "notes", {})
        return found

    @property
    def baseline(self) -> Mapping[str, object]:
        """Return what the device's next worker has to know; nothing by default."""
        found: Mapping[str, object] = getattr(self._signals, "baseline", {})
        return found

    @property
    def fd(self) -> int | None:
        """Return a descriptor that is readable when something was heard between probes; none by default."""
        found: int | None = getattr(self._signals, "fd", None)
        return found

    def heard(self) -> bool:
        """Have what waits at ``fd`` taken, and return whether it calls for a probe; by default it is left, and does."""
        method: Callable[[], bool] | None = getattr(self._signals, "heard", None)
        return True if method is None else method()

    @property
    def stale(self) -> bool:
        """Return whether only a new process can help; never by default."""
        return bool(getattr(self._signals, "stale", False))

    def release(self) -> None:
        """Have what would be in a reset's way closed; there is nothing by default."""
        self._call("release")

    def cured(self) -> None:
        """Have it take note that a reset has worked; nothing is remembered by default."""
        self._call("cured")

    def _call(self, name: str) -> None:
        method: Callable[[], None] | None = getattr(self._signals, name, None)
        if method is not None:
            method()


class DriverReset(Protocol):
    """One way to reset a device."""

    @property
    def activity(self) -> str:
        """Name the call."""

    def run(self, call: Call) -> None:
        """Reset. Raises ResetError, OSError."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What the worker lends its driver.

    ``options`` are the probe's (or the reset's) own keys; ``release`` closes what the signals hold open, which would be
    in a reset's way.
    """

    runner: CommandRunner
    options: Params
    baseline: Mapping[str, object] = field(default_factory=dict)
    release: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class ResetKind:
    """One of a driver's resets: how it is made, what it may touch beyond the probe, and what it does, in a line."""

    make: Callable[[Device, Tools], DriverReset]
    allowed: Callable[[Device], Allowance]
    meaning: str


@dataclass(frozen=True, slots=True)
class DriverKind:
    """A driver.

    ``uevents`` are the subsystems whose events can change its list; ``scout`` is what discovery reads. ``places`` are
    the folders and files outside of which no worker of this driver reaches, whatever a scout says of its device.
    """

    discovery: Callable[[Mapping[str, object]], Discovery]
    signals: tuple[Signal, ...]
    watch: Callable[[Device, Tools], LiveSignals]
    allowed: Callable[[Device], Allowance]
    resets: Mapping[str, ResetKind]
    uevents: Collection[str] = ()
    places: tuple[str, ...] = PLACES
    scout: Allowance = field(default_factory=lambda: Allowance(read=("/sys",), look=("/dev",)))
