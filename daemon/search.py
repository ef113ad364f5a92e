"""The search for the best set of devices. Pure, and bounded: it runs inside the kubelet's sync loop.

Devices that nothing tells apart (same NUMA node, switch, links, free replicas) are one kind, taken in natural order;
what is searched is how many of each kind. Where even that is too much, only sets that keep to the fewest switches are
looked at, each filled in a few sensible orders.
"""

import itertools
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from devd.daemon.topology import Share, Stock, Topology

MAX_STEPS = 100_000
"""About how many groups and links are looked at in all: 0.05 s on a slow machine."""
MAX_GROUP_STEPS = 10_000
"""Devices looked at to compare sets of NUMA nodes or of switches; beyond that the richest set stands for all."""


@dataclass(frozen=True, slots=True)
class _Want:
    """How many devices to choose, at least and at most, and how many replicas they have to give together."""

    least: int
    most: int
    free: int

    def met_by(self, pool: Sequence[Stock]) -> bool:
        """Return whether the first devices of a pool will do."""
        return len(pool) >= self.least and sum(one.free for one in pool[: self.most]) >= self.free


@dataclass(frozen=True, slots=True)
class _Kind:
    """Devices that nothing tells apart: the set of the first n of them for each n, and what each has free."""

    firsts: tuple[int, ...]
    free: int

    @property
    def size(self) -> int:
        return len(self.firsts) - 1


@dataclass(frozen=True, slots=True)
class _Group:
    """Devices of one NUMA node or one switch."""

    members: Sequence[Stock]
    free: int


