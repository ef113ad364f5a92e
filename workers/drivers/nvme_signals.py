"""The signals of an NVMe disk or controller: the controller's state first, then what its SMART page says."""

import errno
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from devd.ipc.messages import Device
from devd.workers.drivers.signals import Signal
from devd.workers.errors import SpecError, explain
from devd.workers.hw import attributes, nodes, nvme, nvme_smart
from devd.workers.hw.baseline import Rule
from devd.workers.hw.counters import Counters
from devd.workers.params import Params

SIGNALS = (
    Signal("state", "the controller is not live; a dead one needs a reset, or a PCI remove and rescan"),
    Signal("identity", "another device stands where this one was found; the next scan lists it under its own id"),
    Signal("node", "the device node is missing or leads to another device; look at udev and devtmpfs"),
    Signal("spare", "spare blocks are below the threshold; replace the disk soon"),
    Signal("temperature", "the disk is hotter or colder than it may be; look at its cooling"),
    Signal("reliability", "the disk reports degraded reliability after internal or media errors; replace it"),
    Signal("read-only", "the disk takes no more writes; save the data and replace it"),
    Signal("backup", "the disk's power-loss backup has failed; a power cut may lose data"),
    Signal("pmr", "the persistent memory region is unreliable or read-only; replace the disk if it is used"),
    Signal(
        "media-errors", "unrecovered data errors since the baseline; check the data, replace the disk if it goes on"
    ),
    Signal("wear", "the disk has used up the endurance its maker promises; it may go on for long", default=False),
    Signal("hot", "the kernel's temperature alarm is on (needs no capability)", default=False),
)

_WARNINGS: Mapping[str, tuple[int, str]] = {
    "spare": (nvme_smart.SPARE_LOW, "available spare {spare}% is below the threshold of {threshold}%"),
    "temperature": (nvme_smart.TEMPERATURE, "temperature warning, {temperature} degrees Celsius"),
    "reliability": (nvme_smart.UNRELIABLE, "reliability is degraded"),
    "read-only": (nvme_smart.READ_ONLY, "all media are read-only"),
    "backup": (nvme_smart.BACKUP_FAILED, "the volatile memory backup has failed"),
    "pmr": (nvme_smart.PMR_UNRELIABLE, "the persistent memory region is unreliable or read-only"),
}
_FROM_PAGE = (*_WARNINGS, "media-errors", "wear")

MEDIA_ERRORS = Rule("media errors", survives_boot=True)
"""The controller keeps the count itself; none is tolerated, and none is forgotten before the baseline is."""
WORN_PERCENT = 100
PAGE_FRESH_S = 0.5
"""The signals of one run share a page; the next run asks again."""
PAGE_TIMEOUT_S = 1.0
"""The command's own time-out; a healthy controller answers in milliseconds."""
_NO_PAGE = frozenset({*attributes.NOT_OFFERED, errno.EPERM, errno.EACCES, errno.EINVAL})

ReadPage = Callable[[Path, float], bytes]
"""Controller's node, time-out in seconds -> the health log page."""


@dataclass(frozen=True, slots=True)
class Way:
    """One controller on the way to the device, as discovery found it."""

    name: str
    sysfs: str
    serial: str


