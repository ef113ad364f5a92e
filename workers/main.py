"""The worker: one process for one device, running its probe on its period and its reset on the front's word."""

import math
import os
import time
from collections.abc import Callable, Mapping

from devd.ipc.messages import Fault, Findings, Reset, ResetDone, WorkerSpec
from devd.workers.channel import Channel
from devd.workers.command import CommandRunner
from devd.workers.errors import (
    DeviceGoneError,
    NodeRenewedError,
    OutOfReachError,
    ProbeError,
    ResetError,
    StaleDriverError,
    explain,
)
from devd.workers.hw import holders
from devd.workers.loop import serve
from devd.workers.misdeeds import Misdeed, commit
from devd.workers.probes.base import Call, Probe
from devd.workers.probes.driver import DriverProbe
from devd.workers.probes.gone import GoneProbe
from devd.workers.probes.registry import make_probe
from devd.workers.probes.sim import SimProbe
from devd.workers.report import Reporter
from devd.workers.resets import Reset as ResetKind
from devd.workers.resets import make_reset
from devd.workers.sandbox import reach, refusal
from devd.workers.sandbox.apply import Confinement
from devd.workers.sandbox.needs import NOTHING, SandboxNeeds, widened
from devd.workers.sandbox.runtime import python_runtime

EVENT_PAUSE_S = 0.1
"""Least pause between a probe and the next that an event calls for."""
STORM_PAUSE_S = 0.5
"""The same while events come without a calm between: a device in trouble repeats itself."""
CALM_S = 1.0
"""From one event to the next for the storm to be over."""
RENEW_S = 20.0
"""Least life of a worker that never was of use and that only a new one can follow: that one may fare no better, and
ends that come faster would look like a crash loop and hide the reason. The device's verdict is out all the while."""
MAX_NOTES = 64
NOTE_CHARS = 200


