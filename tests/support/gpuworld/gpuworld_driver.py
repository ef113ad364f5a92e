"""devd's own driver ``nvidia`` in a world of fixtures: its discovery, signals and binding, below the folder GPU_WORLD.

Only where it looks is another: files stand for /proc and /sys, the stand-in for NVML lies in the world's ``lib`` and is
loaded by its path, inside the sandbox, just before the binding asks for it.
"""

import ctypes
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from devd.ipc.messages import Device
from devd.workers.drivers import nvidia
from devd.workers.drivers.kind import DriverKind, Tools
from devd.workers.drivers.nvidia import NvidiaDriver
from devd.workers.drivers.nvidia_signals import NvidiaSignals
from devd.workers.hw.allowance import Allowance

WORLD = Path(os.environ["GPU_WORLD"])


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


def _allowed(device: Device) -> Allowance:
    real = nvidia.allowed(device)
    return replace(real, read=(*real.read, str(WORLD)), write=(str(WORLD / "script.calls"),))


DRIVER: DriverKind = replace(
    nvidia.DRIVER,
    discovery=_discover,
    watch=_watch,
    allowed=_allowed,
    scout=replace(nvidia.DRIVER.scout, read=(*nvidia.DRIVER.scout.read, str(WORLD))),
)
