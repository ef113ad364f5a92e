"""The signals of an RDMA device: ports, links, error counters and what the firmware says of itself."""

import errno
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from devd.ipc.messages import Device
from devd.workers.command import CommandRunner
from devd.workers.drivers.signals import Signal
from devd.workers.errors import SpecError, explain
from devd.workers.hw import attributes, infiniband, nodes
from devd.workers.hw.baseline import Rule
from devd.workers.hw.counters import Counters
from devd.workers.hw.devlink import Devlink, NoDevlinkError, Reporter
from devd.workers.hw.rtnetlink import LinkChanges
from devd.workers.params import Params
from devd.workers.probes.base import Call

SIGNALS = (
    Signal("present", "the device is gone: unplugged, driver unbound, or moved into a pod's network namespace"),
    Signal("identity", "another device stands where this one was found; the next scan lists it under its own id"),
    Signal("node", "a device node is missing or leads to another device; look at udev and the ib_uverbs module"),
    Signal("port-state", "the port is DOWN; look at the link's signal, the cable and the switch"),
    Signal("subnet-manager", "the port waits in INIT or ARMED: no subnet manager answers, the device itself is well"),
    Signal("link", "the physical link is not up; look at cable, transceiver and the other end"),
    Signal("carrier", "the port's network interface is down or has no carrier"),
    Signal("flaps", "the link went down again and again; look at cable and transceiver"),
    Signal("symbol-errors", "bit errors on the link; clean or replace the cable"),
    Signal("recoveries", "the link had to be trained anew under load; clean or replace the cable"),
    Signal("receive-errors", "damaged packets have arrived; look at this cable and at the links beyond the switch"),
    Signal("integrity", "local link integrity errors; replace the cable or transceiver"),
    Signal("overruns", "the receive buffers overran; look at flow control on both ends"),
    Signal("discards", "packets were thrown away before sending: congestion more often than a fault", default=False),
    Signal("firmware", "the firmware reports an error of its own; recover it by devlink, or reset the function"),
    Signal("firmware-errors", "the firmware reported errors, recovered or not, in the last hour", default=False),
)

WINDOW_S = 3600.0
FLAP_WINDOW_S = 600.0
FLAPS_ALLOWED = 2
ERRORS_ALLOWED = 10
"""In an hour: our choice, far above a good link's rate and far below what an application would notice."""


@dataclass(frozen=True, slots=True)
class _Count:
    """A port counter behind a signal, with its width by the InfiniBand specification (PortCounters)."""

    attribute: str
    bits: int
    allowed: int = ERRORS_ALLOWED
    window_s: float = WINDOW_S


_COUNTS: Mapping[str, _Count] = {
    "symbol-errors": _Count("symbol_error", 16),
    "recoveries": _Count("link_error_recovery", 8),
    "receive-errors": _Count("port_rcv_errors", 16),
    "integrity": _Count("local_link_integrity_errors", 4),
    "overruns": _Count("excessive_buffer_overrun_errors", 4),
    "discards": _Count("port_xmit_discards", 16, allowed=100),
}
_FLAPS = _Count("link_downed", 8, FLAPS_ALLOWED, FLAP_WINDOW_S)
_REPORTERS = ("fw", "fw_fatal")
"""mlx5's reporters of the firmware; those of queues (tx, rx) tell of traffic."""
_HEALTHY = "healthy"
DEVLINK_TIMEOUT_S = 2.0


