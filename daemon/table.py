"""One resource as the kubelet sees it: the listed devices, their replicas, and answers from memory alone."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from devd.daemon import links
from devd.daemon.allocation import Offer, preferred
from devd.daemon.cdi import granted
from devd.daemon.charge import Charge
from devd.daemon.config import Resource
from devd.daemon.errors import AllocationRefusedError, PreStartError
from devd.daemon.grants import grant
from devd.daemon.natural import natural_key
from devd.daemon.occupancy import Start
from devd.daemon.resource import ContainerGrant, Offered
from devd.ipc.messages import Device

REPLICA_SEPARATOR = "::"
"""Between a device's id and its replica's number; ids are split from the right."""


class Health(Protocol):
    """What the table asks of the supervisor."""

    def get(self, device: str) -> Charge | None:
        """Return a device's charge, or None."""

    def healthy(self, device: str) -> bool:
        """Return whether the device has a live lease this instant."""


class Desk(Protocol):
    """What the table asks of PreStartContainer's desk."""

    def allocated(self, resource: str, ids: Sequence[str]) -> None:
        """Take note that ids were given to a container that will ask for its start."""

    async def ready(self, start: Start) -> None:
        """Reset and probe a container's devices; raises PreStartError."""


class Names(Protocol):
    """What the table asks of CDI's desk."""

    def refresh(self, rules: Resource, devices: Mapping[str, Device]) -> None:
        """Take note of the devices there are."""

    def lacking(self, rules: Resource, device: str) -> str:
        """Return why a device cannot be given by name, or nothing."""

    def given(self, rules: Resource, devices: Sequence[str], full: ContainerGrant) -> ContainerGrant:
        """Return a grant with names added, or put in the place of what they bring."""

    def settled(self, rules: Resource) -> bool:
        """Return whether it is known which devices have a name."""


