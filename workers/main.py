"""The worker: one process for one device, running its probe on its period and its reset on the front's word."""

import os
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType

from devd.ipc.messages import Reset, ResetDone, WorkerSpec
from devd.workers.channel import Channel
from devd.workers.command import CommandRunner
from devd.workers.errors import NodeRenewedError, ProbeError, ResetError, explain
from devd.workers.loop import serve
from devd.workers.misdeeds import Misdeed, commit
from devd.workers.probes import make_probe
from devd.workers.probes.base import Call, Probe
from devd.workers.report import Reporter
from devd.workers.resets import Reset as ResetKind
from devd.workers.resets import make_reset
from devd.workers.sandbox import refusal
from devd.workers.sandbox.apply import Confinement
from devd.workers.sandbox.needs import NOTHING, SandboxNeeds, widened
from devd.workers.sandbox.runtime import python_runtime


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
        self.due_at_s = time.monotonic()
        self.watched: Mapping[int, Callable[[], None]] = MappingProxyType({})

    def run(self) -> None:
        """Probe once and publish the verdict. An error that is no OSError or ProbeError ends the worker."""
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
        self.due_at_s = time.monotonic() + self._spec.period_s

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

    def leave_alone(self, paths: tuple[str, ...]) -> None:
        """Take no note: a worker touches its own device alone."""

    def _check_still_ours(self, error: BaseException | None) -> None:
        """Raise NodeRenewedError when a refusal comes of the sandbox's age: the next worker's fits what is there."""
        if isinstance(error, PermissionError) and (path := self._confinement.outdated()):
            raise NodeRenewedError(f"{path} was made anew since this worker began: another one takes over")

    def _do_reset(self, order: Reset) -> str:
        """Run the reset and return why it failed, or nothing."""
        if self._reset is None:
            return "no reset is configured for this device"
        began_s = self._report.begin(self._reset.activity)
        try:
            self._reset.run(Call(self._report.say, began_s, order.timeout_s))
        except ResetError as error:
            return str(error)
        except OSError as error:
            return explain("reset", str(error.filename or self._spec.device), error)
        took_s = time.monotonic() - began_s
        return "" if took_s <= order.timeout_s else f"reset took {took_s:.1f} s, allowed {order.timeout_s:g} s"


def run(spec: WorkerSpec, lifeline_fd: int) -> int:
    """Be a worker until told to stop; return the exit code. Raises SpecError for a spec nothing can be made of."""
    runner = CommandRunner()
    probe, reset = make_probe(spec, runner), make_reset(spec, runner)
    needs = probe.needs | (reset.needs if reset is not None else NOTHING) | SandboxNeeds(python_runtime("r"))
    confinement = Confinement(spec.device, widened(needs, spec.sandbox), spec.sandbox)
    confinement.before_connect()
    with Channel(spec) as channel:
        channel.wait_heard()
        sandbox = confinement.after_connect()
        channel.greet(sandbox, os.getpid())
        if lacking := refusal.of(sandbox, spec.sandbox):
            probe, reset = refusal.RefusedProbe(lacking), refusal.RefusedReset(lacking)
        return serve(Worker(spec, channel, probe, reset, confinement), channel, lifeline_fd)
