"""Which containers a reset would disturb: those that have begun to start before the one it is for, and nobody else.

The kubelet tells who has a device, not whether that container runs. Two that start at once would each be in the other's
way for ever; so devd keeps the order in which they asked to start. Pure books: no I/O, no clock.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from devd.daemon.pod_resources import Held, Holdings
from devd.ipc.messages import Allocated, Device

MAX_ALLOCATED = 1000
"""Devices of other containers that a worker is told of; more than any node has, and a message must stay small."""

Key = tuple[str, str]
Find = Callable[[str, str], Device | None]
"""(resource, offered id) -> the device that stands behind it, if it is devd's."""


@dataclass(frozen=True, slots=True)
class Start:
    """A container that is about to start with these ids of a resource, and the devices behind them.

    ``shared``: others may have a share of the same devices. ``takes_along``: the reset knows what else goes with it.
    ``ordered``: an operator wants it for no container, ``ids`` is empty. ``forced``: whoever has the device.
    """

    resource: str
    ids: tuple[str, ...]
    devices: tuple[Device, ...]
    shared: bool
    takes_along: bool
    ordered: bool = False
    forced: bool = False

    @property
    def asks(self) -> bool:
        """Return whether it matters to its resets who has what."""
        return (self.shared or self.takes_along or self.ordered) and not self.forced


@dataclass(frozen=True, slots=True)
class Occupied:
    """What a device's next reset has to respect.

    ``refused`` says why an operator's is not done, ``spared`` why a container's is left out. ``unseen`` says what is
    not known of other devices' containers.
    """

    refused: str = ""
    spared: str = ""
    allocated: tuple[Allocated, ...] = ()
    unseen: str = ""


class StartBook:
    """Who has asked to start, in order. An id that the kubelet lists and that is not in here began before devd did."""

    def __init__(self) -> None:
        self._number = 0
        self._waiting: set[Key] = set()
        self._began: dict[Key, int] = {}

    def allocated(self, resource: str, ids: Sequence[str]) -> None:
        """Note that ids were given to a container that has yet to ask for its start."""
        for one in ids:
            self._began.pop((resource, one), None)
            self._waiting.add((resource, one))

    def begins(self, start: Start) -> int:
        """Note that a container is about to start; return its number in the order of all."""
        self._number += 1
        for one in start.ids:
            self._waiting.discard((start.resource, one))
            self._began[start.resource, one] = self._number
        return self._number

    def failed(self, start: Start, number: int) -> None:
        """Note that a container did not start after all: it is in nobody's way until it asks again."""
        for one in start.ids:
            if self._began.get((start.resource, one)) == number:
                del self._began[start.resource, one]
                self._waiting.add((start.resource, one))

    def before(self, number: int, held: Held) -> bool:
        """Return whether the container that has this id began before another."""
        key = (held.resource, held.id)
        return key not in self._waiting and self._began.get(key, 0) < number

    def forget(self, keep: Callable[[Key], bool]) -> None:
        """Drop the ids that are offered no more."""
        self._waiting = {key for key in self._waiting if keep(key)}
        self._began = {key: number for key, number in self._began.items() if keep(key)}

    def __len__(self) -> int:
        """Return how many ids are in it."""
        return len(self._waiting) + len(self._began)


def occupied(start: Start, number: int, book: StartBook, holdings: Holdings, find: Find) -> Mapping[str, Occupied]:
    """Return for each device of a container that starts what its reset has to respect."""
    own = {(start.resource, one) for one in start.ids}
    # What the container has of other resources began to start with it, and is in its own hands.
    mine = {one.holder for one in holdings.held if (one.resource, one.id) in own}
    others = [one for one in holdings.held if one.holder not in mine and (one.resource, one.id) not in own]
    others = [one for one in others if book.before(number, one)]
    found = [(one, device) for one in others if (device := find(one.resource, one.id)) is not None]
    return {device.id: _occupied(start, device, found, holdings) for device in start.devices}


def _occupied(start: Start, device: Device, found: Sequence[tuple[Held, Device]], holdings: Holdings) -> Occupied:
    sharers = [held.holder for held, of in found if of.id == device.id]
    who = ", ".join(dict.fromkeys(sharers))
    refused = spared = ""
    if start.ordered and who:
        refused = f"{who} has it: wait until that has ended, or order it with --force"
    elif start.ordered and holdings.problem and not start.forced:
        refused = f"it is not known who has it: {holdings.problem}; --force resets it all the same"
    elif start.shared and who:
        spared = f"shared with {who}"
    elif start.shared and holdings.problem:
        spared = f"it is not known who has its other shares: {holdings.problem}"
    own = frozenset(one.id for one in start.devices)
    # A node that both have (nvidiactl, rdma_cm) says nothing about who is in the way.
    allocated = [
        Allocated(tuple(sorted(names)), f"{held.holder} has {of.id} allocated")
        for held, of in found
        if of.id not in own and (names := _names(of) - _names(device))
    ]
    unseen = "" if holdings.absent else holdings.problem
    if len(allocated) > MAX_ALLOCATED:
        unseen = f"more than {MAX_ALLOCATED} devices are allocated: not all were looked at"
    return Occupied(refused, spared, tuple(allocated[:MAX_ALLOCATED]), unseen)


def _names(device: Device) -> frozenset[str]:
    """Return what a reset may know a device by: its nodes, and its address on the PCI bus."""
    return frozenset([*(node.path for node in device.nodes), device.properties.get("address", "")]) - {""}
