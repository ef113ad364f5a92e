"""The signals of a USB device: is it plugged in, let in, set up, alive, and is its port well."""

import errno
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from devd.ipc.messages import Device
from devd.workers.drivers.signals import Signal
from devd.workers.errors import SpecError, explain
from devd.workers.hw import attributes, holders, nodes, usb, usb_calls
from devd.workers.hw.attribute_watch import AttributeWatch
from devd.workers.hw.baseline import Rule
from devd.workers.hw.counters import Counters
from devd.workers.params import Params

SIGNALS = (
    Signal("present", "the device is unplugged, or its hub is; look at the cable"),
    Signal("identity", "another device is plugged into the port; the next scan lists it as what it is"),
    Signal("node", "a device node is missing or leads to another device; look at the driver and at udev"),
    Signal("authorized", "the host does not let the device in; write 1 to its attribute authorized"),
    Signal("configured", "the device was not set up: too little power at the hub, or it did not answer"),
    Signal("answers", "the device does not answer a status request; its firmware hangs or the cable is bad; reset it"),
    Signal("over-current", "the port drew too much current and was switched off; look at the device and its cable"),
    Signal("tty", "the serial line is gone or broken; opening it raises DTR and RTS", default=False),
)

OVER_CURRENT = Rule("over-current events", window_s=600)
"""Ten minutes, so that somebody sees it: the port itself is switched on again at once."""
STATUS_TIMEOUT_S = 1.0
"""The request's own time-out; a device has 50 ms to answer by the standard (USB 2.0, 9.2.6.4)."""
_NOT_ALLOWED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})

Status = Callable[[Path, float], int]
"""Raw node, time-out in seconds -> the device's status word."""
ModemLines = Callable[[Path], int | None]
"""Serial line's node -> its wires, None while it is somebody's alone."""


class UsbSignals:
    """The signals of one device."""

    def __init__(
        self,
        device: Device,
        *,
        root: Path = Path("/"),
        baseline: Mapping[str, object] | None = None,
        status: Status = usb_calls.status,
        modem_lines: ModemLines = usb_calls.modem_lines,
    ) -> None:
        self._device = device
        self._root = root
        params = Params("params", device.params)
        self._name = params.text("name")
        self._ids = params.text("ids")
        self._serial = params.text("serial", "")
        self._ttys = params.texts("ttys")
        self._directory = root / usb.DEVICES / self._name
        self._counters = Counters(root, baseline)
        self._port = AttributeWatch()
        self._status = status
        self._modem_lines = modem_lines
        self._notes: dict[str, str] = {}
        self._checks: Mapping[str, Callable[[], str]] = {
            "present": self._present,
            "identity": self._identity,
            "node": lambda: nodes.differ(root, device.nodes),
            "authorized": self._authorized,
            "configured": self._configured,
            "answers": self._answers,
            "over-current": self._over_current,
            "tty": self._tty,
        }

    @property
    def offered(self) -> tuple[str, ...]:
        """Return the signals this device has."""
        here = self._directory
        absent = {
            "authorized": not (here / "authorized").exists(),
            "configured": not (here / "bConfigurationValue").exists(),
            "answers": not self._raw(),
            "over-current": self._over_currents() is None,
            "tty": not self._ttys,
        }
        return tuple(name for name in self._checks if not absent.get(name, False))

    @property
    def notes(self) -> Mapping[str, str]:
        """Return what is worth telling although it is no fault (what -> text)."""
        return {**self._notes, **self._counters.notes}

    @property
    def baseline(self) -> Mapping[str, object]:
        """Return the counters' baseline to keep for the next worker."""
        return self._counters.stored

    @property
    def fd(self) -> int | None:
        """Return a descriptor that is readable when the port's count of over-currents has changed."""
        return self._port.fd

    def heard(self) -> bool:
        """Return whether it has."""
        return self._port.heard()

    def release(self) -> None:
        """Watch the port no more; the next check begins anew."""
        self._port.close()

    def cured(self) -> None:
        """Take the events counted so far as the new baseline: a reset has worked."""
        self._counters.forget(list(self._counters.stored))

    def check(self, name: str) -> str:
        """Return "" when a signal is well or not offered, else the reason. Raises OSError, SpecError."""
        if name not in self._checks:
            raise SpecError(f"signal {name!r} is unknown to the usb driver")
        return self._checks[name]()

    def _present(self) -> str:
        return "" if self._directory.exists() else f"nothing is plugged in at {self._name}"

    def _identity(self) -> str:
        now = usb.device(self._root, self._name)
        if now is None or (now.ids, now.serial) == (self._ids, self._serial):
            return ""
        found = f"{now.ids} serial {attributes.shown(now.serial)}"
        return f"{self._name} is {found} now, was {self._ids} serial {attributes.shown(self._serial)}"

    def _authorized(self) -> str:
        found = attributes.text(self._directory / "authorized")
        return f"{self._name} is not authorized" if found == "0" else ""

    def _configured(self) -> str:
        found = attributes.text(self._directory / "bConfigurationValue")
        return f"{self._name} has no configuration" if found == "" else ""

    def _answers(self) -> str:
        path = self._raw()
        if not path:
            return ""
        if attributes.text(self._directory / "power/runtime_status") in ("suspended", "suspending"):
            self._note("answers", "asleep, not asked")
            return ""
        self._note("answers", "")
        try:
            self._status(attributes.under(self._root, path), STATUS_TIMEOUT_S)
        except OSError as error:
            return self._no_answer(path, error)
        return ""

    def _no_answer(self, path: str, error: OSError) -> str:
        """Return the reason; "" for what says nothing about the device."""
        words = explain("status request", path, error)
        if error.errno == errno.EPIPE:
            return ""  # a stall is an answer
        if error.errno in _NOT_ALLOWED:
            self._note("answers", f"not asked: {words}")
            return ""
        if error.errno == errno.ENOENT:
            return ""  # no node for it here: the signals present and node tell whether that is a fault
        return words

    def _over_current(self) -> str:
        value = self._over_currents()
        if value is None:
            return ""
        return self._counters.judge(replace(OVER_CURRENT, name=f"{self._name} {OVER_CURRENT.name}"), value)

    def _over_currents(self) -> int | None:
        """Return how often the port was switched off for too much current, None if it does not count."""
        port = usb.port_directory(self._root, self._name)
        if port is None:
            return None
        self._port.follow(port / "over_current_count")  # before it is read: nothing is missed in between
        return attributes.whole(port / "over_current_count")

    def _tty(self) -> str:
        for path in self._ttys:
            users = holders.of_nodes(self._root, [path])
            if users.known:
                self._note("tty", f"not opened: {', '.join(users.known)}")
                continue
            self._note("tty", f"opened blindly: {users.unseen}" if users.unseen else "")
            try:
                if self._modem_lines(attributes.under(self._root, path)) is None:
                    self._note("tty", "in use (EBUSY)")
            except OSError as error:
                return explain("open", path, error)
        return ""

    def _raw(self) -> str:
        """Return the raw node's path as it is now: a device that was reset may have another number."""
        now = usb.device(self._root, self._name)
        return now.node[0].path if now is not None and now.node else ""

    def _note(self, what: str, text: str) -> None:
        if text:
            self._notes[what] = text
        else:
            self._notes.pop(what, None)