class Worker:
    """Probe and reset of one device, and what they say of it. Implements ``loop.Task``."""

    def __init__(
        self, spec: WorkerSpec, channel: Channel, probe: Probe, reset: ResetKind | None, confinement: Confinement
    ) -> None:
        self._spec = spec
        self._channel = channel
        self._probe = probe
        self._reset = reset
        self._confinement = confinement
        self._report = Reporter(channel, spec, str(spec.probe["kind"]))
        self._told: Findings | None = None
        self._ended_s = 0.0
        self._born_s = self.due_at_s = time.monotonic()
        self._was_of_use = False
        self._renewed = ""
        self._called = False
        self._called_at_s = -math.inf

    @property
    def watched(self) -> Mapping[int, Callable[[], None]]:
        """Return the descriptor of the driver's events: one of them calls for a probe at once.

        None while that probe is to come: it takes what waits, and until then nobody need be woken by it.
        """
        fd = self._probe.fd if isinstance(self._probe, DriverProbe) and not self._called else None
        return {} if fd is None else {fd: self._event}

    def run(self) -> None:
        """Probe once and publish the verdict. An error that is no OSError or ProbeError ends the worker.

        Raises StaleDriverError, DeviceGoneError or NodeRenewedError once the verdict is out when only a new process
        can help.
        """
        self._run_probe()
        self._tell_findings()
        successor = self._needs_successor()
        if successor is None:
            self._was_of_use = True
            return
        renew_at_s = self._born_s + RENEW_S
        if self._was_of_use or time.monotonic() >= renew_at_s:
            raise successor
        self.due_at_s = min(self.due_at_s, renew_at_s)

    def _needs_successor(self) -> DeviceGoneError | NodeRenewedError | StaleDriverError | None:
        """Return why only a new process can help, None as long as this one can."""
        device = self._spec.device
        if self._renewed:
            return _renewed(self._renewed)
        if isinstance(self._probe, GoneProbe) or (isinstance(self._probe, DriverProbe) and not self._probe.begun):
            return DeviceGoneError(f"nothing was left of {device} when its worker began: a new one looks again")
        if isinstance(self._probe, DriverProbe) and self._probe.stale:
            return StaleDriverError(f"the driver of {device} was changed beneath its worker: a new one begins")
        return None

    def _event(self) -> None:
        """Bring the next probe forward, if the events are about this device."""
        if not isinstance(self._probe, DriverProbe) or not self._probe.heard():
            return
        now_s = time.monotonic()
        pause_s = EVENT_PAUSE_S if now_s - self._called_at_s >= CALM_S else STORM_PAUSE_S
        self._called, self._called_at_s = True, now_s
        self.due_at_s = min(self.due_at_s, max(now_s, self._ended_s + pause_s))

    def _tell_findings(self) -> None:
        """Send what the driver knows beside the verdict, if it changed."""
        probe, spec = self._probe, self._spec
        if not isinstance(probe, DriverProbe):
            return
        notes = {name[:NOTE_CHARS]: text[:NOTE_CHARS] for name, text in sorted(probe.notes.items())[:MAX_NOTES]}
        found = Findings(spec.device, spec.incarnation, probe.offered, probe.checked, notes, dict(probe.baseline))
        if found != self._told:
            self._told = found
            self._channel.send(found)

    def _run_probe(self) -> None:
        self._called = False
        began_s = self._report.begin(self._probe.activity)
        try:
            reason = self._probe.run(Call(self._report.say, began_s, self._spec.timeout_s))
            ok = True
        except ProbeError as error:
            ok, reason = False, str(error)
            self._check_still_ours(error.__cause__)
        except Misdeed as misdeed:
            commit(misdeed, self._channel, self._report.state)
            ok, reason = True, ""
        except OSError as error:
            self._check_still_ours(error)
            ok, reason = False, explain("probe", str(error.filename or self._spec.device), error)
        took_s = time.monotonic() - began_s
        if ok and took_s > self._spec.timeout_s:
            ok, reason = False, f"took {took_s:.1f} s, allowed {self._spec.timeout_s:g} s"
        self._report.verdict("pass" if ok else "fail", reason, began_s)
        self._ended_s = time.monotonic()
        self.due_at_s = self._ended_s + self._spec.period_s

    def reset(self, order: Reset) -> None:
        """Reset the device, probe it, answer; the answer is good only if both went well."""
        began_s = time.monotonic()
        failure = self._do_reset(order)
        took_s = time.monotonic() - began_s
        self.run()
        health = self._report.state
        if not failure and health.verdict == "fail":
            failure = f"the probe after the reset failed: {health.reason}"
        spec = self._spec
        self._channel.send(
            ResetDone(spec.device, spec.incarnation, order.reset_id, not failure, failure, took_s, health)
        )
        if not failure and not self._renewed:
            self._make_way()

    def _make_way(self) -> None:
        """Have a successor take over soon when the reset made anew what this worker's rules were made for.

        It can probe the device still, as a rule, and reset it no more. Not at once: what it just said has to arrive.
        """
        self._renewed = self._confinement.outdated()
        if self._renewed:
            self.due_at_s = min(self.due_at_s, self._ended_s + EVENT_PAUSE_S)

    def inject(self, fault: Fault | None) -> None:
        """Have a simulated device misbehave; no other is asked to."""
        if isinstance(self._probe, SimProbe):
            self._probe.inject(fault)

    def leave_alone(self, paths: tuple[str, ...]) -> None:
        """Take no note: a worker touches its own device alone."""

    def _check_still_ours(self, error: BaseException | None) -> None:
        """Raise NodeRenewedError when a refusal comes of the sandbox's age: the next worker's fits what is there."""
        if isinstance(error, PermissionError) and (path := self._confinement.outdated()):
            raise _renewed(path)

    def _do_reset(self, order: Reset) -> str:
        """Run the reset and return why it failed, or nothing."""
        if self._reset is None:
            return "no reset is configured for this device"
        if order.spared:
            return ""
        began_s = self._report.begin(self._reset.activity)
        try:
            with holders.as_told(order.usage):
                self._reset.run(Call(self._report.say, began_s, order.timeout_s))
        except ResetError as error:
            return str(error)
        except OSError as error:
            return explain("reset", str(error.filename or self._spec.device), error)
        took_s = time.monotonic() - began_s
        if isinstance(self._probe, DriverProbe):
            self._probe.cured()
        return "" if took_s <= order.timeout_s else f"reset took {took_s:.1f} s, allowed {order.timeout_s:g} s"


def _renewed(path: str) -> NodeRenewedError:
    return NodeRenewedError(f"{path} was made anew since this worker began: another one takes over")


def run(spec: WorkerSpec, lifeline_fd: int) -> int:
    """Be a worker until told to stop; return the exit code. Raises SpecError for a spec nothing can be made of."""
    probe, reset = _made(spec)
    needs = probe.needs | (reset.needs if reset is not None else NOTHING) | SandboxNeeds(python_runtime("r"))
    confinement = Confinement(spec.device, widened(needs, spec.sandbox), spec.sandbox)
    confinement.before_connect()
    with Channel(spec) as channel:
        channel.wait_heard()
        sandbox = confinement.after_connect()
        channel.greet(sandbox, os.getpid())
        if lacking := refusal.of(sandbox, spec.sandbox, confinement.broken):
            probe, reset = refusal.RefusedProbe(lacking), refusal.RefusedReset(lacking)
        return serve(Worker(spec, channel, probe, reset, confinement), channel, lifeline_fd)


def _made(spec: WorkerSpec) -> tuple[Probe, ResetKind | None]:
    """Return probe and reset; for a device that is gone, or none at all, what says so. Raises SpecError."""
    runner = CommandRunner()
    try:
        probe = make_probe(spec, runner)
        reset = make_reset(spec, runner, probe.release if isinstance(probe, DriverProbe) else lambda: None)
        reach.check(probe.needs | (reset.needs if reset is not None else NOTHING), spec.sandbox)
    except OutOfReachError as error:
        return refusal.RefusedProbe(str(error)), refusal.RefusedReset(str(error))
    except OSError as error:
        reason = explain("begin with", str(error.filename or spec.device), error)
        return GoneProbe(reason), refusal.RefusedReset(reason)
    return probe, reset
