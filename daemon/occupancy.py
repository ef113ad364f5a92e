"""Which containers a reset would disturb: those that may run, and where it takes others along, those that asked before.

The kubelet tells who has a device, not whether that container runs. Two that start at once would each be in the other's
way for ever; so devd keeps who was let go, and the order in which the others asked. Pure books: no I/O, no clock.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from devd.daemon.pod_resources import Held, Holdings
from devd.ipc.messages import Allocated, Device

MAX_ALLOCATED = 1000
"""Devices of other containers that a worker is told of; more than any node has, and a message must stay small."""

NOBODY_WAITS = "nobody waits for it any more"
JUST_STARTED = "a container that has just started"

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
    """What a device's reset has to respect.

    ``refused`` says why an operator's is not done, ``spared`` why a container's is left out. ``unseen`` says what is
    not known of other devices' containers.
    """

    refused: str = ""
    spared: str = ""
    allocated: tuple[Allocated, ...] = ()
    unseen: str = ""


class StartBook:
    """Who was given what, who has asked to start, and who was let go: told that all is ready, so that it runs.

    An id that the kubelet lists and that is not in here began before devd did.
    """

    def __init__(self) -> None:
        self._number = 0
        self._waiting: set[Key] = set()
        self._asked: dict[Key, int] = {}
        self._gone: dict[Key, int] = {}

    def allocated(self, resource: str, ids: Sequence[str]) -> None:
        """Note that ids were given to a container that has yet to ask for its start."""
        for one in ids:
            self._asked.pop((resource, one), None)
            self._gone.pop((resource, one), None)
            self._waiting.add((resource, one))

    def begins(self, start: Start) -> int:
        """Note that a container is about to start, maybe again; return its number in the order of all."""
        self._number += 1
        for one in start.ids:
            self._waiting.discard((start.resource, one))
            self._gone.pop((start.resource, one), None)
            self._asked[start.resource, one] = self._number
        return self._number

    def let_go(self, start: Start, number: int) -> None:
        """Note that a device of a container that asked is ready: from now on it may run."""
        self._number += 1
        for one in start.ids:
            if self._asked.get((start.resource, one)) == number:
                self._gone.setdefault((start.resource, one), self._number)

    def failed(self, start: Start, number: int) -> None:
        """Note that a container did not start after all: it is in nobody's way until it asks again."""
        for one in start.ids:
            if self._asked.get((start.resource, one)) == number:
                del self._asked[start.resource, one]
                self._gone.pop((start.resource, one), None)
                self._waiting.add((start.resource, one))

    def runs(self, key: Key) -> bool:
        """Return whether the container that has this id may run."""
        return key in self._gone or not (key in self._waiting or key in self._asked)

    def before(self, number: int, key: Key) -> bool:
        """Return whether the container that has this id may run, or asked to start before another."""
        return self.runs(key) or self._asked.get(key, number) < number

    def let_go_since(self, number: int) -> list[Key]:
        """Return the ids of containers let go after another asked: a list it was given may lack them."""
        return [key for key, gone in self._gone.items() if gone > number]

    def forget(self, keep: Callable[[Key], bool]) -> None:
        """Drop the ids that are offered no more."""
        self._waiting = {key for key in self._waiting if keep(key)}
        self._asked = {key: number for key, number in self._asked.items() if keep(key)}
        self._gone = {key: number for key, number in self._gone.items() if keep(key)}

    def __len__(self) -> int:
        """Return how many ids are in it."""
        return len(self._waiting) + len(self._asked)


@dataclass(frozen=True, slots=True)
class Case:
    """A start, its number in the order of all, and who had what when it was asked for."""

    start: Start
    number: int
    holdings: Holdings


def occupied(device: str, cases: Sequence[Case], book: StartBook, find: Find) -> Occupied:
    """Return what a device's reset has to respect at this moment, given the starts that wait for it together.

    Those who asked while it was on its way are answered by the same reset, so they are not in each other's way.
    """
    if not cases:
        return Occupied(spared=NOBODY_WAITS)
    asking = [case for case in cases if case.start.asks]
    if not asking or any(case.start.forced for case in cases):
        return Occupied()
    newest = max(asking, key=lambda case: case.number)
    holdings = newest.holdings
    own = {(case.start.resource, one) for case in cases for one in case.start.ids}
    listed = {(one.resource, one.id) for one in holdings.held}
    late = [Held(*key, JUST_STARTED) for key in book.let_go_since(newest.number) if key not in listed]
    # What a container has of other resources began to start with it, and is in its own hands.
    mine = {one.holder for one in holdings.held if (one.resource, one.id) in own}
    others = [one for one in holdings.held if one.holder not in mine and (one.resource, one.id) not in own]
    others += [one for one in late if (one.resource, one.id) not in own]
    first = min(case.number for case in cases)
    others = [one for one in others if book.before(first, (one.resource, one.id))]
    found = [(one, of) for one in others if (of := find(one.resource, one.id)) is not None]
    sharers = [held.holder for held, of in found if of.id == device and book.runs((held.resource, held.id))]
    its = {one.id: one for case in cases for one in case.start.devices}
    neighbours = [(held, of) for held, of in found if of.id not in its]
    refused, spared = _judged(newest.start, ", ".join(dict.fromkeys(sharers)), holdings)
    allocated, unseen = _going_along(its[device], neighbours, holdings)
    return Occupied(refused, spared, allocated, unseen)


def _judged(start: Start, who: str, holdings: Holdings) -> tuple[str, str]:
    """Return why a device is not reset for an operator, and why not for a container."""
    if start.ordered and who:
        return f"{who} has it: wait until that has ended, or order it with --force", ""
    if start.ordered and holdings.problem:
        return f"it is not known who has it: {holdings.problem}; --force resets it all the same", ""
    if start.shared and who:
        return "", f"shared with {who}"
    if start.shared and holdings.problem:
        return "", f"it is not known who has its other shares: {holdings.problem}"
    return "", ""


def _going_along(
    device: Device, neighbours: Sequence[tuple[Held, Device]], holdings: Holdings
) -> tuple[tuple[Allocated, ...], str]:
    """Return what other containers have, as a reset knows it, and what is not known of that."""
    # A node that both have (nvidiactl, rdma_cm) says nothing about who is in the way.
    allocated = [
        Allocated(tuple(sorted(names)), f"{held.holder} has {of.id} allocated")
        for held, of in neighbours
        if (names := _names(of) - _names(device))
    ]
    unseen = "" if holdings.absent else holdings.problem
    if len(allocated) > MAX_ALLOCATED:
        unseen = f"more than {MAX_ALLOCATED} devices are allocated: not all were looked at"
    return tuple(allocated[:MAX_ALLOCATED]), unseen


def _names(device: Device) -> frozenset[str]:
    """Return what a reset may know a device by: its nodes, and its address on the PCI bus."""
    return frozenset([*(node.path for node in device.nodes), device.properties.get("address", "")]) - {""}
