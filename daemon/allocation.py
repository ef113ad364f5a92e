"""Which replicas a container should get. Pure: values in, values out.

Nothing here depends on the order of an input: the kubelet sends ids in random order. The choice among devices
is made in ``search``, by what ``topology`` says is better.
"""

import bisect
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet

from devd.daemon.errors import AllocationRefusedError
from devd.daemon.natural import natural_key
from devd.daemon.search import best_devices
from devd.daemon.topology import Offer, Share, Stock, Topology

__all__ = ["Offer", "Share", "preferred"]

_SHOWN_IDS = 5


def preferred(
    offers: Sequence[Offer],
    available: Sequence[str],
    must_include: Sequence[str],
    size: int,
    share: Share,
) -> list[str]:
    """Return ``size`` of the available ids, all of ``must_include`` among them, in natural order.

    First come the fewest NUMA nodes (a device without one lies anywhere), then the operator's word: ``pack`` takes the
    fewest devices, ``spread`` the most. Then the fewest PCIe switches, the most direct links between the devices, the
    fullest devices (``spread``: the emptiest), the fewest whole groups broken up, natural order. The order is exact as
    far as the search goes (``search``); the nodes and the number of devices are exact beyond that.

    An offer's replicas are given out in the offer's order. Raises AllocationRefusedError when the request cannot be
    met: a size below zero, below ``must_include`` or above what is available, an id twice, a needed id that is not
    available or not this resource's.
    """
    known = {replica for one in offers for replica in one.replicas}
    _check(known, available, must_include, size)
    stocks = _stocks(offers, frozenset(available), frozenset(must_include))
    used = best_devices(Topology(offers, stocks, share), stocks, size, share)
    taken = _filled(used, size) if share == "pack" else _levelled(used, size)
    return sorted((id_ for stock, count in taken for id_ in stock.replicas[:count]), key=natural_key)


# ---- the request ------------------------------------------------------------------------------------------------


def _check(known: AbstractSet[str], available: Sequence[str], must: Sequence[str], size: int) -> None:
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


def _stocks(offers: Iterable[Offer], available: AbstractSet[str], needed: AbstractSet[str]) -> list[Stock]:
    """Return the devices behind the available ids in natural order; ids this resource does not offer are left out."""
    found = []
    for one in offers:
        free = [replica for replica in one.replicas if replica in available]
        first = [replica for replica in free if replica in needed]
        if free:
            rest = [replica for replica in free if replica not in needed] if first else free
            found.append(Stock(one, natural_key(one.device), (*first, *rest), len(first), len(free)))
    return sorted(found, key=lambda one: one.key)


# ---- how much of each -------------------------------------------------------------------------------------------


def _filled(used: Sequence[Stock], size: int) -> Iterator[tuple[Stock, int]]:
    """Yield each device with how many it gives: what is needed first, then each filled up in turn."""
    left = size - sum(one.needed for one in used)
    for one in used:
        more = min(left, one.free - one.needed)
        left -= more
        yield one, one.needed + more


def _levelled(used: Sequence[Stock], size: int) -> Iterator[tuple[Stock, int]]:
    """Yield each device with how many it gives, the counts as even as free replicas and needed ones let them be."""
    levels = range(size + 1)
    level = bisect.bisect_right(levels, size, key=lambda level: sum(_at(one, level) for one in used)) - 1
    left = size - sum(_at(one, level) for one in used)
    for one in sorted(used, key=lambda one: one.key):
        more = 1 if left and _at(one, level + 1) > _at(one, level) else 0
        left -= more
        yield one, _at(one, level) + more


def _at(stock: Stock, level: int) -> int:
    return min(max(level, stock.needed), stock.free)
