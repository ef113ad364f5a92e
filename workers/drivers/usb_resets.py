"""Resets of USB devices. Each looks first who uses the device or anything plugged into it, and refuses then."""

import errno
import time
from collections.abc import Callable
from pathlib import Path

from devd.ipc.messages import Device
from devd.workers import sysfs
from devd.workers.errors import ResetError, explain
from devd.workers.hw import attributes, subtree, usb, usb_calls
from devd.workers.hw.allowance import Allowance
from devd.workers.params import Params
from devd.workers.probes.base import Call
from devd.workers.sandbox.requests import Request
from devd.workers.sandbox.runtime import SYSFS

BACK_POLL_S = 0.05
"""Between two looks at a device that comes back; one takes some 0.3 s, its serial port included."""


class _UsbReset:
    """What the resets have in common: one device, and all that is plugged into it."""

    def __init__(self, device: Device, root: Path) -> None:
        params = Params("params", device.params)
        self._name = params.text("name")
        self._ids = params.text("ids")
        self._serial = params.text("serial", "")
        self._root = root
        self._directory = root / usb.DEVICES / self._name

    def blast_radius(self) -> tuple[str, ...]:
        """Return the devices that this takes along. Raises OSError."""
        return (self._name, *usb.below(self._root, self._name))

    def _refuse_if_used(self, call: Call) -> None:
        """Raise ResetError naming everyone who is in the way, or when the device is not there."""
        call.say(f"look who uses {self._name}")
        if not self._directory.exists():
            raise ResetError(f"nothing is plugged in at {self._name}")
        users = subtree.users(self._root, [self._directory])
        if users.found:
            raise ResetError(f"refused, {', '.join(self.blast_radius())} would be reset: {users.words()}")

    def _await_back(self, call: Call) -> None:
        """Wait until the same device is set up at its port again. Raises ResetError, OSError."""
        call.say(f"wait for {self._name}")
        while not self._is_back():
            if call.left_s() <= BACK_POLL_S:
                raise ResetError(f"{self._name} is not back as {self._ids} after the reset")
            time.sleep(BACK_POLL_S)

    def _is_back(self) -> bool:
        now = usb.device(self._root, self._name)
        if now is None or (now.ids, now.serial) != (self._ids, self._serial):
            return False
        return attributes.text(self._directory / "bConfigurationValue") != ""


class PortReset(_UsbReset):
    """USBDEVFS_RESET: the hub resets the port. Drivers that cannot go on are bound anew, and their nodes renumbered."""

    def __init__(
        self, device: Device, *, root: Path = Path("/"), reset: Callable[[Path], object] = usb_calls.reset
    ) -> None:
        super().__init__(device, root)
        self._reset = reset
        self.activity = f"reset USB {self._name}"

    def run(self, call: Call) -> None:
        """Reset the device and wait for it. Raises ResetError, OSError."""
        self._refuse_if_used(call)
        now = usb.device(self._root, self._name)
        if now is None or not now.node:
            raise ResetError(f"{self._name} has no raw device node")
        path = now.node[0].path
        call.say(f"reset {path}")
        try:
            self._reset(attributes.under(self._root, path))
        except OSError as error:
            if error.errno != errno.ENODEV:  # it came back under another number: wait for that
                raise ResetError(explain("USBDEVFS_RESET", path, error)) from error
        self._await_back(call)


class AuthorizedReset(_UsbReset):
    """Take the host's leave from the device and give it back: drivers let go, the device is set up anew."""

    def __init__(self, device: Device, *, root: Path = Path("/")) -> None:
        super().__init__(device, root)
        self.activity = f"authorize USB {self._name}"

    def run(self, call: Call) -> None:
        """Write 0 and 1 to ``authorized`` and wait for the device. Raises ResetError, OSError."""
        self._refuse_if_used(call)
        try:
            self._write("0", call)
        finally:
            self._write("1", call)
        self._await_back(call)

    def _write(self, value: str, call: Call) -> None:
        path = self._directory / "authorized"
        call.say(f"write {value} to authorized of {self._name}")
        try:
            sysfs.write(str(path), value)
        except OSError as error:
            raise ResetError(explain("write", attributes.below(self._root, path), error)) from error


def allowed_resets(device: Device) -> Allowance:
    """Return what the resets need beyond probing: to write in the device's directory. The front tells who uses it."""
    name = Params("params", device.params).text("name")
    return Allowance(
        read=SYSFS,
        write=(f"/{usb.DEVICES}/{name}",),
        ioctl=(usb.bus_directory(name),),
        requests=(Request(usb_calls.USBDEVFS_RESET),),
        capabilities=("CAP_DAC_OVERRIDE",),
        why="the raw node and the attribute authorized are for root alone",
    )
