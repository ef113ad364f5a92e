"""The signals of PCI functions: is it there, does it answer, what happened on its link."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from devd.ipc.messages import Device
from devd.workers.drivers.signals import Signal
from devd.workers.errors import SpecError
from devd.workers.hw import attributes, nodes, pci, pci_state
from devd.workers.hw.baseline import Rule
from devd.workers.hw.counters import Counters
from devd.workers.params import Params

SIGNALS = (
    Signal("present", "the kernel has removed the function; look at the slot, then at /sys/bus/pci/rescan"),
    Signal("identity", "another device stands at the address; the next scan lists it as what it is"),
    Signal("node", "a device node is missing or leads to another device; look at the driver and at udev"),
    Signal("driver", "the driver is unbound or another one has the function; bind it again, or reset by rebind"),
    Signal(
        "on-bus", "the function does not answer, it fell off the bus; reset it or its slot, or power-cycle the node"
    ),
    Signal("power", "the kernel could not wake the function from power saving; reset it"),
    Signal("link-width", "the link has fewer lanes than both ends can; reseat the card, look at the riser"),
    Signal("fatal-errors", "fatal PCIe errors since the baseline; reset the device, replace it if they return"),
    Signal("nonfatal-errors", "uncorrectable PCIe errors since the baseline; data may be lost; reset the device"),
    Signal("port-errors", "the port above saw uncorrectable errors since the baseline; look at card, slot and riser"),
    Signal("correctable-errors", "many corrected PCIe errors within an hour; the link is poor", default=False),
    Signal("link-speed", "the link is slower than both ends can; power saving does that too", default=False),
    Signal("decode", "a driver has enabled the function, yet it answers nowhere: it lost its settings", default=False),
    Signal("wake", "as on-bus, for a function that sleeps: it is woken up to be asked", default=False),
)

CORRECTABLE_PER_HOUR = 100
"""A clean link has a handful a day at most; an operator who turns the signal on wants to hear of a poor one."""
RULES: Mapping[str, Rule] = {
    "fatal-errors": Rule("fatal errors"),
    "nonfatal-errors": Rule("nonfatal errors"),
    "port-errors": Rule("errors"),
    "correctable-errors": Rule("correctable errors", allowed=CORRECTABLE_PER_HOUR, window_s=3600),
}
"""Uncorrectable errors stand until the baseline is taken anew, which a reset that worked does."""
_PASSED_THROUGH = "vfio"
"""Part of the name of every driver that hands a function to a virtual machine, which sets decoding as it likes."""


@dataclass(frozen=True, slots=True)
class Expected:
    """One function as discovery found it; ``ids`` is "vendor:device"."""

    address: str
    ids: str
    driver: str


_Has = Callable[[Expected, Path], bool]
_Check = Callable[[Expected, Path], str]


class PciSignals:
    """The signals of one device, which has one function or several (an IOMMU group); the first bad one is named."""

    def __init__(
        self,
        device: Device,
        *,
        root: Path = Path("/"),
        baseline: Mapping[str, object] | None = None,
        rules: Mapping[str, Rule] = RULES,
    ) -> None:
        self._device = device
        self._root = root
        self._functions = self.functions_of(device)
        self._counters = Counters(root, baseline)
        self._rules = {**RULES, **rules}
        self._notes: dict[str, str] = {}
        self._checks: Mapping[str, tuple[_Has, _Check]] = {
            "present": (_always, self._present),
            "identity": (_always, self._identity),
            "driver": (lambda one, _at: bool(one.driver), self._driver),
            "on-bus": (_shows("config"), self._on_bus),
            "power": (_shows("power/runtime_status"), self._power),
            "link-width": (lambda _one, at: _has_link(at, pci_state.lanes), self._link_width),
            "fatal-errors": (_shows("aer_dev_fatal"), self._errors("fatal")),
            "nonfatal-errors": (_shows("aer_dev_nonfatal"), self._errors("nonfatal")),
            "port-errors": (lambda one, _at: bool(self._port_counts(one)), self._port_errors),
            "correctable-errors": (_shows("aer_dev_correctable"), self._errors("correctable")),
            "link-speed": (lambda _one, at: _has_link(at, pci_state.speed), self._link_speed),
            "decode": (_decodes, self._decode),
            "wake": (_shows("config"), self._wake),
        }

    @staticmethod
    def functions_of(device: Device) -> tuple[Expected, ...]:
        """Return the functions of a device. Raises SpecError."""
        maps = Params("params", device.params).maps("functions")
        if not maps:
            raise SpecError(f"{device.id}: params.functions is missing: it was not found by the pci or vfio driver")
        return tuple(Expected(one.text("address"), one.text("ids"), one.text("driver", "")) for one in maps)

    @property
    def offered(self) -> tuple[str, ...]:
        """Return the signals that this device has: those that at least one function can be asked for."""
        names = [
            name
            for name, (has, _check) in self._checks.items()
            if any(has(one, self._directory(one.address)) for one in self._functions)
        ]
        if self._device.nodes:
            names.insert(2, "node")
        return tuple(names)

    @property
    def notes(self) -> Mapping[str, str]:
        """Return what is worth telling although it is no fault (what -> text)."""
        return {**self._notes, **self._counters.notes}

    @property
    def baseline(self) -> Mapping[str, object]:
        """Return the counters' baseline to keep for the next worker."""
        return self._counters.stored

    def cured(self) -> None:
        """Take the errors counted so far as the new baseline: a reset has worked."""
        self._counters.forget(list(self._counters.stored))

    def check(self, name: str) -> str:
        """Return "" when a signal is well or not offered, else the reason. Raises OSError, SpecError."""
        if name == "node":
            return nodes.differ(self._root, self._device.nodes)
        if name not in self._checks:
            raise SpecError(f"signal {name!r} is unknown to the pci driver")
        has, check = self._checks[name]
        ends = [(one, self._directory(one.address)) for one in self._functions]
        reasons = [check(one, at) for one, at in ends if has(one, at)]
        return "; ".join(filter(None, reasons))

    # ---- one function, one signal that it has: the reason, or "" ---------------------------------------------------

    def _present(self, one: Expected, at: Path) -> str:
        return "" if at.exists() else f"{one.address} is gone from the bus"

    def _identity(self, one: Expected, _at: Path) -> str:
        now = pci.function(self._root, one.address)
        if now is None or f"{now.vendor}:{now.device}" == one.ids:
            return ""
        return f"{one.address} is {now.vendor}:{now.device} now, was {one.ids}"

    def _driver(self, one: Expected, at: Path) -> str:
        now = attributes.target(at / "driver")
        if now == one.driver or not at.exists():
            return ""
        return f"{one.address} is bound to {now or 'no driver'}, was to {one.driver}"

    def _on_bus(self, one: Expected, at: Path) -> str:
        if pci_state.asleep(at):
            self._notes[f"{one.address} on-bus"] = "asleep, not asked"
            return ""
        self._notes.pop(f"{one.address} on-bus", None)
        return self._wake(one, at)

    def _wake(self, one: Expected, at: Path) -> str:
        header = pci_state.header(at)
        if header is None:
            return ""
        if header.gone:
            return f"{one.address} fell off the bus: its configuration space reads as ones"
        if header.not_ready:
            return f"{one.address} is not ready: it answers that it still comes up"
        found = f"{header.vendor:04x}:{header.device:04x}"
        if _is_virtual(at) or found == one.ids:
            return ""
        return f"{one.address} answers as {found}, was {one.ids}"

    def _power(self, one: Expected, at: Path) -> str:
        if attributes.text(at / "power/runtime_status") != "error":
            return ""
        return f"{one.address} could not be suspended or resumed (runtime_status error)"

    def _link_width(self, one: Expected, at: Path) -> str:
        widest = self._least(one, lambda end: pci_state.lanes(end, "max"))
        if widest is None or pci_state.asleep(at):
            return ""
        now = pci_state.lanes(at, "current")
        return f"{one.address} has {now} lanes, both ends can {widest:g}" if now is not None and now < widest else ""

    def _link_speed(self, one: Expected, at: Path) -> str:
        fastest = self._least(one, lambda end: pci_state.speed(end, "max"))
        if fastest is None or pci_state.asleep(at):
            return ""
        now = pci_state.speed(at, "current")
        slow = now is not None and now < fastest
        return f"{one.address} runs at {now:g} GT/s, both ends can {fastest:g}" if slow else ""

    def _decode(self, one: Expected, at: Path) -> str:
        if pci_state.asleep(at) or not pci_state.enabled(at):
            return ""
        header = pci_state.header(at)
        if header is None or header.gone or header.command & pci_state.COMMAND_DECODE:
            return ""
        return (
            f"{one.address} is enabled, and its command register ({header.command:#06x}) says that it answers nowhere"
        )

    def _port_errors(self, one: Expected, _at: Path) -> str:
        reasons = [self._count("port-errors", name, value) for name, value in self._port_counts(one).items()]
        return "; ".join(filter(None, reasons))

    def _port_counts(self, one: Expected) -> dict[str, int]:
        """Return what the port right above counted: its link is this device's alone, unlike those further up.

        A root port also counts the messages that arrived at it, which is where an endpoint's fatal error shows; they
        come from everything below it, so they are taken only if this link is all there is.
        """
        found: dict[str, int] = {}
        bridges = pci.upstream(self._root, one.address)
        if not bridges or _is_virtual(self._directory(one.address)):
            return found
        at = self._directory(bridges[0])
        severities: tuple[pci_state.Severity, ...] = ("fatal", "nonfatal")
        for severity in severities:
            values = (pci_state.errors(at, severity), pci_state.root_port_errors(at, severity))
            for kind, value in zip((severity, f"received {severity}"), values, strict=True):
                if value is not None:
                    found[f"{bridges[0]} {kind}"] = value
        return found

    def _errors(self, severity: pci_state.Severity) -> _Check:
        def check(one: Expected, at: Path) -> str:
            value = pci_state.errors(at, severity)
            return "" if value is None else self._count(f"{severity}-errors", one.address, value)

        return check

    def _count(self, signal: str, whose: str, value: int) -> str:
        rule = self._rules[signal]
        return self._counters.judge(replace(rule, name=f"{whose} {rule.name}"), value)

    def _least(self, one: Expected, read: Callable[[Path], float | None]) -> float | None:
        """Return the lower value of both ends of a link; the device's own where the port above does not say."""
        ends = [one.address, *pci.upstream(self._root, one.address)[:1]]
        found = [value for end in ends if (value := read(self._directory(end))) is not None]
        return min(found) if found and read(self._directory(one.address)) is not None else None

    def _directory(self, address: str) -> Path:
        return self._root / pci.DEVICES / address


def _always(_one: Expected, _at: Path) -> bool:
    return True


def _shows(name: str) -> _Has:
    """Return whether a function has a file."""
    return lambda _one, at: (at / name).exists()


def _has_link(at: Path, read: Callable[[Path, Literal["current", "max"]], float | None]) -> bool:
    """Return whether a function tells of a link of its own; a virtual one's is its physical one's."""
    return read(at, "max") is not None and not _is_virtual(at)


def _decodes(one: Expected, at: Path) -> bool:
    """Return whether a function should answer at some region of memory or I/O once its driver has enabled it."""
    return _PASSED_THROUGH not in one.driver and not _is_virtual(at) and pci_state.has_regions(at)


def _is_virtual(at: Path) -> bool:
    return (at / "physfn").is_symlink()