class NvmeSignals:
    """The signals of one device. A namespace with several controllers is well while one of them is live."""

    def __init__(
        self,
        device: Device,
        *,
        root: Path = Path("/"),
        baseline: Mapping[str, object] | None = None,
        read_page: ReadPage = nvme_smart.read,
    ) -> None:
        self._device = device
        self._root = root
        self._ways = self.controllers_of(device)
        self._read_page = read_page
        self._counters = Counters(root, baseline)
        self._page: tuple[float, Way, nvme_smart.Smart] | None = None
        self._notes: dict[str, str] = {}

    @staticmethod
    def controllers_of(device: Device) -> tuple[Way, ...]:
        """Return the controllers a device is reached by. Raises SpecError."""
        maps = Params("params", device.params).maps("controllers")
        if not maps:
            raise SpecError(f"{device.id}: params.controllers is missing: it was not found by the nvme driver")
        return tuple(Way(one.text("name"), one.text("sysfs"), one.text("serial")) for one in maps)

    @property
    def offered(self) -> tuple[str, ...]:
        """Return the signals this device has; asks the live controller for its page once."""
        names = ["state", "identity", "node"]
        if self._live() is not None and self._smart() is not None:
            names.extend(_FROM_PAGE)
        if self._alarms():
            names.append("hot")
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
        """Take note that a reset has worked: nothing changes, no reset mends media. Only the operator forgets."""

    def check(self, name: str) -> str:
        """Return "" when a signal is well or not offered, else the reason. Raises OSError, SpecError."""
        if name in _FROM_PAGE:
            return self._check_page(name)
        checks = {"state": self._state, "identity": self._identity, "node": self._node, "hot": self._hot}
        if name not in checks:
            raise SpecError(f"signal {name!r} is unknown to the nvme driver")
        return checks[name]()

    def _state(self) -> str:
        states = [(way.name, self._state_of(way)) for way in self._ways]
        bad = [f"{name} is {attributes.shown(state) if state else 'gone'}" for name, state in states if state != "live"]
        if len(bad) == len(states):
            return f"{', '.join(bad)}; live is needed"
        self._note("paths", ", ".join(bad))
        return ""

    def _identity(self) -> str:
        for way in self._ways:
            serial = attributes.text(attributes.under(self._root, way.sysfs) / "serial")
            if serial is not None and serial != way.serial:
                return f"{way.name} says it is {attributes.shown(serial)} now, was {attributes.shown(way.serial)}"
        wwid = self._device.properties.get("wwid", "")
        now = attributes.text(attributes.under(self._root, self._device.properties.get("sysfs", "/")) / "wwid")
        if wwid and now is not None and now != wwid:
            return f"the namespace says it is {attributes.shown(now)} now, was {attributes.shown(wwid)}"
        return ""

    def _node(self) -> str:
        return nodes.differ(self._root, self._device.nodes)

    def _check_page(self, name: str) -> str:
        if self._live() is None:
            return "SMART is not asked: no controller is live"
        page = self._smart()
        if page is None:
            return ""
        if name == "media-errors":
            return self._media_errors(page)
        if name == "wear":
            return f"{page.used_percent}% of the endurance is used" if page.used_percent >= WORN_PERCENT else ""
        bit, words = _WARNINGS[name]
        if not page.warnings & bit:
            return ""
        return words.format(
            spare=page.spare_percent, threshold=page.spare_threshold_percent, temperature=page.temperature_c
        )

    def _hot(self) -> str:
        for path in self._alarms():
            if attributes.text(path) == "1":
                return f"temperature alarm, {_celsius(path.with_name('temp1_input'))}"
        return ""

    def _alarms(self) -> Sequence[Path]:
        """Return the alarm attributes of all ways: hwmon below the controller, or below the PCI device before 5.5."""
        found: list[Path] = []
        for way in self._ways:
            directory = attributes.under(self._root, way.sysfs)
            for base in (directory, directory / "hwmon"):
                hwmons = [base / name for name in attributes.names(base) if name.startswith("hwmon")]
                found.extend(one / "temp1_alarm" for one in hwmons)
        return [path for path in found if attributes.text(path) in ("0", "1")]

    def _live(self) -> Way | None:
        """Return the first live controller: an admin command to one that resets would block."""
        return next((way for way in self._ways if self._state_of(way) == "live"), None)

    def _state_of(self, way: Way) -> str:
        return nvme.state(attributes.under(self._root, way.sysfs))

    def _media_errors(self, page: nvme_smart.Smart) -> str:
        """Judge each controller's own count: the live one's by its page, the others' by what was seen last."""
        asked = self._page[1] if self._page is not None else None
        reasons = [
            self._counters.judge(self._rule_of(way), page.media_errors)
            if way == asked
            else self._counters.judge_again(self._rule_of(way))
            for way in self._ways
        ]
        return "; ".join(filter(None, reasons))

    def _rule_of(self, way: Way) -> Rule:
        """Return the rule for one controller's count; its number there outlives a reboot, its name does not."""
        if len(self._ways) == 1:
            return MEDIA_ERRORS
        number = attributes.optional(attributes.under(self._root, way.sysfs) / "cntlid") or way.name
        return replace(MEDIA_ERRORS, name=f"{MEDIA_ERRORS.name} of controller {number}")

    def _smart(self) -> nvme_smart.Smart | None:
        """Return the page of the live controller, None if it is not offered. Raises OSError."""
        way = self._live()
        if way is None:
            return None
        now_s = time.monotonic()
        if self._page is not None and self._page[1] == way and now_s - self._page[0] < PAGE_FRESH_S:
            return self._page[2]
        try:
            page = nvme_smart.parse(self._read_page(attributes.under(self._root, f"/dev/{way.name}"), PAGE_TIMEOUT_S))
        except (nvme_smart.NvmeStatusError, ValueError) as error:
            self._note("smart", f"not offered: {error}")
            return None
        except OSError as error:
            if error.errno not in _NO_PAGE:
                raise
            self._note("smart", f"not offered: {explain('health log page', f'/dev/{way.name}', error)}")
            return None
        self._note("smart", "")
        self._page = (time.monotonic(), way, page)
        return page

    def _note(self, what: str, text: str) -> None:
        if text:
            self._notes[what] = text
        else:
            self._notes.pop(what, None)


def _celsius(path: Path) -> str:
    millidegrees = attributes.whole(path)
    return "temperature unknown" if millidegrees is None else f"{millidegrees / 1000:.0f} degrees Celsius"
