"""Probe ``sim``: does what a script says, well or badly; what tests, the demo and a rehearsal run on."""

import ctypes
import os
import time
from typing import NoReturn

from devd.ipc.messages import Fault, WorkerSpec
from devd.workers import sim
from devd.workers.errors import ProbeError
from devd.workers.misdeeds import Misdeed
from devd.workers.probes.base import Call
from devd.workers.sandbox.needs import NOTHING

FLOOD_S = 1.0
SLOW_FACTOR = 1.5
"""A slow step without ``takes`` lasts this many timeouts."""
EXIT_CODE = 3
_LONG_S = 3600.0
_BITE_BYTES = 16 * 1024 * 1024


class SimProbe:
    """The script's clock starts with the worker. A device's own script goes before the probe's."""

    def __init__(self, spec: WorkerSpec) -> None:
        own = spec.target.params.get("script") if spec.target is not None else None
        where = "params.script" if own is not None else "probe.script"
        self._script = sim.parse(own if own is not None else spec.probe.get("script"), where)
        self._timeout_s = spec.timeout_s
        self._started_s = time.monotonic()
        self.activity = f"probe {spec.device}"
        self._device = spec.device
        self._fault = spec.injected
        self.needs = NOTHING
        if self._script and self._script[0].do == "mute":
            hang()

    def run(self, call: Call) -> str:
        """Do the present step's deed. Raises ProbeError, or does not return."""
        step = self._step()
        call.say(f"sim {step.do} {self._device}")
        if step.do == "hang":
            hang()
        if step.do in ("crash", "segv"):
            crash()
        if step.do == "exit":
            os._exit(EXIT_CODE)
        if step.do == "exception":
            raise RuntimeError(step.reason or f"the script of {self._device} says so")
        if step.do == "oom":
            _eat_memory()
        if step.do == "misbehave":
            raise Misdeed(step.how, step.reason)
        if step.do == "flood":
            _flood(call, self._device)
        time.sleep(self._takes_s(step))
        if step.do == "fail":
            raise ProbeError(step.reason or "the script says so")
        return step.reason

    def inject(self, fault: Fault | None) -> None:
        """Do this instead of what the script says; None goes back to it."""
        self._fault = fault

    def _step(self) -> sim.Step:
        """Return what is to be done now: what an operator injected goes before the script."""
        now_s = time.monotonic()
        fault = self._fault
        if fault is not None and (fault.until_s is None or now_s < fault.until_s):
            return sim.Step(do=fault.do, reason=fault.reason or f"an operator injected {fault.do}")
        return sim.step_at(self._script, now_s - self._started_s)

    def _takes_s(self, step: sim.Step) -> float:
        default_s = self._timeout_s * SLOW_FACTOR if step.do == "slow" else 0.0
        return default_s if step.takes_s is None else step.takes_s


def hang() -> NoReturn:
    """Never return; a signal still ends the process."""
    while True:
        time.sleep(_LONG_S)


def crash() -> NoReturn:
    """End this process by a real segmentation fault."""
    ctypes.string_at(0)
    raise AssertionError("address 0 was readable")


def _eat_memory() -> NoReturn:
    """Take memory until there is none to be had."""
    eaten = []
    while True:
        eaten.append(bytearray(_BITE_BYTES))


def _flood(call: Call, device: str) -> None:
    """Publish as fast as it goes."""
    until_s = time.monotonic() + FLOOD_S
    count = 0
    while time.monotonic() < until_s:
        count += 1
        call.say(f"sim flood {device} {count}")
