"""Reset of an NVIDIA GPU by nvidia-smi, once nobody uses it or a GPU joined to it. There is no call of NVML for it."""

from collections.abc import Callable
from pathlib import Path

from devd.ipc.messages import Device
from devd.workers.command import CommandError, CommandRunner, describe
from devd.workers.errors import ResetError
from devd.workers.hw import holders, nvidia
from devd.workers.hw.nvml import Fault, NvmlError, Session
from devd.workers.params import Params
from devd.workers.probes.base import Call


class GpuReset:
    """Run ``nvidia-smi --gpu-reset``. ``release`` closes the worker's own NVML session, which would be in the way."""

    activity = "reset nvidia-smi --gpu-reset"

    def __init__(
        self,
        device: Device,
        runner: CommandRunner,
        *,
        root: Path = Path("/"),
        release: Callable[[], None] = lambda: None,
        program: str = "nvidia-smi",
    ) -> None:
        params = Params("params", device.params)
        self._device = device
        self._address = params.text("address")
        self._is_mig = params.has("gpu_instance")
        self._runner = runner
        self._root = root
        self._release = release
        self._program = program

    def blast_radius(self) -> tuple[str, ...]:
        """Return the addresses of the GPUs that must be reset together: those joined to this one without a switch.

        Raises NvmlError.
        """
        with Session(self._address) as session:
            return (self._address, *(one for one in session.linked_gpus() if one != self._address))

    def run(self, call: Call) -> None:
        """Reset the GPU. Raises ResetError, OSError."""
        call.say("close the own NVML session")
        self._release()
        call.say("ask NVML who uses the GPU")
        found = self._in_the_way()
        call.say("look who has the GPU open")
        found.extend(holders.of_nodes(self._root, self._paths()).found)
        if found:
            raise ResetError(f"refused, {self._address} would be reset: {holders.Users(tuple(found)).words()}")
        self._reset(call)

    def _in_the_way(self) -> list[str]:
        """Return what NVML knows that forbids a reset; nothing of a GPU that is lost. Raises ResetError."""
        if self._is_mig:
            raise ResetError(
                f"refused: {self._device.id} is a part of {self._address}, a reset would take all parts along"
            )
        with Session(self._address) as session:
            try:
                if _or_not(session.mig_enabled):
                    raise ResetError(f"refused: {self._address} is split by MIG")
                joined = [
                    f"{one} is joined to it by NVLink: they are reset together or not at all"
                    for one in session.linked_gpus()
                ]
                pids = [f"pid {pid} computes on it" for pid in session.processes()]
            except NvmlError as error:
                if error.fault in (Fault.GONE, Fault.RESET_NEEDED):
                    return []  # NVML can't know; open files are looked for all the same
                raise ResetError(f"refused: who uses {self._address} is unknown: {error}") from error
        return joined + pids

    def _paths(self) -> list[str]:
        """Return the GPU's own node: the control node is open wherever any GPU is used."""
        minors = [one.minor for one in nvidia.gpus(self._root) if one.address == self._address]
        return [f"/dev/nvidia{minor}" for minor in minors if minor is not None]

    def _reset(self, call: Call) -> None:
        call.say(self.activity)
        command = (self._program, "--gpu-reset", "-i", self._address)
        try:
            finished = self._runner.run(command, call, {})
        except CommandError as error:
            raise ResetError(str(error)) from error
        if finished.code == 0:
            return
        if "in use" in finished.output.lower():
            raise ResetError(f"refused by the driver: {self._address} is in use by another client")
        raise ResetError(f"{' '.join(command)}: {describe(finished)}")


def _or_not(ask: Callable[[], bool]) -> bool:
    """Return what a call says, False where the GPU does not know the question. Raises NvmlError."""
    try:
        return ask()
    except NvmlError as error:
        if error.fault is Fault.NOT_OFFERED:
            return False
        raise