class InfinibandSignals:
    """The signals of one device, over the ports that its resource chose.

    Without a runner devlink is not asked; with ``events`` links that change are heard of, until ``release``.
    """

    def __init__(
        self,
        device: Device,
        *,
        root: Path = Path("/"),
        baseline: Mapping[str, object] | None = None,
        runner: CommandRunner | None = None,
        devlink: str = "devlink",
        events: bool = False,
    ) -> None:
        self._device = device
        self._root = root
        self._directory = root / infiniband.CLASS / Params("properties", device.properties).text("name")
        self._ports = ports_of(device)
        self._counters = Counters(root, baseline)
        self._notes: dict[str, str] = {}
        self._events = events
        self._changes: LinkChanges | None = None
        handle = devlink_of(device)
        self._devlink = Devlink(runner, handle, devlink) if runner is not None and handle else None
        self._checks: Mapping[str, Callable[[], str]] = {
            "present": self._present,
            "identity": self._identity,
            "node": lambda: nodes.differ(root, device.nodes),
            "port-state": lambda: self._each(self._port_state),
            "subnet-manager": lambda: self._each(self._subnet_manager),
            "link": lambda: self._each(self._link),
            "carrier": lambda: self._each(self._carrier),
            "flaps": lambda: self._each(self._flaps),
            "firmware": self._firmware,
            "firmware-errors": self._firmware_errors,
        }

    @property
    def offered(self) -> tuple[str, ...]:
        """Return the signals this device has; reads its ports, and asks devlink."""
        self._listen()
        names = ["present", "identity", "node", "port-state"]
        if any(self._has_manager(port) for port in self._ports):
            names.append("subnet-manager")
        states = [self._state(port) for port in self._ports]
        if any(state is not None and state.link_word for state in states):
            names.append("link")
        if any(self._carrier_path(port) is not None for port in self._ports):
            names.append("carrier")
        if any(self._flap_counts(port) for port in self._ports):
            names.append("flaps")
        names.extend(name for name, count in _COUNTS.items() if any(self._has(port, count) for port in self._ports))
        reporters = self._reporters()
        names.extend(["firmware"] if reporters else [])
        names.extend(["firmware-errors"] if any(one.errors is not None for one in reporters) else [])
        return tuple(names)

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
        """Return a descriptor that is readable when an interface of this network namespace has changed."""
        return self._changes.fd if self._changes is not None else None

    def heard(self) -> bool:
        """Return whether one of the interfaces that changed is a port's."""
        if self._changes is None:
            return False
        names = self._changes.drain()
        return names is None or not names.isdisjoint(self._interfaces())

    def release(self) -> None:
        """Listen no more; the next question for the signals begins anew."""
        if self._changes is not None:
            self._changes.close()
            self._changes = None

    def cured(self) -> None:
        """Take note that a reset has worked: the flaps and errors it caused itself are not the link's."""
        self._counters.forget(list(self._counters.stored))

    def check(self, name: str) -> str:
        """Return "" when a signal is well or not offered, else the reason. Raises OSError, SpecError."""
        if name in _COUNTS:
            return self._each(lambda port: self._count(port, _COUNTS[name]))
        if name not in self._checks:
            raise SpecError(f"signal {name!r} is unknown to the infiniband driver")
        return self._checks[name]()

    # ---- the device ---------------------------------------------------------------------------------------------

    def _present(self) -> str:
        if self._directory.exists():
            return ""
        return f"{self._directory.name} is gone from /{infiniband.CLASS}: unplugged, unbound, or in another network"

    def _identity(self) -> str:
        was = self._device.properties.get("node_guid", "")
        now = attributes.text(self._directory / "node_guid")
        if now is None or now == was or not was:
            return ""
        return f"{self._directory.name} has the GUID {attributes.shown(now)} now, had {was}"

    # ---- ports --------------------------------------------------------------------------------------------------

    def _each(self, check: Callable[[int], str]) -> str:
        return "; ".join(f"port {port} {reason}" for port in self._ports if (reason := check(port)))

    def _state(self, port: int) -> infiniband.PortState | None:
        return infiniband.port_state(self._directory, port)

    def _port_state(self, port: int) -> str:
        state = self._state(port)
        if state is None:
            return "is gone" if self._directory.exists() else ""
        if state.state in (infiniband.INIT, infiniband.ARMED, infiniband.ACTIVE, infiniband.ACTIVE_DEFER):
            return ""
        return f"is {attributes.shown(state.state_word)}, ACTIVE is needed"

    def _has_manager(self, port: int) -> bool:
        return infiniband.link_layer(self._directory, port) == "InfiniBand"

    def _subnet_manager(self, port: int) -> str:
        state = self._state(port) if self._has_manager(port) else None
        if state is None or state.state not in (infiniband.INIT, infiniband.ARMED):
            return ""
        return f"is {state.state_word}: no subnet manager has brought it to ACTIVE, the device itself is well"

    def _link(self, port: int) -> str:
        state = self._state(port)
        if state is None or not state.link_word or state.link == infiniband.LINK_UP:
            return ""
        return f"has its link in {attributes.shown(state.link_word)}, LinkUp is needed"

    def _carrier_path(self, port: int) -> Path | None:
        name = infiniband.interface(self._root, self._directory, port)
        path = self._root / "sys/class/net" / name / "carrier"
        return path if name and path.exists() else None

    def _carrier(self, port: int) -> str:
        path = self._carrier_path(port)
        if path is None:
            return ""
        found = attributes.text(path, absent=(errno.EINVAL,))
        if found is None:
            return f"has its interface {path.parent.name} set down"
        return f"has no carrier on {path.parent.name}" if found == "0" else ""

    def _interfaces(self) -> list[str]:
        found = (infiniband.interface(self._root, self._directory, port) for port in self._ports)
        return [name for name in found if name]

    def _listen(self) -> None:
        """Hear of links that change from now on; where that is refused the period has to do."""
        if not self._events or self._changes is not None or not self._interfaces():
            return
        try:
            self._changes = LinkChanges()
        except OSError as error:
            self._notes["events"] = f"link changes are not heard of: {explain('socket', 'AF_NETLINK', error)}"
        else:
            self._notes.pop("events", None)

    # ---- counters -----------------------------------------------------------------------------------------------

    def _has(self, port: int, count: _Count) -> bool:
        return infiniband.counter(self._directory, port, count.attribute) is not None

    def _count(self, port: int, count: _Count) -> str:
        value = infiniband.counter(self._directory, port, count.attribute)
        if value is None:
            return ""
        rule = Rule(f"port {port} {count.attribute}", count.bits, count.allowed, count.window_s)
        return self._counters.judge(rule, value).removeprefix(f"port {port} ")

    def _flap_counts(self, port: int) -> dict[str, tuple[int, int]]:
        """Return name -> (width in bits, value) of what counts the link's downs: the port's counter, the kernel's."""
        found: dict[str, tuple[int, int]] = {}
        value = infiniband.counter(self._directory, port, _FLAPS.attribute)
        if value is not None:
            found[_FLAPS.attribute] = (_FLAPS.bits, value)
        path = self._carrier_path(port)
        downs = attributes.whole(path.with_name("carrier_down_count")) if path is not None else None
        if downs is not None:
            found["carrier_down_count"] = (0, downs)
        return found

    def _flaps(self, port: int) -> str:
        reasons = []
        for name, (bits, value) in self._flap_counts(port).items():
            rule = Rule(f"port {port} {name}", bits, FLAPS_ALLOWED, FLAP_WINDOW_S)
            reasons.append(self._counters.judge(rule, value).removeprefix(f"port {port} "))
        return ", ".join(filter(None, reasons))

    # ---- firmware -----------------------------------------------------------------------------------------------

    def _reporters(self) -> list[Reporter]:
        if self._devlink is None:
            return []
        found: list[Reporter] = []
        call = Call(lambda _activity: None, time.monotonic(), DEVLINK_TIMEOUT_S)
        for name in _REPORTERS:
            try:
                found.append(self._devlink.reporter(name, call))
            except NoDevlinkError as error:
                self._notes[name] = f"not offered: {error}"
            else:
                self._notes.pop(name, None)
        return found

    def _firmware(self) -> str:
        bad = [one for one in self._reporters() if one.state != _HEALTHY]
        return "; ".join(f"devlink reporter {one.name} says {attributes.shown(one.state)}" for one in bad)

    def _firmware_errors(self) -> str:
        reasons = []
        for one in self._reporters():
            if one.errors is not None:
                rule = Rule(f"devlink reporter {one.name}", window_s=WINDOW_S)
                reasons.append(self._counters.judge(rule, one.errors))
        return "; ".join(filter(None, reasons))


def ports_of(device: Device) -> tuple[int, ...]:
    """Return the ports that count for a device. Raises SpecError."""
    return tuple(int(port) for port in Params("params", device.params).numbers("ports"))


def devlink_of(device: Device) -> str:
    """Return the handle by which devlink knows a device, "" for a software device."""
    address = device.properties.get("address", "")
    return Params("params", device.params).text("devlink", f"pci/{address}" if address else "")
