"""GetPreferredAllocation against every possible answer: no other subset is better by the stated order."""

import itertools
import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from devd.daemon.allocation import Offer, Share, preferred

Request = tuple[list[Offer], list[str], list[str], int]

ANSWER_WITHIN_S = 2.0
"""Twenty times what the largest list takes on a free machine."""


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """Return a request that can be met: up to six devices of up to three replicas, anywhere, joined anyhow."""
    count = draw(st.integers(1, 6))
    names = [f"d{number}" for number in range(count)]
    most = draw(st.sampled_from([1, 1, 3]))
    offers = [
        Offer(
            name,
            tuple(f"{name}::{number}" for number in range(draw(st.integers(1, most)))),
            draw(st.sampled_from([None, 0, 1])),
            draw(st.sampled_from(["", "s0", "s1", "s2"])),
            draw(st.frozensets(st.sampled_from(names), max_size=2)),
        )
        for name in names
    ]
    ids = [replica for one in offers for replica in one.replicas]
    available = draw(st.lists(st.sampled_from(ids), unique=True, min_size=1, max_size=9))
    must = draw(st.lists(st.sampled_from(available), unique=True, max_size=2))
    size = draw(st.integers(len(must), len(available)))
    return offers, available, must, size


def islands(offers: Sequence[Offer]) -> Iterator[set[str]]:
    """Yield the sets of devices that are joined, over however many steps."""
    pairs = {frozenset((one.device, other)) for one in offers for other in one.links}
    left = {one.device for one in offers}
    while left:
        island = {left.pop()}
        while more := {one for pair in pairs if pair & island for one in pair} - island:
            island |= more
        left -= island
        yield island


def groups(offers: Sequence[Offer]) -> tuple[list[set[str]], list[set[str]], list[set[str]]]:
    """Return the groups that may be broken up: islands of links, switches, NUMA nodes."""
    switches = {one.switch for one in offers} - {""}
    nodes = {one.numa_node for one in offers} - {None}
    return (
        list(islands(offers)),
        [{one.device for one in offers if one.switch == switch} for switch in switches],
        [{one.device for one in offers if one.numa_node == node} for node in nodes],
    )


def cost(request: Request, ids: Iterable[str], share: Share) -> tuple[int, ...]:
    """Return a choice's cost in the documented order: less is better."""
    offers, available, _must, _size = request
    wanted, free = set(ids), set(available)
    chosen = [one for one in offers if wanted.intersection(one.replicas)]
    names = {one.device for one in chosen}
    whole = {one.device for one in offers if free.issuperset(one.replicas)}
    sign = 1 if share == "pack" else -1
    linked = {frozenset((one.device, other)) for one in chosen for other in one.links & names - {one.device}}
    broken = [sum(1 for group in some if group <= whole and group & names and group - names) for some in groups(offers)]
    return (
        max(1, len({one.numa_node for one in chosen} - {None})),
        sign * len(chosen),
        max(1, len({one.switch for one in chosen} - {""})),
        -len(linked),
        sign * sum(len(free.intersection(one.replicas)) for one in chosen),
        *broken,
    )


@settings(max_examples=400, deadline=None)
@given(requests(), st.sampled_from(["pack", "spread"]))
def test_no_subset_is_better(request: Request, share: Share) -> None:
    """The answer is a right one, and none of all subsets costs less; of equal ones the first devices are taken."""
    offers, available, must, size = request
    answer = preferred(offers, available, must, size, share)
    assert len(answer) == len(set(answer)) == size
    assert set(must) <= set(answer) <= set(available)
    every = [one for one in itertools.combinations(available, size) if set(must) <= set(one)]
    least = min(cost(request, one, share) for one in every)
    assert cost(request, answer, share) == least
    best = (one for one in every if cost(request, one, share) == least)
    assert _devices(answer) == min(map(_devices, best))


def _devices(ids: Iterable[str]) -> list[str]:
    return sorted({one.partition("::")[0] for one in ids})


