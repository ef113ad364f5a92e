"""The reset kinds: what brings a device back to a clean state before a container gets it."""

import os
import time
from collections.abc import Callable
from typing import NoReturn, Protocol

from devd.ipc.messages import Device, WorkerSpec
from devd.workers import sysfs
from devd.workers.command import CommandError, CommandRunner, describe
from devd.workers.drivers import kind_of
from devd.workers.drivers.kind import Tools
from devd.workers.errors import ResetError, SpecError, explain
from devd.workers.hw.allowance import needs_of
from devd.workers.params import Params, fill, kernel_name
from devd.workers.probes.base import Call
from devd.workers.probes.exec import command_needs, command_of, environment_of
from devd.workers.probes.sim import crash, hang
from devd.workers.sandbox.needs import NOTHING, SandboxNeeds

_WHERE = "reset.attribute"

_LIE_EVERY_S = 0.05


class Reset(Protocol):
    """One way to reset a device. The worker holds no file of the device open while it runs."""

    @property
    def activity(self) -> str:
        """Name the call ("reset exec usb-reset")."""

    @property
    def needs(self) -> SandboxNeeds:
        """Return what the sandbox must leave to it."""

    def run(self, call: Call) -> None:
        """Reset the device. Raises ResetError with the reason when that did not work."""


class ExecReset:
    """Run a command; exit code 0 is success."""

    def __init__(self, spec: WorkerSpec, params: Params, runner: CommandRunner) -> None:
        self._device = _target(spec)
        self._command = command_of(params, self._device)
        self._runner = runner
        self.needs = command_needs(spec, self._command[0])
        self.activity = f"reset exec {os.path.basename(self._command[0])}"  # noqa: PTH119 - a text, not a file

    def run(self, call: Call) -> None:
        """Run the command. Raises ResetError."""
        try:
            finished = self._runner.run(self._command, call, environment_of(self._device))
        except CommandError as error:
            raise ResetError(f"reset exec: {error}") from error
        if finished.code != 0:
            raise ResetError(f"reset exec {self._command[0]}: {describe(finished)}")


class SysfsReset:
    """Write a value to an attribute of each node; one that all nodes share is written once."""

    def __init__(self, spec: WorkerSpec, params: Params, _runner: CommandRunner) -> None:
        self._device = _target(spec)
        self._attribute = params.text("attribute")
        self._value = fill(params.text("value"), {"name": kernel_name(self._device)}, "reset.value")
        self.activity = f"reset write {self._attribute}"
        self.needs = sysfs.needs(self._paths(), self._device, "w")

    def run(self, call: Call) -> None:
        """Write the value. Raises ResetError."""
        for path in self._paths():
            call.say(f"reset write {path}")
            sysfs.check_below_sys(path, _WHERE)
            try:
                sysfs.write(path, self._value)
            except OSError as error:
                raise ResetError(explain("write", path, error)) from error

    def _paths(self) -> tuple[str, ...]:
        """Return the attribute's path for each node, each path once."""
        nodes = self._device.nodes or (None,)
        return tuple(dict.fromkeys(sysfs.attribute_path(self._attribute, node, self._device, _WHERE) for node in nodes))


class DriverReset:
    """One of the driver's own resets: it looks first who uses what would go along, and refuses then."""

    def __init__(self, spec: WorkerSpec, params: Params, runner: CommandRunner, release: Callable[[], None]) -> None:
        kinds = kind_of(spec.driver).resets
        method = params.text("method")
        if method not in kinds:
            raise SpecError(
                f"reset.method: {method!r} is unknown to driver {spec.driver}, allowed are {', '.join(kinds)}"
            )
        device = _target(spec)
        self._kind = kinds[method]
        self._device = device
        self._tools = Tools(runner, params, release=release)
        self.needs = needs_of(kinds[method].allowed(device), device, kind_of(spec.driver).places)
        self.activity = f"reset {method} of {device.id}"

    def run(self, call: Call) -> None:
        """Reset the device. Raises ResetError, OSError."""
        call.say(self.activity)
        self._tools.release()
        # Made late: it looks at the device as it is now, and what it raises is the reset's failure.
        self._kind.make(self._device, self._tools).run(call)


class SimReset:
    """Take a while, then end as told: ok, fail, hang, crash, or lie (hang, and say all is well again and again)."""

    def __init__(self, spec: WorkerSpec, params: Params, _runner: CommandRunner) -> None:
        self._takes_s = params.number("takes", 0.0)
        self._result = params.choice("result", ("ok", "fail", "hang", "crash", "lie"), "ok")
        self.activity = f"reset sim {spec.device}"
        self.needs = NOTHING

    def run(self, call: Call) -> None:
        """Do as told. Raises ResetError, or does not return."""
        call.say(self.activity)
        time.sleep(self._takes_s)
        if self._result == "hang":
            hang()
        if self._result == "lie":
            _lie(call)
        if self._result == "crash":
            crash()
        if self._result == "fail":
            raise ResetError("reset sim: told to fail")


def _lie(call: Call) -> NoReturn:
    count = 0
    while True:
        count += 1
        call.say(f"nothing at all, for the {count}th time")
        time.sleep(_LIE_EVERY_S)


RESETS: dict[str, Callable[[WorkerSpec, Params, CommandRunner], Reset]] = {
    "exec": ExecReset,
    "sysfs": SysfsReset,
    "sim": SimReset,
}


def make_reset(spec: WorkerSpec, runner: CommandRunner, release: Callable[[], None]) -> Reset | None:
    """Return the reset a spec asks for, None when it asks for none; ``release`` closes what the probe holds open.

    Raises SpecError.
    """
    if spec.reset is None:
        return None
    params = Params("reset", spec.reset)
    kind = params.text("kind")
    if kind == "driver":
        return DriverReset(spec, params, runner, release)
    if kind not in RESETS:
        raise SpecError(f"reset.kind: {kind!r} is unknown, allowed are driver, {', '.join(RESETS)}")
    return RESETS[kind](spec, params, runner)


def _target(spec: WorkerSpec) -> Device:
    return spec.target if spec.target is not None else Device(spec.device)
