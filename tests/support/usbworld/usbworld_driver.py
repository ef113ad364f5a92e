"""devd's own driver ``usb`` in a world of fixtures: its discovery and signals, below USB_WORLD.

Only where it looks is another: files stand for /sys and /dev, and every device answers a status request.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from devd.ipc.messages import Device
from devd.workers.drivers import usb
from devd.workers.drivers.kind import DriverKind, Tools
from devd.workers.drivers.usb import UsbDriver
from devd.workers.drivers.usb_signals import UsbSignals
from devd.workers.hw.allowance import Allowance

WORLD = Path(os.environ["USB_WORLD"])


def _discover(match: Mapping[str, object]) -> UsbDriver:
    return UsbDriver(match, root=WORLD)


def _answers(_path: Path, _timeout_s: float) -> int:
    return 0


def _watch(device: Device, tools: Tools) -> UsbSignals:
    return UsbSignals(device, root=WORLD, baseline=tools.baseline, status=_answers)


def _allowed(_device: Device) -> Allowance:
    return Allowance(read=(str(WORLD),))


DRIVER: DriverKind = replace(
    usb.DRIVER,
    discovery=_discover,
    watch=_watch,
    allowed=_allowed,
    resets={},
    places=(str(WORLD),),
    scout=Allowance(read=(str(WORLD),)),
)
