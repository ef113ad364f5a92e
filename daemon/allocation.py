"""Which replicas a container should get, and what it then gets of their devices. Pure: values in, values out.

Nothing here depends on the order of an input: the kubelet sends ids in random order. ``grant`` lives in ``grants``.
"""

import bisect
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from devd.daemon.errors import AllocationRefusedError
from devd.daemon.grants import GrantedDevice, MountRule, ResourceRules, grant
from devd.daemon.natural import NaturalKey, natural_key

__all__ = ["Candidate", "GrantedDevice", "MountRule", "ResourceRules", "Share", "grant", "natural_key", "preferred"]

Share = Literal["pack", "spread"]
Nodes = tuple[int, ...]

MAX_STEPS = 200_000
"""Devices looked at in the search for the best NUMA nodes: 0.1 s at most. It answers inside the kubelet's sync loop."""
_SHOWN_IDS = 5


@dataclass(frozen=True, slots=True)
class Candidate:
    """One replica the resource offers: its id, its physical device's id, and that device's NUMA node if known."""

    id: str
    device: str
    numa_node: int | None = None


@dataclass(frozen=True, slots=True)
class _Stock:
    """What one device has to give: its free replicas, those that must be in the answer first."""

    device: str
    key: NaturalKey
    node: int | None
    replicas: tuple[str, ...]
    needed: int

    @property
    def free(self) -> int:
        return len(self.replicas)


def preferred(
    candidates: Sequence[Candidate],
    available: Sequence[str],
    must_include: Sequence[str],
    size: int,
    share: Share,
) -> list[str]:
    """Return ``size`` of the available ids, all of ``must_include`` among them, in natural order.

    First come the fewest NUMA nodes (a device without one lies anywhere), then the operator's word: ``pack`` takes the
    fewest devices, ``spread`` the most. Then pack takes the fullest devices, so that others stay whole, and spread the
    emptiest, as many of each as evenness allows; then natural order.

    Raises AllocationRefusedError when the request cannot be met: a size below zero, below ``must_include`` or above
    what is available, an id twice, a needed id that is not available or not this resource's.
    """
    known = {one.id: one for one in candidates}
    _check(known, available, must_include, size)
    stocks = _stocks(known, available, must_include)
    used = _chosen(stocks, size, share)
    taken = _filled(used, size) if share == "pack" else _levelled(used, size)
    return sorted((id_ for stock, count in taken for id_ in stock.replicas[:count]), key=natural_key)


# ---- the request ------------------------------------------------------------------------------------------------


def _check(known: Mapping[str, Candidate], available: Sequence[str], must: Sequence[str], size: int) -> None:
    offered = {one for one in available if one in known}
    if size < 0:
        raise AllocationRefusedError(f"preferred allocation of {size} devices: the size must not be negative")
    for what, ids in (("available", available), ("needed", must)):
        if len(set(ids)) != len(ids):
            twice = [one for one, times in Counter(ids).items() if times > 1]
            raise AllocationRefusedError(f"preferred allocation: {what} ids given more than once: {_shown(twice)}")
    if missing := set(must) - offered:
        raise AllocationRefusedError(f"preferred allocation: needed ids that are not available: {_shown(missing)}")
    if size < len(must):
        raise AllocationRefusedError(f"preferred allocation of {size} devices: {len(must)} are needed already")
    if size > len(offered):
        unknown = set(available) - offered
        more = f" (and {len(unknown)} unknown: {_shown(unknown)})" if unknown else ""
        raise AllocationRefusedError(f"preferred allocation of {size} devices: {len(offered)} are available{more}")


def _shown(ids: Iterable[str]) -> str:
    names = sorted(ids, key=natural_key)
    more = f" and {len(names) - _SHOWN_IDS} more" if len(names) > _SHOWN_IDS else ""
    return ", ".join(names[:_SHOWN_IDS]) + more


def _stocks(known: Mapping[str, Candidate], available: Sequence[str], must: Sequence[str]) -> list[_Stock]:
    """Return the devices behind the available ids in natural order; ids this resource does not offer are left out."""
    needed = set(must)
    ids = sorted((one for one in available if one in known), key=lambda one: (one not in needed, natural_key(one)))
    replicas: dict[str, list[str]] = {}
    for one in ids:
        replicas.setdefault(known[one].device, []).append(one)
    # A device's replicas share its node; should a caller say otherwise, the lowest replica's word counts.
    node = {device: known[min(owned, key=natural_key)].numa_node for device, owned in replicas.items()}
    stocks = [
        _Stock(device, natural_key(device), node[device], tuple(owned), len(needed.intersection(owned)))
        for device, owned in replicas.items()
    ]
    return sorted(stocks, key=lambda one: one.key)


