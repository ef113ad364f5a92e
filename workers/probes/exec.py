"""Probe ``exec``: a command of the operator's says by its exit code whether the device is well."""

import os
import shutil

from devd.ipc.messages import Device, WorkerSpec
from devd.workers.command import CommandError, CommandRunner, describe
from devd.workers.errors import ProbeError, SpecError
from devd.workers.params import Params, device_fields, fill
from devd.workers.probes.base import Call, node_needs
from devd.workers.sandbox.needs import EXEC_FILES, EXEC_MEMORY_BYTES, EXEC_PROCESSES, PathNeed, SandboxNeeds
from devd.workers.sandbox.requests import ANY
from devd.workers.sandbox.runtime import ETC, PROGRAMS, PSEUDO_DEVICES, python_runtime


class ExecProbe:
    """Run the command once for the device, without a shell."""

    def __init__(self, spec: WorkerSpec, runner: CommandRunner) -> None:
        params = Params("probe", spec.probe)
        self._device = spec.target if spec.target is not None else Device(spec.device)
        self._command = command_of(params, self._device)
        self._ok_codes = {int(code) for code in params.numbers("ok_codes")} if params.has("ok_codes") else {0}
        self._runner = runner
        self.needs = command_needs(spec, self._command[0])
        self.activity = f"exec {os.path.basename(self._command[0])}"  # noqa: PTH119 - a text, no file is meant

    def run(self, call: Call) -> str:
        """Run the command. Raises ProbeError."""
        call.say(f"exec {self._command[0]}")
        try:
            finished = self._runner.run(self._command, call, environment_of(self._device))
        except CommandError as error:
            raise ProbeError(f"exec: {error}") from error
        if finished.code not in self._ok_codes:
            raise ProbeError(f"exec {self._command[0]}: {describe(finished)}")
        return ""


def command_of(params: Params, device: Device) -> list[str]:
    """Return the command line with its templates filled in. Raises SpecError."""
    where = f"{params.where}.command"
    command = [fill(one, device_fields(device), where) for one in params.texts("command")]
    if not command or not command[0]:
        raise SpecError(f"{where}: a program is needed")
    return command


def command_needs(spec: WorkerSpec, program: str) -> SandboxNeeds:
    """Return what a command of the operator's gets: its device, programs and libraries, and to start processes."""
    path = shutil.which(program) or program
    folder = os.path.dirname(os.path.realpath(path))  # noqa: PTH120 - text paths throughout
    own = [PathNeed(path, "rx", vital=True), PathNeed(folder, "rx")] if path.startswith("/") else []
    common = SandboxNeeds(
        paths=(*own, *PROGRAMS, *ETC, *PSEUDO_DEVICES, *python_runtime("rx")),
        groups=frozenset({"exec"}),
        requests=frozenset({ANY}),
        memory_bytes=EXEC_MEMORY_BYTES,
        files=EXEC_FILES,
        processes=EXEC_PROCESSES,
    )
    return common | node_needs(spec, "rwi")


def environment_of(device: Device) -> dict[str, str]:
    """Return what a command finds in its environment about the device."""
    fields = device_fields(device)
    return {"DEVD_DEVICE": fields["id"], "DEVD_PATHS": fields["paths"]}
