"""One resource's CDI specification: what it should say, what is known to stand, and so which names are true. Pure."""

from collections.abc import Callable, Mapping
from typing import Any

from devd.daemon import cdi
from devd.daemon.claimed_text import REASON_CHARS, plain
from devd.daemon.config import Resource
from devd.ipc.messages import Device, SpecFile

_PROPERTY = "cdi"
"""The property of a device whose vendor specifies it himself: the qualified name there."""

Known = Callable[[str], bool]
"""Whether somebody's specification has a qualified name."""


class Shelf:
    """``text`` is what was composed last. ``error`` says why it does not stand, as the scribe has it."""

    def __init__(self, resource: str) -> None:
        self.file = cdi.file_name(resource)
        self.text = self.digest = self.standing = self.error = ""
        self.vendors: dict[str, str] = {}
        self._resource = resource
        self._rules: Resource | None = None
        self._devices: dict[str, Device] = {}
        self._edits: dict[str, cdi.Edits] = {}
        self._problems: dict[str, str] = {}
        self._refused = ""
        self._unwritten = True
        # What each text that may stand says of each device; one is forgotten when another is seen to stand.
        self._said: dict[str, dict[str, cdi.Edits]] = {}

    def refresh(self, rules: Resource, devices: Mapping[str, Device]) -> bool:
        """Take the present devices and rules; return whether anything is other than before.

        Only what differs is described anew, and no text is made yet: devices come and go one by one.
        """
        known = self._devices if rules is self._rules else {}
        same = {name for name, device in devices.items() if known.get(name) == device}
        for book in (self._edits, self._problems, self.vendors):
            for name in [one for one in book if one not in same]:
                del book[name]
        for name, device in devices.items():
            if name not in same:
                self._describe(rules, device)
        moved = rules is not self._rules or len(same) != len(devices) or len(devices) != len(self._devices)
        self._rules, self._devices = rules, dict(devices)
        self._unwritten = self._unwritten or moved
        return moved

    def compose(self) -> str | None:
        """Return what the file is to hold now, "" for no file; None for what no file can hold: then the old one stays.

        What the old one says of devices that are still so stays true.
        """
        if not self._unwritten:
            return self.text
        self._unwritten, before = False, self.digest
        try:
            self.text, self._refused = cdi.specification(self._resource, self._edits), ""
        except cdi.CdiError as error:
            self._refused = str(error)
            return None
        self.digest = cdi.digest(self.text)
        self._said[self.digest] = dict(self._edits)
        self._said = {one: said for one, said in self._said.items() if one in (before, self.digest, self.standing)}
        return self.text

    def take(self, state: SpecFile) -> bool:
        """Take the scribe's word on the file; return whether it says something new."""
        error = plain(state.error, REASON_CHARS)
        if (state.standing, error) == (self.standing, self.error):
            return False
        self.standing, self.error = state.standing, error
        self._said = {one: said for one, said in self._said.items() if one in (self.digest, self.standing)}
        return True

    @property
    def settled(self) -> bool:
        """Whether it is known how the present text fared."""
        return not self._unwritten and (bool(self._refused or self.error) or self.standing == self.digest)

    def name(self, device: str, known: Known) -> str:
        """Return the name that may be given for a device now, or nothing."""
        vendor = self.vendors.get(device, "")
        if vendor:
            return vendor if known(vendor) else ""
        edits = self._edits.get(device)
        true = bool(edits) and self._said.get(self.standing, {}).get(device) == edits
        return cdi.qualified(self._resource, device) if true else ""

    def edits(self, device: str) -> cdi.Edits:
        """Return what the specification brings for a device; empty for one that a vendor specifies."""
        return self._edits.get(device, cdi.Edits())

    def nameless(self, device: str) -> bool:
        """Return whether a device has nothing that CDI could bring: no node, no mount."""
        return device in self._edits and not self._edits[device]

    def unfit(self, device: str) -> str:
        """Return why no specification could have a device, or nothing."""
        return self._problems.get(device, "") or self._refused

    def status(self, known: Known) -> dict[str, Any]:
        """Return what the status tells of it."""
        return {
            "kind": cdi.kind(self._resource),
            "file": self.file,
            "named": sum(bool(self.name(device, known)) for device in self._devices),
            "problem": self._refused or self.error or next(iter(self._problems.values()), ""),
        }

    def _describe(self, rules: Resource, device: Device) -> None:
        vendor = device.properties.get(_PROPERTY, "")
        if vendor and cdi.QUALIFIED.fullmatch(vendor):
            self.vendors[device.id] = vendor
            return
        if vendor:
            self._problems[device.id] = (
                f"property cdi of {device.id} is {vendor!r:.80}: no name like vendor/class=device"
            )
            return
        try:
            self._edits[device.id] = cdi.edits(rules, device)
        except cdi.CdiError as error:
            self._problems[device.id] = str(error)
