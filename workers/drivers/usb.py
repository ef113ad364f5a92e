"""Driver ``usb``: USB devices, known by vendor, product and serial, else by their port. Discovery opens nothing."""

import fnmatch
from collections.abc import Mapping
from pathlib import Path

from devd.ipc.messages import Device, Node
from devd.workers.drivers.base import Found
from devd.workers.drivers.kind import DriverKind, ResetKind
from devd.workers.drivers.twins import Candidate, Twins, listed
from devd.workers.drivers.usb_resets import AuthorizedReset, PortReset, allowed_resets
from devd.workers.drivers.usb_signals import SIGNALS, UsbSignals
from devd.workers.errors import SpecError
from devd.workers.hw import attributes, devlinks, hexids, selection, subtree, survey, usb, usb_calls
from devd.workers.hw.allowance import Allowance
from devd.workers.params import Params
from devd.workers.sandbox.requests import Request

__all__ = ["DRIVER", "KEYS", "SIGNALS", "UEVENTS", "AuthorizedReset", "PortReset", "UsbDriver", "UsbSignals", "allowed"]

KEYS = ("vendor", "product", "serial", "port", "name", "class", "manufacturer", "product_name")
"""What a device can be selected by; each is a property of the device as well."""
UEVENTS = ("usb",)
"""Subsystems whose uevents can change the list: devices and interfaces come and go, drivers are bound and unbound."""
HEX_KEYS = ("vendor", "product", "class")
RAW = "bus/usb/*"


class UsbDriver:
    """``nodes`` are globs of the device nodes a container gets, as below /dev ("ttyUSB*"); the raw device by default.

    A device is offered once it has one of them. ``identity: port`` makes the port the id of all. Hubs are taken only
    if ``class`` is given.
    """

    def __init__(self, match: Mapping[str, object], *, root: Path = Path("/")) -> None:
        params = Params("match", match)
        self._selection = selection.select(hexids.plain(match, HEX_KEYS), KEYS, ("nodes", "identity"))
        if not self._selection.include:
            raise SpecError(
                f"match: nothing selects, one of {', '.join(KEYS)} is needed: not every device is to be given"
            )
        self._nodes = params.texts("nodes") or [RAW]
        self._by_port = params.choice("identity", ("serial", "port"), "serial") == "port"
        self._root = root
        self.twins = Twins()
        self.what = self._selection.words("USB devices")

    def discover(self) -> Found:
        """Read sysfs once. Raises OSError."""
        hubs_too = "class" in self._selection.include
        seen = [one for one in usb.devices(self._root) if hubs_too or one.device_class != usb.HUB_CLASS]
        # First of all: under which stable name a node is given depends on whether the device's own is good for one.
        self.twins.see([(self._own_name(one), self._port(one)) for one in seen])
        candidates = survey.each(seen, self._candidate, lambda one: one.name)
        found, problems = listed(candidates, self._selection, self.twins)
        devices = [one for one in found if one.nodes]
        problems.extend(
            f"{one.properties['name']} ({one.id}) has none of the nodes {', '.join(self._nodes)}: not offered"
            for one in found
            if not one.nodes
        )
        return Found(tuple(devices), tuple(problems), self._directories())

    def _own_name(self, one: usb.UsbDevice) -> str:
        return f"{one.ids}:{one.serial}" if one.serial and not self._by_port else ""

    def _port(self, one: usb.UsbDevice) -> str:
        return one.port if self._own_name(one) else f"{one.ids}-{one.port}"

    def _candidate(self, one: usb.UsbDevice) -> Candidate:
        own = self._own_name(one)
        by: devlinks.By = "by-id" if own and not self.twins.shared(own) else "by-path"
        leaves = subtree.own_leaves(one.directory, usb.NAME)
        return Candidate(
            own_name=own,
            port=self._port(one),
            nodes=tuple(self._node(leaf, by) for leaf in leaves if self._takes(leaf.name)),
            properties=self._properties(one),
            numa_node=one.numa_node,
            params={
                "name": one.name,
                "ids": one.ids,
                "serial": one.serial,
                "ttys": [leaf.node.path for leaf in leaves if leaf.subsystem == "tty"],
            },
        )

    def _takes(self, name: str) -> bool:
        return any(fnmatch.fnmatchcase(name, one) for one in self._nodes)

    def _node(self, leaf: subtree.Leaf, by: devlinks.By) -> Node:
        """Return a node under its stable name if it has one: a container's paths are kept for its pod's life."""
        path = devlinks.stable(self._root, leaf.name, by)
        return Node(path, leaf.node.kind, leaf.node.major, leaf.node.minor) if path else leaf.node

    def _properties(self, one: usb.UsbDevice) -> dict[str, str]:
        return {
            "sysfs": attributes.below(self._root, one.directory),
            "subsystem": "usb",
            "name": one.name,
            "vendor": one.vendor,
            "product": one.product,
            "serial": one.serial,
            "port": one.port,
            "class": one.device_class,
            "interfaces": ",".join(one.interface_classes),
            "manufacturer": one.manufacturer,
            "product_name": one.product_name,
            "speed": f"{one.speed_mbps} Mbit/s" if one.speed_mbps else "",
        }

    def _directories(self) -> tuple[Path, ...]:
        """Return where nodes and their stable names come and go."""
        buses = self._root / "dev/bus/usb"
        return (
            self._root / "dev",
            buses,
            *(buses / name for name in attributes.names(buses)),
            *(path for name in devlinks.DIRECTORIES if (path := self._root / name).is_dir()),
        )


def allowed(device: Device) -> Allowance:
    """Return what probing this device needs; a reset needs what ``usb_resets.allowed_resets`` adds."""
    params = Params("params", device.params)
    sysfs = device.properties["sysfs"]
    return Allowance(
        read=("/proc/sys/kernel/random/boot_id", f"/{usb.DEVICES}", sysfs, str(Path(sysfs).parent)),
        ioctl=(usb.bus_directory(params.text("name")), *params.texts("ttys")),
        requests=(Request(usb_calls.USBDEVFS_CONTROL), Request(usb_calls.TIOCMGET)),
        why="the raw node's number changes with each reset, so its bus's directory is meant: for 'answers'",
    )


DRIVER = DriverKind(
    discovery=UsbDriver,
    signals=SIGNALS,
    watch=lambda device, tools: UsbSignals(device, baseline=tools.baseline),
    allowed=allowed,
    resets={
        "port": ResetKind(
            lambda device, _tools: PortReset(device), allowed_resets, "USBDEVFS_RESET: the hub resets the port"
        ),
        "authorized": ResetKind(
            lambda device, _tools: AuthorizedReset(device),
            allowed_resets,
            "the host refuses the device and takes it anew",
        ),
    },
    uevents=UEVENTS,
)