def best_devices(topology: Topology, stocks: Sequence[Stock], size: int, share: Share) -> list[Stock]:
    """Return the devices to take ``size`` replicas from, the needed ones first; ``stocks`` can give so many."""
    forced = [one for one in stocks if one.needed]
    others = sorted((one for one in stocks if not one.needed), key=lambda one: (-one.free, one.key))
    needs = _Needs(topology, forced, size, share)
    pools = _fewest(_node, forced, others, needs.replicas)
    counts = [needs.devices_of(pool) for pool in pools]
    count = min(counts) if share == "pack" else max(counts)
    kept = [pool for pool, one in zip(pools, counts, strict=True) if one == count]
    sets = itertools.chain.from_iterable(needs.sets(pool, count, MAX_STEPS // len(kept)) for pool in kept)
    best = min(sets, key=topology.score)
    return forced + [one for one in others if topology.bits[one.device] & best]


class _Needs:
    """What one request asks of a set of devices beside those that have to be in it."""

    def __init__(self, topology: Topology, forced: Sequence[Stock], size: int, share: Share) -> None:
        self._topology = topology
        self._forced = forced
        self._forced_mask = topology.mask(one.device for one in forced)
        self._size = size
        self._share = share
        self._rest = size - sum(one.free for one in forced)
        """Replicas that devices not needed have to give at least; spread lets them give more."""
        self.replicas = _Want(0, size, self._rest)

    def devices_of(self, pool: Sequence[Stock]) -> int:
        """Return how many devices of a pool (fullest first) to take: the fewest that do, or as many as can give one."""
        if self._share == "spread":
            return min(len(pool), self._size - sum(one.needed for one in self._forced))
        sums = itertools.accumulate((one.free for one in pool), initial=0)
        return next(count for count, free in enumerate(sums) if free >= self._rest)

    def sets(self, pool: Sequence[Stock], count: int, steps: int) -> Iterator[int]:
        """Yield the sets of ``count`` devices to compare, each with the needed ones: all, if the steps allow it."""
        kinds = self._kinds(pool)
        most = max(1, steps // (self._topology.size + 4 * min(count, len(kinds))))
        every = list(itertools.islice(_sets(kinds, count), most + 1))
        if len(every) > most:
            # Each of these is a list of the whole pool, put in order.
            yield from self._likely(pool, count, max(1, steps // (self._topology.size + 2 * len(pool))))
            return
        for chosen, free in every:
            if free >= self._rest:
                yield self._forced_mask | chosen

    def _bit(self, stock: Stock) -> int:
        return self._topology.bits[stock.device]

    def _kinds(self, pool: Sequence[Stock]) -> list[_Kind]:
        """Return the pool's devices by kind."""
        found: dict[Hashable, list[Stock]] = {}
        for one in sorted(pool, key=lambda one: one.key):
            links = self._topology.links[one.device]
            # With its own bit: members of a group in which all are joined to all are one kind.
            found.setdefault((_node(one), _switch(one), one.free, links and links | self._bit(one)), []).append(one)
        return [
            _Kind(tuple(itertools.accumulate(map(self._bit, some), initial=0)), some[0].free) for some in found.values()
        ]

    def _likely(self, pool: Sequence[Stock], count: int, most: int) -> Iterator[int]:
        """Yield sets on the fewest switches, each filled in several orders."""
        want = _Want(count, count, self._rest)
        pools = _fewest(_switch, self._forced, pool, want)
        orders = itertools.chain.from_iterable(map(self._orders, pools))
        for order in itertools.islice(orders, most):
            if want.met_by(order):
                yield self._forced_mask | self._topology.mask(one.device for one in order[:count])

    def _orders(self, pool: Sequence[Stock]) -> Iterator[list[Stock]]:
        """Yield a pool in the orders to fill it: the fullest first; each group of linked devices first, or last.

        Devices without links are grouped by their switches.
        """
        yield list(pool)
        groups: dict[Hashable, list[Stock]] = {}
        for one in pool:
            links = self._topology.links[one.device]
            groups.setdefault(links | self._bit(one) if links else _switch(one), []).append(one)
        for group in groups.values():
            others = [one for other in groups.values() if other is not group for one in other]
            yield group + others
            yield others + group


def _node(stock: Stock) -> Hashable:
    return stock.offer.numa_node


def _switch(stock: Stock) -> Hashable:
    return stock.offer.switch or None


def _fewest(
    group_of: Callable[[Stock], Hashable], forced: Sequence[Stock], pool: Sequence[Stock], want: _Want
) -> list[list[Stock]]:
    """Return what of a pool lies in as few groups as will do, once for each choice of groups.

    All groups of the needed devices count as chosen, and who has no group (None) lies in any.
    """
    base = {None, *map(group_of, forced)}
    near = [one for one in pool if group_of(one) in base]
    by_group: dict[Hashable, list[Stock]] = {}
    for one in pool:
        if (group := group_of(one)) not in base:
            by_group.setdefault(group, []).append(one)
    groups = [_Group(members, sum(one.free for one in members)) for members in by_group.values()]
    groups.sort(key=lambda one: (-one.free, min(member.key for member in one.members)))
    near_free = sum(one.free for one in near)
    # One group costs no more than none: who lies nowhere is no better than who lies somewhere.
    for extra in range(0 if len(base) > 1 or not groups else 1, len(groups) + 1):
        found = []
        for chosen in _choices(groups, extra):
            if near_free + sum(one.free for one in chosen) >= want.free:
                some = _merged([near, *(one.members for one in chosen)])
                found += [some] if want.met_by(some) else []
        if found:
            return found
    raise AssertionError("the whole pool is not enough")


def _choices(groups: Sequence[_Group], count: int) -> Iterable[Sequence[_Group]]:
    """Return the ways to choose so many groups; where they are too many, only the one with the most free replicas."""
    members = sum(len(one.members) for one in groups)
    if math.comb(len(groups), count) * members <= MAX_GROUP_STEPS:
        return itertools.combinations(groups, count)
    return [groups[:count]]


def _merged(groups: Iterable[Sequence[Stock]]) -> list[Stock]:
    """Return the members of groups, the fullest first."""
    return sorted(itertools.chain.from_iterable(groups), key=lambda one: (-one.free, one.key))


def _sets(kinds: Sequence[_Kind], count: int) -> Iterator[tuple[int, int]]:
    """Yield every set of so many devices, and the replicas they have free."""
    if count == 0:
        yield 0, 0
        return
    left = sum(kind.size for kind in kinds)
    for place, kind in enumerate(kinds):
        if left < count:
            return
        left -= kind.size
        for number in range(max(1, count - left), min(kind.size, count) + 1):
            for others, free in _sets(kinds[place + 1 :], count - number):
                yield kind.firsts[number] | others, kind.free * number + free
