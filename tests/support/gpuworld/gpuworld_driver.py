"""devd's own driver ``nvidia`` in a world of fixtures: its discovery, signals, binding and reset, below GPU_WORLD.

Only where it looks is another: files stand for /proc and /sys, the stand-in for NVML lies in the world's ``lib`` and is
loaded by its path, inside the sandbox, just before the binding asks for it; a script in ``bin`` stands for nvidia-smi
and may write to ``resets``.
"""

import ctypes
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from devd.ipc.messages import Device
from devd.workers.drivers import nvidia
from devd.workers.drivers.kind import DriverKind, ResetKind, Tools
from devd.workers.drivers.nvidia import GpuReset, NvidiaDriver
from devd.workers.drivers.nvidia_signals import NvidiaSignals
from devd.workers.hw.allowance import Allowance

WORLD = Path(os.environ["GPU_WORLD"])
SMI = WORLD / "bin/nvidia-smi"


def _load() -> None:
    library = WORLD / "lib/libnvidia-ml.so.1"
    if library.exists():
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


def _discover(match: Mapping[str, object]) -> NvidiaDriver:
    _load()
    return NvidiaDriver(match, root=WORLD)


class Signals(NvidiaSignals):
    """The real ones; the library is loaded with the first question, when the sandbox stands."""

    @property
    def offered(self) -> tuple[str, ...]:
        """Return the signals."""
        _load()
        return super().offered


def _watch(device: Device, tools: Tools) -> Signals:
    xids = tools.options.values.get("xids")
    return Signals(device, root=WORLD, baseline=tools.baseline, xids=xids if isinstance(xids, Mapping) else None)


def _reset(device: Device, tools: Tools) -> GpuReset:
    _load()
    return GpuReset(device, tools.runner, root=WORLD, release=tools.release, program=str(SMI))


def _allowed_reset(device: Device) -> Allowance:
    real = nvidia.allowed_resets(device)
    read, write = (*real.read, str(WORLD)), (str(WORLD / "resets"),)
    return replace(real, read=read, write=write, execute=(str(SMI),))


def _allowed(device: Device) -> Allowance:
    real = nvidia.allowed(device)
    read, write = (*real.read, str(WORLD)), (str(WORLD / "script.calls"),)
    return replace(real, read=read, write=write, groups=("files",))


DRIVER: DriverKind = replace(
    nvidia.DRIVER,
    discovery=_discover,
    watch=_watch,
    allowed=_allowed,
    resets={"gpu": ResetKind(_reset, _allowed_reset, "the stand-in for nvidia-smi")},
    places=(*nvidia.DRIVER.places, str(WORLD)),
    scout=replace(nvidia.DRIVER.scout, read=(*nvidia.DRIVER.scout.read, str(WORLD))),
)