# ---- the devices ------------------------------------------------------------------------------------------------


def _chosen(stocks: Sequence[_Stock], size: int, share: Share) -> list[_Stock]:
    """Return the devices to use, the needed ones first, on the fewest NUMA nodes and else as ``share`` has it."""
    forced = [one for one in stocks if one.needed]
    others = sorted((one for one in stocks if not one.needed), key=lambda one: (-one.free, one.key))
    choose = _packed if share == "pack" else _spread
    options = [
        (nodes, choose(forced, [one for one in others if one.node is None or one.node in nodes], size))
        for nodes in _node_sets(forced, others, size)
    ]
    # Pack wants few devices with little left on them, spread many with much.
    sign = 1 if share == "pack" else -1
    _, best = min(options, key=lambda one: (sign * len(one[1]), sign * sum(stock.free for stock in one[1]), one[0]))
    return forced + best


def _packed(forced: Sequence[_Stock], pool: Sequence[_Stock], size: int) -> list[_Stock]:
    """Return the fewest devices of a pool (sorted by free replicas, descending) that do together with the needed ones.

    All but the last are emptied whole; the last is the one with the fewest free replicas that suffices.
    """
    rest = size - sum(one.free for one in forced)
    whole: list[_Stock] = []
    for one in pool:
        if rest <= one.free:
            break
        whole.append(one)
        rest -= one.free
    enough = [one for one in pool[len(whole) :] if one.free >= rest]
    return whole if rest <= 0 else [*whole, min(enough, key=lambda one: (one.free, one.key))]


def _spread(forced: Sequence[_Stock], pool: Sequence[_Stock], size: int) -> list[_Stock]:
    """Return as many devices of a pool (sorted by free replicas, descending) as the size allows."""
    return list(pool[: size - sum(one.needed for one in forced)])


# ---- how much of each -------------------------------------------------------------------------------------------


def _filled(used: Sequence[_Stock], size: int) -> Iterator[tuple[_Stock, int]]:
    """Yield each device with how many it gives: what is needed first, then each filled up in turn."""
    left = size - sum(one.needed for one in used)
    for one in used:
        more = min(left, one.free - one.needed)
        left -= more
        yield one, one.needed + more


def _levelled(used: Sequence[_Stock], size: int) -> Iterator[tuple[_Stock, int]]:
    """Yield each device with how many it gives, the counts as even as free replicas and needed ones let them be."""
    levels = range(size + 1)
    level = bisect.bisect_right(levels, size, key=lambda level: sum(_at(one, level) for one in used)) - 1
    left = size - sum(_at(one, level) for one in used)
    for one in sorted(used, key=lambda one: one.key):
        more = 1 if left and _at(one, level + 1) > _at(one, level) else 0
        left -= more
        yield one, _at(one, level) + more


def _at(stock: _Stock, level: int) -> int:
    return min(max(level, stock.needed), stock.free)


# ---- NUMA nodes -------------------------------------------------------------------------------------------------


def _node_sets(forced: Sequence[_Stock], others: Sequence[_Stock], size: int) -> Iterator[Nodes]:
    """Yield the sets of as few NUMA nodes as will do, each with all nodes of the needed devices.

    Where they are too many to look at (dozens of nodes, thousands of devices), the one with the most free replicas
    stands for all.
    """
    base = {one.node for one in forced if one.node is not None}
    free: dict[int, int] = {}
    for one in others:
        if one.node is not None and one.node not in base:
            free[one.node] = free.get(one.node, 0) + one.free
    near = sum(one.free for one in (*forced, *others) if one.node is None or one.node in base)
    richest = sorted(free, key=lambda node: (-free[node], node))
    # One node costs no more than none: a device without a node is no better than one with it.
    extra = 0 if base or not free else 1
    while near + sum(free[node] for node in richest[:extra]) < size:
        extra += 1
    searched = math.comb(len(free), extra) * len(others) <= MAX_STEPS
    for nodes in itertools.combinations(sorted(free), extra) if searched else [tuple(richest[:extra])]:
        if near + sum(free[node] for node in nodes) >= size:
            yield tuple(sorted(base.union(nodes)))