@settings(max_examples=150, deadline=None)
@given(requests(), st.sampled_from(["pack", "spread"]), st.randoms(use_true_random=False))
def test_the_order_of_the_input_changes_nothing(request: Request, share: Share, dice: random.Random) -> None:
    """The kubelet sends ids in random order; the answer is the same for each."""
    offers, available, must, size = request
    expected = preferred(offers, available, must, size, share)
    for some in (available, must, offers):
        dice.shuffle(some)
    assert preferred(offers, available, must, size, share) == expected


@settings(max_examples=150, deadline=None)
@given(requests())
def test_spread_is_even(request: Request) -> None:
    """No device gives two more than another that had one left, unless they were needed."""
    offers, available, must, size = request
    device = {replica: one.device for one in offers for replica in one.replicas}
    answer = preferred(offers, available, must, size, "spread")
    given_by, needed = Counter(device[one] for one in answer), Counter(device[one] for one in must)
    free = Counter(device[one] for one in available)
    for high, low in itertools.permutations(given_by, 2):
        movable = given_by[high] > needed[high] and given_by[low] < free[low]
        assert not (movable and given_by[high] - given_by[low] > 1)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(20, 60),
    st.integers(1, 3),
    st.sampled_from(["pack", "spread"]),
    st.randoms(use_true_random=False),
)
def test_large_requests_are_met_whatever_the_order(count: int, most: int, share: Share, dice: random.Random) -> None:
    """Where not every set can be looked at the answer is a right one still, the same for any order of the input."""
    names = [f"d{number}" for number in range(count)]
    offers = [
        Offer(
            name,
            tuple(f"{name}::{number}" for number in range(dice.randint(1, most))),
            dice.choice([None, 0, 1, 2, 3]),
            dice.choice(["", *(f"s{number}" for number in range(9))]),
            frozenset(dice.sample(names, dice.randint(0, 4))),
        )
        for name in names
    ]
    ids = [replica for one in offers for replica in one.replicas]
    available = dice.sample(ids, dice.randint(1, len(ids)))
    must = dice.sample(available, dice.randint(0, min(3, len(available))))
    size = dice.randint(len(must), len(available))
    answer = preferred(offers, available, must, size, share)
    assert len(answer) == len(set(answer)) == size
    assert set(must) <= set(answer) <= set(available)
    for some in (available, must, offers):
        dice.shuffle(some)
    assert preferred(offers, available, must, size, share) == answer


def test_linked_groups_are_found_among_many() -> None:
    """With 64 devices in groups of four a whole group is found for four and five, and what is left of one for two."""
    names = [f"d{number}" for number in range(64)]
    offers = [
        Offer(name, (name,), number // 32, f"s{number // 8}", frozenset(names[number // 4 * 4 :][:4]))
        for number, name in enumerate(names)
    ]
    left = [name for name in names if name not in {"d0", "d4", "d5"}]
    assert preferred(offers, left, [], 4, "pack") == ["d8", "d9", "d10", "d11"]
    assert preferred(offers, left, [], 6, "pack") == ["d8", "d9", "d10", "d11", "d12", "d13"]
    assert preferred(offers, left, [], 2, "pack") == ["d1", "d2"]
    assert preferred(offers, left, [], 5, "pack") == ["d8", "d9", "d10", "d11", "d12"]


def test_the_largest_lists_are_answered_quickly() -> None:
    """Thousands of ids on dozens of nodes and switches, where not all sets can be looked at, still get an answer."""
    many = [Offer(f"d{one}", tuple(f"d{one}::{n}" for n in range(5)), one % 60, f"s{one % 240}") for one in range(1000)]
    joined = [
        Offer(f"d{one}", (f"d{one}::0",), one // 32, f"s{one // 4}", frozenset(f"d{one * n % 256}" for n in (3, 5, 7)))
        for one in range(256)
    ]
    shares: tuple[Share, ...] = ("pack", "spread")
    for offers, share, size in itertools.product((many, joined), shares, (1, 100, 250, 2500, 5000)):
        ids = [replica for one in offers for replica in one.replicas]
        if size <= len(ids):
            began_s = time.process_time()
            answer = preferred(offers, ids, ["d7::0"], size, share)
            assert time.process_time() - began_s < ANSWER_WITHIN_S
            assert len(set(answer)) == size
            assert "d7::0" in answer
