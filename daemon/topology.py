"""How well a set of devices goes together: NUMA nodes, PCIe switches, direct links, groups it would break up. Pure.

Devices are numbered in natural order and a set of them is a whole number, one bit each, the first device the highest:
of two sets with as many devices the larger number comes first in natural order.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Literal

from devd.daemon.natural import NaturalKey

Share = Literal["pack", "spread"]
Score = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Offer:
    """One device of a resource: its id, the ids it is offered by, and where it sits as far as that is known.

    ``switch`` names the PCIe switch above it, ``links`` are the ids of devices it is joined to directly.
    """

    device: str
    replicas: tuple[str, ...]
    numa_node: int | None = None
    switch: str = ""
    links: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Stock:
    """What one device has to give: its free replicas, those that must be in the answer first, ``needed`` of them."""

    offer: Offer
    key: NaturalKey
    replicas: tuple[str, ...]
    needed: int
    free: int

    @property
    def device(self) -> str:
        """The device's id."""
        return self.offer.device


class Topology:
    """The devices one request can be met from, with what is known of all the resource's devices."""

    def __init__(self, offers: Iterable[Offer], stocks: Sequence[Stock], share: Share) -> None:
        """``stocks`` are in natural order."""
        self.bits = {one.device: 1 << place for place, one in enumerate(reversed(stocks))}
        # Of no account where all have the same: then the number of devices says it.
        uneven = len({one.free for one in stocks}) > 1
        self._free = [(self.bits[one.device], one.free) for one in stocks if uneven]
        self._sign = 1 if share == "pack" else -1
        every = sorted(offers, key=lambda one: one.device)
        self.links = _links(every, self.bits)
        self._linked = [(self.bits[one], mask) for one, mask in self.links.items() if mask]
        given = [one.offer for one in stocks]
        self._nodes = [self.mask(group) for group in _nodes(given)]
        self._switches = [self.mask(group) for group in _switches(given)]
        whole = {one.device for one in stocks if one.free == len(one.offer.replicas)}
        kinds = (_islands(every), _switches(every), _nodes(every))
        # Who stands alone cannot be parted from anybody.
        self._whole = [[self.mask(group) for group in groups if len(group) > 1 and group <= whole] for groups in kinds]

    @property
    def size(self) -> int:
        """Return how many things a score looks at, about: what it costs."""
        groups = len(self._nodes) + len(self._switches) + sum(map(len, self._whole))
        return 1 + groups + len(self._linked) + len(self._free)

    def mask(self, devices: Iterable[str]) -> int:
        """Return a set of devices."""
        return reduce(or_, (self.bits[one] for one in devices), 0)

    def score(self, chosen: int) -> Score:
        """Return how good a set is, the less the better. docs/allocation.md has the order in words."""
        links = sum((mask & chosen).bit_count() for bit, mask in self._linked if bit & chosen) // 2
        return (
            _touched(self._nodes, chosen),
            self._sign * chosen.bit_count(),
            _touched(self._switches, chosen),
            -links,
            self._sign * sum(free for bit, free in self._free if bit & chosen),
            *(_broken(masks, chosen) for masks in self._whole),
            -chosen,
        )


def _touched(masks: Iterable[int], chosen: int) -> int:
    """Return how many groups a set has a part in; none counts as one: who has no group lies anywhere."""
    return max(1, sum(1 for mask in masks if mask & chosen))


def _broken(masks: Iterable[int], chosen: int) -> int:
    """Return how many groups a set takes a part of and leaves a part of."""
    return sum(1 for mask in masks if 0 < mask & chosen < mask)


def _links(offers: Iterable[Offer], bits: Mapping[str, int]) -> dict[str, int]:
    """Return whom each device is joined to; a link that one end tells of is one."""
    found = dict.fromkeys(bits, 0)
    for one in offers:
        for other in one.links - {one.device}:
            if one.device in bits and other in bits:
                found[one.device] |= bits[other]
                found[other] |= bits[one.device]
    return found


def _grouped(groups: Mapping[str, Hashable]) -> list[set[str]]:
    found: dict[Hashable, set[str]] = {}
    for device, group in groups.items():
        found.setdefault(group, set()).add(device)
    return list(found.values())


def _nodes(offers: Iterable[Offer]) -> list[set[str]]:
    return _grouped({one.device: one.numa_node for one in offers if one.numa_node is not None})


def _switches(offers: Iterable[Offer]) -> list[set[str]]:
    return _grouped({one.device: one.switch for one in offers if one.switch})


def _islands(offers: Sequence[Offer]) -> list[set[str]]:
    """Return the devices that are joined to each other, directly or by way of others."""
    neighbours: dict[str, set[str]] = {one.device: set() for one in offers}
    for one in offers:
        for other in one.links & neighbours.keys():
            neighbours[one.device].add(other)
            neighbours[other].add(one.device)
    return list(_components(neighbours))


def _components(neighbours: Mapping[str, set[str]]) -> Iterator[set[str]]:
    left = {one for one, joined in neighbours.items() if joined}
    while left:
        island: set[str] = set()
        edge = {min(left)}
        while edge:
            island |= edge
            edge = set().union(*(neighbours[one] for one in edge)) - island
        left -= island
        yield island
