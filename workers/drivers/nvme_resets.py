"""Resets of NVMe controllers. Each looks first who uses any disk that it would take along, and refuses then."""

import time
from pathlib import Path

from devd.ipc.messages import Device
from devd.workers import sysfs
from devd.workers.drivers.nvme_signals import NvmeSignals
from devd.workers.errors import ResetError, explain
from devd.workers.hw import attributes, holders, nvme, nvme_smart
from devd.workers.probes.base import Call

LIVE_POLL_S = 0.05
"""Between two looks at a controller that comes back; a healthy one takes well under a second."""


class ControllerReset:
    """Write ``reset_controller``: the driver sets the controller up anew, commands in flight are tried again."""

    def __init__(self, device: Device, *, root: Path = Path("/")) -> None:
        self._device = device
        self._root = root
        self._ways = NvmeSignals.controllers_of(device)
        self.activity = f"reset controller {self._ways[0].name}"

    def blast_radius(self) -> tuple[str, ...]:
        """Return the controllers and disks that this takes along. Raises OSError."""
        return _reach(self._root, [way.name for way in self._ways])

    def run(self, call: Call) -> None:
        """Reset each controller the device is reached by. Raises ResetError, OSError."""
        call.say("look who uses the disks")
        _refuse_if_used(self._root, self.blast_radius())
        for way in self._ways:
            directory = attributes.under(self._root, way.sysfs)
            call.say(f"reset controller {way.name}")
            try:
                sysfs.write(str(directory / "reset_controller"), "1")
            except OSError as error:
                raise ResetError(explain("write", str(directory / "reset_controller"), error)) from error
            _wait_live(directory, call)


class SubsystemReset:
    """Reset the whole NVM subsystem: the links of all its controllers drop. Stronger, and rarely supported."""

    def __init__(self, device: Device, *, root: Path = Path("/")) -> None:
        self._root = root
        self._way = NvmeSignals.controllers_of(device)[0]
        self.activity = f"reset subsystem of {self._way.name}"

    def blast_radius(self) -> tuple[str, ...]:
        """Return the controllers and disks that this takes along. Raises OSError."""
        return _reach(self._root, nvme.subsystem_members(self._root, self._way.name))

    def run(self, call: Call) -> None:
        """Reset the subsystem and wait for all its controllers. Raises ResetError, OSError."""
        call.say("look who uses the disks")
        _refuse_if_used(self._root, self.blast_radius())
        members = nvme.subsystem_members(self._root, self._way.name)
        path = attributes.under(self._root, f"/dev/{self._way.name}")
        call.say(self.activity)
        try:
            nvme_smart.reset_subsystem(path)
        except OSError as error:
            raise ResetError(explain("subsystem reset", str(path), error)) from error
        for name in members:
            _wait_live(self._root / "sys/class/nvme" / name, call)


def reach_of(device: Device, root: Path = Path("/")) -> tuple[str, ...]:
    """Return all that any reset of a device takes along now, as names below /dev: its subsystem's. Raises OSError."""
    names = [way.name for way in NvmeSignals.controllers_of(device)]
    members = [one for name in names for one in nvme.subsystem_members(root, name)]
    return _reach(root, list(dict.fromkeys((*names, *members))))


def _reach(root: Path, names: list[str]) -> tuple[str, ...]:
    """Return these controllers and the namespaces on any of them, as names below /dev."""
    of = [one for one in nvme.controllers(root) if one.name in names]
    return (*names, *(one.name for one in nvme.namespaces(root, of)))


def _refuse_if_used(root: Path, names: tuple[str, ...]) -> None:
    """Raise ResetError naming everyone who uses one of these controllers or disks."""
    found: list[str] = []
    paths: list[str] = []
    for name in names:
        paths.append(f"/dev/{name}")
        if nvme.CONTROLLER.fullmatch(name):
            continue
        found.extend(holders.of_block(root, name).found)
        paths.extend(f"/dev/{part}" for part in holders.partitions(root, name))
        node = attributes.under(root, f"/dev/{name}")
        if node.is_block_device():
            found.extend(holders.of_exclusive(node).found)
    found.extend(holders.of_nodes(root, paths).found)
    if found:
        raise ResetError(f"refused, {' and '.join(names)} would be reset: {holders.Users(tuple(found)).words()}")


def _wait_live(directory: Path, call: Call) -> None:
    """Wait until a controller is live. Raises ResetError when the time is over or it has died."""
    while True:
        state = nvme.state(directory)
        if state == "live":
            return
        if state == "dead" or call.left_s() <= LIVE_POLL_S:
            raise ResetError(f"{directory.name} is {attributes.shown(state) if state else 'gone'} after the reset")
        time.sleep(LIVE_POLL_S)
