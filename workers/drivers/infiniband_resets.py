"""Resets of an RDMA device, mild to strong. Each looks first who would be hit, and refuses with the list."""

from collections.abc import Sequence
from pathlib import Path

from devd.ipc.messages import Device
from devd.workers import sysfs
from devd.workers.command import CommandError, CommandRunner
from devd.workers.drivers.infiniband_signals import devlink_of, ports_of
from devd.workers.errors import ResetError, explain
from devd.workers.hw import attributes, holders, infiniband, links, pci_reach
from devd.workers.hw.devlink import Devlink
from devd.workers.params import Params
from devd.workers.probes.base import Call


class _Function:
    """The PCI function (or software device) behind an RDMA device, and everyone a reset of it would hit."""

    def __init__(self, device: Device, root: Path) -> None:
        self.name = Params("properties", device.properties).text("name")
        self.address = device.properties.get("address", "")
        self.devlink = devlink_of(device)
        self.ports = ports_of(device)
        self.root = root
        self.directory = root / infiniband.CLASS / self.name
        self.pci = self.directory / "device"

    def adapters(self) -> list[str]:
        """Return all RDMA devices of the function, this one first. Raises OSError."""
        beside = attributes.names(self.pci / "infiniband")
        return [self.name, *(name for name in beside if name != self.name)]

    def reach(self) -> tuple[str, ...]:
        """Return the RDMA devices, network interfaces and virtual functions that go with it. Raises OSError."""
        interfaces = infiniband.interfaces(self.root, self.directory, self.ports)
        return (*self.adapters(), *interfaces, *infiniband.virtual_functions(self.pci))

    def refuse_if_used(self, call: Call) -> None:
        """Raise ResetError naming everyone who is in the way."""
        call.say(f"look who uses {self.name}")
        found = [f"{self.name} has the virtual function {one}" for one in infiniband.virtual_functions(self.pci)]
        for name in infiniband.interfaces(self.root, self.directory, self.ports):
            found.extend(links.users(self.root, name))
        found.extend(
            f"{self.name} port {port} has no network interface here: it may be in a pod's network namespace"
            for port in self.ports
            if infiniband.lent(self.root, self.directory, port)
        )
        paths: list[str] = []
        for adapter in self.adapters():
            nodes = infiniband.char_nodes(self.root, adapter)
            paths.extend(node.path for kind in ("uverbs", "umad") for node in nodes[kind])
        found.extend(holders.of_nodes(self.root, paths).found)
        if found:
            words = holders.Users(tuple(found)).words()
            raise ResetError(f"refused, {', '.join(self.reach())} would be reset: {words}")


class _DevlinkReset:
    """What the resets by devlink have in common."""

    def __init__(
        self, device: Device, runner: CommandRunner, *, root: Path = Path("/"), devlink: str = "devlink"
    ) -> None:
        self._function = _Function(device, root)
        if not self._function.address:
            raise ResetError(f"{device.id} is no PCI device: devlink does not know it")
        self._devlink = Devlink(runner, self._function.devlink, devlink)

    def blast_radius(self) -> tuple[str, ...]:
        """Return what this takes along. Raises OSError."""
        return self._function.reach()


class RecoverReset(_DevlinkReset):
    """Have the firmware's reporter recover: the mildest, does nothing when the firmware is well."""

    activity = "reset devlink health recover fw"

    def run(self, call: Call) -> None:
        """Recover the firmware. Raises ResetError, OSError."""
        self._function.refuse_if_used(call)
        call.say(self.activity)
        try:
            self._devlink.recover("fw", call)
        except CommandError as error:
            raise ResetError(str(error)) from error


class ReloadReset(_DevlinkReset):
    """Take the driver down and up again: the RDMA device and its interfaces go and come back."""

    activity = "reset devlink dev reload"

    def run(self, call: Call) -> None:
        """Reload the driver. Raises ResetError, OSError."""
        self._function.refuse_if_used(call)
        call.say(self.activity)
        try:
            self._devlink.reload(call)
        except CommandError as error:
            raise ResetError(str(error)) from error


class LinkReset:
    """Set the network interface of an Ethernet port down and up. An InfiniBand port's link does not follow its own."""

    def __init__(self, device: Device, *, root: Path = Path("/")) -> None:
        self._function = _Function(device, root)
        self.activity = f"reset link of {self._function.name}"

    def blast_radius(self) -> tuple[str, ...]:
        """Return what this takes along. Raises OSError."""
        return (self._function.name, *self._interfaces())

    def run(self, call: Call) -> None:
        """Set each port's interface down and up. Raises ResetError, OSError."""
        names = self._interfaces()
        if not names:
            raise ResetError(f"{self._function.name} has no Ethernet port with an interface here: nothing to set down")
        self._function.refuse_if_used(call)
        for name in names:
            call.say(f"reset link {name}")
            try:
                links.down_and_up(name, self._hardware_address(name))
            except OSError as error:
                raise ResetError(explain("set down and up", name, error)) from error

    def _hardware_address(self, name: str) -> str:
        return attributes.text(self._function.root / "sys/class/net" / name / "address") or ""

    def _interfaces(self) -> Sequence[str]:
        """Return the function's own interfaces: a bond upon one takes other functions' along."""
        root, directory = self._function.root, self._function.directory
        found = [
            infiniband.interface(root, directory, port)
            for port in self._function.ports
            if infiniband.link_layer(directory, port) == "Ethernet"
        ]
        own = [one for one in found if one and infiniband.is_its_own(root, directory, one, stacked=0)]
        return tuple(dict.fromkeys(own))


class FunctionReset:
    """Reset the PCI function: for virtual functions, and for physical ones that have none."""

    def __init__(self, device: Device, *, root: Path = Path("/")) -> None:
        self._function = _Function(device, root)
        self._is_function = is_function(device)
        self.activity = f"reset function {self._function.address}"

    def blast_radius(self) -> tuple[str, ...]:
        """Return what this takes along. Raises OSError."""
        return self._function.reach()

    def run(self, call: Call) -> None:
        """Write the function's ``reset``. Raises ResetError, OSError."""
        if not self._is_function:
            raise ResetError(
                f"refused: {self._function.name} is not a PCI function of its own"
                + (f" but a part of {self._function.address}" if self._function.address else "")
            )
        self._function.refuse_if_used(call)
        pci = self._function.pci
        # A kernel before 5.15 does not say how it would reset: what cannot be known is refused.
        methods = (attributes.text(pci / "reset_method") or "").split()
        if not methods or methods[0] not in pci_reach.OWN_METHODS:
            words = f"by {methods[0]}" if methods else "in a way it does not tell"
            raise ResetError(
                f"refused: the kernel would reset {self._function.address} {words}, its neighbours with it"
            )
        call.say(self.activity)
        try:
            sysfs.write(str(pci / "reset"), "1")
        except OSError as error:
            raise ResetError(explain("write", str(pci / "reset"), error)) from error


def is_function(device: Device) -> bool:
    """Return whether a device is a whole PCI function, and no part of one and no software."""
    return devlink_of(device).startswith("pci/")