class ResourceTable:
    """A ``ResourceView`` over the supervisor. Devices are put in and taken out by the scout feed alone."""

    def __init__(self, config: Resource, health: Health, desk: Desk, names: Names) -> None:
        self.config = config
        self._devices: dict[str, Device] = {}
        self._sorted = True
        self._numbers = frozenset(map(str, range(config.replicas)))
        self._health = health
        self._desk = desk
        self._names = names
        self._discovered = False
        self._subscribers: list[Callable[[], None]] = []

    @property
    def name(self) -> str:
        """Extended resource name."""
        return self.config.name

    def reconfigure(self, config: Resource) -> None:
        """Offer the same devices by another configuration from now on."""
        self.config = config
        self._numbers = frozenset(map(str, range(config.replicas)))
        self._name_all()
        self.notify()

    @property
    def pre_start_required(self) -> bool:
        """True when a reset is configured."""
        return self.config.reset is not None

    @property
    def devices(self) -> Mapping[str, Device]:
        """The devices by id, as they were last discovered, in natural order."""
        if not self._sorted:
            # Once a change of the list, so that no RPC has to.
            self._devices = dict(sorted(self._devices.items(), key=lambda one: natural_key(one[0])))
            self._sorted = True
        return self._devices

    def put(self, device: Device) -> None:
        """Take a device in, or note its new nodes and properties."""
        self._sorted = self._sorted and device.id in self._devices
        self._devices[device.id] = device

    def drop(self, device: str) -> bool:
        """Take a device out; return whether it was there."""
        there = self._devices.pop(device, None) is not None
        if there:
            self._name_all()
        return there

    def discovered(self) -> None:
        """Take note that the devices are those of a whole list now."""
        self._discovered = True
        self._name_all()
        self.notify()

    @property
    def decided(self) -> bool:
        """True when each device has had its first verdict, and its name if it is to have one."""
        charges = (self._health.get(device) for device in self.devices)
        verdicts = all(charge is None or charge.state.decided for charge in charges)
        return verdicts and self._names.settled(self.config)

    @property
    def known(self) -> int:
        """Of how many devices anything is known: a verdict, or that a worker ended without one."""
        charges = (self._health.get(device) for device in self.devices)
        return sum(charge is not None and (charge.state.decided or bool(charge.state.exits)) for charge in charges)

    def healthy(self, device: str) -> bool:
        """Return whether a device may be given to a container: it is well, and can be named where it has to be."""
        return self._health.healthy(device) and not self._unnamed(device)

    def reason(self, device: str) -> str:
        """Return why a device may not be given to a container, or nothing."""
        if self._health.healthy(device):
            return self._unnamed(device)
        charge = self._health.get(device)
        return charge.state.reason if charge is not None else ""

    def listed(self) -> list[str]:
        """Return the ids of the devices in the list, in natural order."""
        charges = ((device, self._health.get(device)) for device in self.devices)
        return [device for device, charge in charges if charge is not None and charge.state.listed]

    def replicas(self, device: str) -> list[str]:
        """Return the ids under which a device is offered."""
        if self.config.replicas == 1:
            return [device]
        return [f"{device}{REPLICA_SEPARATOR}{number}" for number in range(self.config.replicas)]

    def offered(self) -> tuple[Offered, ...]:
        """Return the whole list, sorted by id."""
        offered = []
        for device in self.listed():
            healthy = self.healthy(device)
            reason = "" if healthy else self.reason(device)
            numa = self.devices[device].numa_node
            offered += [Offered(replica, healthy, reason, numa) for replica in self.replicas(device)]
        return tuple(offered)

    def subscribe(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call ``changed`` after each change; return the function that ends it."""
        self._subscribers.append(changed)
        return lambda: self._subscribers.remove(changed)

    def notify(self) -> None:
        """Tell the subscribers that something may have changed."""
        for changed in list(self._subscribers):
            changed()

    def allocate(self, ids: Sequence[str]) -> ContainerGrant:
        """Return what a container gets. Raises AllocationRefusedError."""
        if not ids or len(set(ids)) != len(ids):
            raise AllocationRefusedError(f"{self.name}: device ids must be given, each once: {list(ids)}")
        devices = self._physical(ids, AllocationRefusedError)
        for device in devices:
            if not self.healthy(device):
                self.notify()
                reason = self.reason(device) or "its lease has just run out"
                raise AllocationRefusedError(f"{self.name}: {device} is Unhealthy: {reason}")
        if self.config.reset is not None:
            self._desk.allocated(self.name, ids)
        full = grant(self.config, [granted(self.devices[device]) for device in devices])
        return self._names.given(self.config, devices, full)

    def prefer(self, available: Sequence[str], must_include: Sequence[str], size: int) -> list[str]:
        """Return ``size`` of the available ids. Raises AllocationRefusedError."""
        listed = self.listed()
        joined = links.joined({device: self.devices[device].properties for device in listed})
        offers = [
            Offer(
                device,
                tuple(self.replicas(device)),
                self.devices[device].numa_node,
                self.devices[device].properties.get("pcie_switch", ""),
                joined[device],
            )
            for device in listed
        ]
        return preferred(offers, available, must_include, size, self.config.share)

    async def pre_start(self, ids: Sequence[str]) -> None:
        """Reset and probe all devices behind ``ids``. Raises PreStartError."""
        reset = self.config.reset
        if reset is None:
            return
        devices = tuple(self._devices[one] for one in self._physical(ids, PreStartError))
        shared = self.config.replicas > 1
        await self._desk.ready(Start(self.name, tuple(ids), devices, shared, reset.kind == "driver"))

    async def reset(self, device: str, *, force: bool) -> None:
        """Reset and probe a device at an operator's order; ``force``: whoever has it. Raises PreStartError."""
        reset = self.config.reset
        if reset is None or device not in self._devices:
            raise PreStartError(f"{device}: nothing to reset")
        takes_along = reset.kind == "driver"
        shared = self.config.replicas > 1
        await self._desk.ready(
            Start(self.name, (), (self._devices[device],), shared, takes_along, ordered=True, forced=force)
        )

    def device(self, offered: str) -> Device | None:
        """Return the device that stands behind an offered id, or None."""
        device = self._device_of(offered)
        return self._devices[device] if device is not None else None

    def _physical(self, ids: Sequence[str], error: type[AllocationRefusedError | PreStartError]) -> list[str]:
        """Return the devices behind replica ids, each once, in natural order."""
        found = {one: self._device_of(one) for one in ids}
        unknown = sorted(one for one, device in found.items() if device is None)
        if unknown:
            raise error(f"{self.name}: unknown device ids {unknown[:5]}: not in the list this plugin sent last")
        return sorted({device for device in found.values() if device is not None}, key=natural_key)

    def _device_of(self, replica: str) -> str | None:
        """Return the listed device an offered id stands for, or None; the way back of ``replicas``."""
        device = replica
        if self.config.replicas > 1:
            device, _, number = replica.rpartition(REPLICA_SEPARATOR)
            if number not in self._numbers:
                return None
        charge = self._health.get(device) if device in self._devices else None
        return device if charge is not None and charge.state.listed else None

    def _unnamed(self, device: str) -> str:
        return self._names.lacking(self.config, device) if self.config.cdi == "only" else ""

    def _name_all(self) -> None:
        # Before the first list nothing is known to be gone: what an earlier devd wrote stands until then.
        if self._discovered:
            self._names.refresh(self.config, self.devices)
