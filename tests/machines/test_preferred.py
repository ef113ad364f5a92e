"""GetPreferredAllocation against every possible answer: no other subset is better by the stated order."""

import itertools
import random
import time
from collections import Counter
from collections.abc import Iterable, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from devd.daemon.allocation import Candidate, Share, preferred

Request = tuple[list[Candidate], list[str], list[str], int]

ANSWER_WITHIN_S = 2.0
"""Twenty times what the largest list takes on a free machine."""


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """Return a request that can be met: up to five devices of up to three replicas on up to three NUMA nodes."""
    devices = draw(st.lists(st.tuples(st.integers(1, 3), st.sampled_from([None, 0, 1, 2])), min_size=1, max_size=5))
    candidates = [
        Candidate(f"d{device}::{number}", f"d{device}", node)
        for device, (replicas, node) in enumerate(devices)
        for number in range(replicas)
    ]
    ids = [one.id for one in candidates]
    available = draw(st.lists(st.sampled_from(ids), unique=True, min_size=1, max_size=9))
    must = draw(st.lists(st.sampled_from(available), unique=True, max_size=3))
    size = draw(st.integers(len(must), len(available)))
    return candidates, available, must, size


def nodes_of(chosen: Iterable[Candidate]) -> int:
    """Return how many NUMA nodes a choice touches; none counts as one."""
    return max(1, len({one.numa_node for one in chosen} - {None}))


def cost(candidates: Sequence[Candidate], ids: Iterable[str], share: Share) -> tuple[int, int]:
    """Return a choice's NUMA nodes, then its devices as the policy counts them: less is better."""
    wanted = set(ids)
    chosen = [one for one in candidates if one.id in wanted]
    devices = len({one.device for one in chosen})
    return nodes_of(chosen), devices if share == "pack" else -devices


@settings(max_examples=300, deadline=None)
@given(requests(), st.sampled_from(["pack", "spread"]))
def test_no_subset_is_better(request: Request, share: Share) -> None:
    """The answer is a right one, and none of all subsets has fewer NUMA nodes, or as few and better devices."""
    candidates, available, must, size = request
    answer = preferred(candidates, available, must, size, share)
    assert len(answer) == len(set(answer)) == size
    assert set(must) <= set(answer) <= set(available)
    every = (one for one in itertools.combinations(available, size) if set(must) <= set(one))
    assert cost(candidates, answer, share) == min(cost(candidates, one, share) for one in every)


@settings(max_examples=150, deadline=None)
@given(requests(), st.sampled_from(["pack", "spread"]), st.randoms(use_true_random=False))
def test_the_order_of_the_input_changes_nothing(request: Request, share: Share, dice: random.Random) -> None:
    """The kubelet sends ids in random order; the answer is the same for each."""
    candidates, available, must, size = request
    expected = preferred(candidates, available, must, size, share)
    for ids in (available, must, candidates):
        dice.shuffle(ids)
    assert preferred(candidates, available, must, size, share) == expected


@settings(max_examples=150, deadline=None)
@given(requests())
def test_spread_is_even(request: Request) -> None:
    """No device gives two more than another that had one left, unless they were needed."""
    candidates, available, must, size = request
    device = {one.id: one.device for one in candidates}
    answer = preferred(candidates, available, must, size, "spread")
    given_by, needed = Counter(device[one] for one in answer), Counter(device[one] for one in must)
    free = Counter(device[one] for one in available)
    for high, low in itertools.permutations(given_by, 2):
        movable = given_by[high] > needed[high] and given_by[low] < free[low]
        assert not (movable and given_by[high] - given_by[low] > 1)


def test_the_largest_lists_are_answered_quickly() -> None:
    """Five thousand ids on sixty nodes, where not all sets of nodes can be looked at, still get a right answer."""
    candidates = [
        Candidate(f"d{number // 5}::{number % 5}", f"d{number // 5}", number // 5 % 60) for number in range(5000)
    ]
    ids = [one.id for one in candidates]
    shares: tuple[Share, ...] = ("pack", "spread")
    for share, size in itertools.product(shares, (1, 100, 2500, 5000)):
        began_s = time.process_time()
        answer = preferred(candidates, ids, ["d7::3"], size, share)
        assert time.process_time() - began_s < ANSWER_WITHIN_S
        assert len(set(answer)) == size
        assert "d7::3" in answer
