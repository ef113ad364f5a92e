"""Probe ``driver``: the signals of the device's own driver, each with a name and a meaning."""

import time
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from devd.ipc.messages import Device, WorkerSpec
from devd.workers.command import CommandRunner
from devd.workers.drivers import kind_of
from devd.workers.drivers.kind import Extras, LiveSignals, Tools
from devd.workers.errors import ProbeError, SpecError, explain
from devd.workers.hw.allowance import needs_of
from devd.workers.params import Params
from devd.workers.probes.base import Call
from devd.workers.sandbox import reach

if TYPE_CHECKING:
    from devd.workers.sandbox.needs import SandboxNeeds

SIGNALS_KEY = "signals"
ASK_AGAIN_S = 300.0
"""How often the driver is asked anew which signals a device has: firmware and drivers are changed beneath it."""


class DriverProbe:
    """Check the signals one after the other; the first that is bad is the reason, the others are counted.

    Made before the sandbox is on, of what the driver declares; its own code on the device runs from the first check on.
    Raises OutOfReachError for a device that discovery did not find where devices lie, beside SpecError and OSError.
    """

    def __init__(self, spec: WorkerSpec, runner: CommandRunner, ask_every_s: float = ASK_AGAIN_S) -> None:
        kind = kind_of(spec.driver)
        params = Params("probe", spec.probe)
        self._device = spec.target if spec.target is not None else Device(spec.device)
        self._wanted = wanted_signals({one.name: one.default for one in kind.signals}, params)
        self.needs: SandboxNeeds = needs_of(kind.allowed(self._device), self._device, kind.places)
        # Before the driver's code sees what may lead it elsewhere.
        reach.check(self.needs, spec.sandbox)
        self._watch = partial(kind.watch, self._device, Tools(runner, params, spec.baseline))
        self._signals: LiveSignals | None = None
        self._extras = Extras(None)
        self._offered: tuple[str, ...] | None = None
        self._ask_every_s = ask_every_s
        self._ask_again_s = 0.0
        self._ever_offered: frozenset[str] = frozenset()
        self._meanings = {one.name: one.meaning for one in kind.signals}
        self.activity = f"check {self._device.id}"

    # ---- what the worker asks -----------------------------------------------------------------------------------

    def run(self, call: Call) -> str:
        """Check every wanted signal that is offered. Raises ProbeError, OSError, SpecError."""
        signals = self._begun(call)
        if self._offered is None or time.monotonic() >= self._ask_again_s:
            call.say(f"ask which signals {self._device.id} has")
            self._offered = signals.offered
            self._ever_offered |= set(self._offered)
            self._ask_again_s = time.monotonic() + self._ask_every_s
        bad: dict[str, str] = {}
        for name in self.checked:
            call.say(f"check {name} of {self._device.id}")
            reason = self._check(signals, name)
            if reason and reason not in bad.values():
                bad[name] = reason
        if bad:
            raise ProbeError(self._words(bad))
        return ""

    @property
    def offered(self) -> tuple[str, ...]:
        """Return the signals the device has, none before the first run."""
        return self._offered or ()

    @property
    def checked(self) -> tuple[str, ...]:
        """Return the signals that count for its health."""
        return tuple(name for name in self._wanted if name in self.offered)

    @property
    def notes(self) -> Mapping[str, str]:
        """Return what is worth telling though it is no fault: a signal that the device has no more, too."""
        gone = [name for name in self._meanings if name in self._ever_offered and name not in self.offered]
        more = {"signals gone": f"offered before, and no more: {', '.join(gone)}"} if gone and self.offered else {}
        return {**self._extras.notes, **more}

    @property
    def baseline(self) -> Mapping[str, object]:
        """Return what the next worker has to know."""
        return self._extras.baseline

    @property
    def fd(self) -> int | None:
        """Return a descriptor that is readable when something was heard between probes; None without one."""
        return self._extras.fd

    def heard(self) -> bool:
        """Return whether what waits at ``fd`` calls for a probe at once."""
        return self._extras.heard()

    @property
    def stale(self) -> bool:
        """Return whether only a new process can help."""
        return self._extras.stale

    def release(self) -> None:
        """Close what the signals hold open: a reset comes."""
        self._extras.release()

    def cured(self) -> None:
        """Take note that a reset has worked; the device may offer other signals now."""
        self._extras.cured()
        self._offered = None

    @property
    def begun(self) -> bool:
        """Return whether the driver has taken the device up; where nothing was there, only a new process can."""
        return self._signals is not None

    def _begun(self, call: Call) -> LiveSignals:
        if self._signals is None:
            call.say(f"begin with {self._device.id}")
            try:
                self._signals = self._watch()
            except OSError as error:
                raise ProbeError(explain("begin with", str(error.filename or self._device.id), error)) from error
            self._extras = Extras(self._signals)
        return self._signals

    # ---- one signal ---------------------------------------------------------------------------------------------

    def _check(self, signals: LiveSignals, name: str) -> str:
        try:
            return signals.check(name)
        except OSError as error:
            return explain(f"check {name}", str(error.filename or self._device.id), error)

    def _words(self, bad: Mapping[str, str]) -> str:
        """Return all that is bad; the first with what it means."""
        (first, reason), *others = bad.items()
        text = f"{first}: {reason} ({self._meanings[first]})"
        return "; ".join((text, *(f"{name}: {why}" for name, why in others)))


def wanted_signals(defaults: Mapping[str, bool], params: Params) -> tuple[str, ...]:
    """Return the names to check: the driver's defaults, as ``signals`` ({name: true or false}) changes them.

    Raises SpecError for a name the driver does not have.
    """
    changes = params.values.get(SIGNALS_KEY) or {}
    if not isinstance(changes, Mapping):
        raise SpecError(f"probe.signals: {changes!r:.80} found, a map of names to true or false is needed")
    for name, on in changes.items():
        if name not in defaults:
            raise SpecError(f"probe.signals.{name}: unknown, allowed are {', '.join(defaults)}")
        if not isinstance(on, bool):
            raise SpecError(f"probe.signals.{name}: {on!r:.40} found, true or false is needed")
    return tuple(name for name, on in defaults.items() if changes.get(name, on))
