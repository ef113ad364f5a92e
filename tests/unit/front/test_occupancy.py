"""Who is in the way of a reset: by the kubelet's list, who was let go, and the order in which the others asked."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from devd.daemon.occupancy import (
    JUST_STARTED,
    MAX_ALLOCATED,
    NOBODY_WAITS,
    Case,
    Occupied,
    Start,
    StartBook,
    occupied,
)
from devd.daemon.pod_resources import METHOD, Held, Holdings, PodResources
from devd.ipc.messages import Allocated, Device, Node

GPU = "devd.io/gpu"
SHARED_NODE = Node("/dev/gpuctl", "char", 240, 255)


def card(number: int, address: str = "") -> Device:
    """Return a card with a node of its own and one that all have."""
    properties = {"address": address} if address else {}
    return Device(f"gpu-{number}", (Node(f"/dev/gpu{number}", "char", 240, number), SHARED_NODE), properties)


CARDS: Mapping[str, Device] = {"gpu-0": card(0, "0000:01:00.0"), "gpu-1": card(1, "0000:01:00.1"), "gpu-2": card(2)}


def find(resource: str, offered: str) -> Device | None:
    """Return the card behind a share."""
    return CARDS.get(offered.partition("::")[0]) if resource == GPU else None


def start(*ids: str, shared: bool = True) -> Start:
    """Return the start of a container with these shares."""
    devices = {offered.partition("::")[0]: None for offered in ids}
    return Start(GPU, ids, tuple(CARDS[device] for device in devices), shared=shared, takes_along=True)


def held(*ids: str) -> Holdings:
    """Return a list in which each id is another pod's."""
    return Holdings(tuple(Held(GPU, one, f"pod of {one}") for one in ids))


def respects(device: str, book: StartBook, listed: Holdings, *starts: tuple[Start, int]) -> Occupied:
    """Return what a reset for these starts has to respect, when each was given the same list."""
    return occupied(device, [Case(one, number, listed) for one, number in starts], book, find)


def test_device_of_another_pod_is_told_by_what_is_its_own() -> None:
    """Its nodes and its address, not the node that both have; nothing of resources that are not devd's."""
    book = StartBook()
    mine = start("gpu-0", shared=False)
    listed = Holdings((*held("gpu-0", "gpu-1", "gpu-9").held, Held("other.io/nic", "gpu-2", "pod x")))
    words = "pod of gpu-1 has gpu-1 allocated"
    found = respects("gpu-0", book, listed, (mine, book.begins(mine)))
    assert found == Occupied(allocated=(Allocated(("/dev/gpu1", "0000:01:00.1"), words),))


def test_share_is_in_the_way_from_when_its_container_may_run() -> None:
    """Neither admitted nor asked is in the way of the same device's reset, let go is; failed or ended is not again."""
    book = StartBook()
    first, second = start("gpu-0::0"), start("gpu-0::1")
    book.allocated(GPU, ["gpu-0::0"])
    book.allocated(GPU, ["gpu-0::1"])
    listed = held("gpu-0::0", "gpu-0::1")
    two = book.begins(second)
    assert not respects("gpu-0", book, listed, (second, two)).spared
    one = book.begins(first)
    assert not respects("gpu-0", book, listed, (second, two)).spared
    book.let_go(first, one)
    assert respects("gpu-0", book, listed, (second, two)).spared == "shared with pod of gpu-0::0"
    assert not respects("gpu-0", book, listed, (first, one), (second, two)).spared
    book.failed(first, one)
    assert not respects("gpu-0", book, listed, (second, two)).spared
    one = book.begins(first)
    book.let_go(first, one)
    book.allocated(GPU, ["gpu-0::0"])
    assert not respects("gpu-0", book, listed, (second, two)).spared
    book.forget(lambda _key: False)
    assert len(book) == 0


def test_container_that_a_list_is_too_old_for_is_in_the_way() -> None:
    """Who was let go after the list was asked for counts, listed or not; a restart of it is nobody's container."""
    book = StartBook()
    first, second = start("gpu-0::0"), start("gpu-0::1")
    two = book.begins(second)
    book.allocated(GPU, ["gpu-0::0"])
    one = book.begins(first)
    book.let_go(first, one)
    assert respects("gpu-0", book, held("gpu-0::1"), (second, two)).spared == f"shared with {JUST_STARTED}"
    neighbour = start("gpu-1", shared=False)
    three = book.begins(neighbour)
    assert respects("gpu-1", book, held("gpu-1"), (neighbour, three)) == Occupied()
    book.begins(first)
    assert not respects("gpu-0", book, held("gpu-0::1"), (second, two)).spared


def test_of_two_neighbours_the_later_waits_for_the_earlier() -> None:
    """Where a reset takes the other along, who asked first goes first; one that runs is in the way of both."""
    book = StartBook()
    here, there = start("gpu-0", shared=False), start("gpu-1", shared=False)
    for one in ("gpu-0", "gpu-1"):
        book.allocated(GPU, [one])
    listed = held("gpu-0", "gpu-1")
    first = book.begins(here)
    second = book.begins(there)
    assert not respects("gpu-0", book, listed, (here, first)).allocated
    assert respects("gpu-1", book, listed, (there, second)).allocated
    book.let_go(there, second)
    assert respects("gpu-0", book, listed, (here, first)).allocated


def test_reset_for_nobody_is_none() -> None:
    """Those it was for have given up: the device is probed, and nobody is disturbed."""
    assert respects("gpu-0", StartBook(), held()).spared == NOBODY_WAITS


def test_devices_of_one_container_are_not_in_each_others_way() -> None:
    """A container with two cards of one circuit may have both reset."""
    book = StartBook()
    both = start("gpu-0", "gpu-1", shared=False)
    number = book.begins(both)
    for device in ("gpu-0", "gpu-1"):
        assert respects(device, book, held("gpu-0", "gpu-1"), (both, number)) == Occupied()


def test_container_is_not_in_its_own_way() -> None:
    """The kubelet asks resource by resource: what the same container has of another one is no stranger's."""
    book = StartBook()
    other = Start("devd.io/nic", ("nic",), (CARDS["gpu-1"],), shared=False, takes_along=True)
    book.let_go(other, book.begins(other))
    mine = start("gpu-0", shared=False)
    number = book.begins(mine)

    def both(resource: str, offered: str) -> Device | None:
        return CARDS["gpu-1"] if resource == "devd.io/nic" else find(resource, offered)

    listed = Holdings((Held("devd.io/nic", "nic", "pod a (main)"), Held(GPU, "gpu-0", "pod a (main)")))
    assert occupied("gpu-0", [Case(mine, number, listed)], book, both) == Occupied()
    strange = Holdings((Held("devd.io/nic", "nic", "pod b (main)"), Held(GPU, "gpu-0", "pod a (main)")))
    assert occupied("gpu-0", [Case(mine, number, strange)], book, both).allocated


def test_operator_is_refused_or_obeyed() -> None:
    """Who runs is in the way of an order, and so is not knowing; an order that is forced asks nobody."""
    book = StartBook()
    order = Start(GPU, (), (CARDS["gpu-0"],), shared=False, takes_along=False, ordered=True)
    assert "pod of gpu-0 has it" in respects("gpu-0", book, held("gpu-0"), (order, book.begins(order))).refused
    unknown = Holdings(problem="no answer")
    assert "--force" in respects("gpu-0", book, unknown, (order, book.begins(order))).refused
    forced = replace(order, forced=True)
    mine = start("gpu-0::1")
    starts = ((forced, book.begins(forced)), (mine, book.begins(mine)))
    assert respects("gpu-0", book, held("gpu-0::0"), *starts) == Occupied()


def test_too_many_allocations_are_no_free_pass() -> None:
    """What does not fit into a message is said to be unknown, so that the reset is refused."""
    book = StartBook()
    mine = start("gpu-0", shared=False)
    listed = held(*["gpu-1"] * (MAX_ALLOCATED + 1))
    found = respects("gpu-0", book, listed, (mine, book.begins(mine)))
    assert len(found.allocated) == MAX_ALLOCATED
    assert f"more than {MAX_ALLOCATED}" in found.unseen


SHARES = tuple(f"gpu-0::{number}" for number in range(4))


class SharedCard(RuleBasedStateMachine):
    """Containers with a share each of one card: the kubelet's lists come late and in any order, resets one at a time.

    Held against what must hold of it in the world: a reset that is done ends nobody's work, and one that is left out
    is left out for somebody's.
    """

    def __init__(self) -> None:
        super().__init__()
        self.book = StartBook()
        self.idle: set[str] = set()
        self.asked: dict[str, int] = {}
        self.looked: dict[str, Case] = {}
        self.waiting: dict[str, Case] = {}
        self.running: set[str] = set()
        self.seen: dict[str, set[str]] = {}
        """Who ran at some time since a container asked."""
        self.crashed: set[str] = set()
        """Who is taken to run: that a container has ended is not told as long as its pod has the share."""

    def admitted(self) -> set[str]:
        """Return who is in the kubelet's list."""
        return {*self.idle, *self.asked, *self.looked, *self.waiting, *self.running}

    @precondition(lambda self: len(self.admitted()) < len(SHARES))
    @rule(data=st.data())
    def admit(self, data: st.DataObject) -> None:
        """Give a share out."""
        one = data.draw(st.sampled_from(sorted({*SHARES} - self.admitted())))
        self.book.allocated(GPU, [one])
        self.idle.add(one)

    @precondition(lambda self: self.idle)
    @rule(data=st.data())
    def ask(self, data: st.DataObject) -> None:
        """Have a container ask to start, the first time or again."""
        one = data.draw(st.sampled_from(sorted(self.idle)))
        self.idle.remove(one)
        self.crashed.discard(one)
        self.asked[one] = self.book.begins(start(one))
        self.seen[one] = self.running | self.crashed

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def look(self, data: st.DataObject) -> None:
        """Have the kubelet write the list, which is then on its way."""
        one = data.draw(st.sampled_from(sorted(self.asked)))
        self.looked[one] = Case(start(one), self.asked[one], held(*sorted(self.admitted())))
        del self.asked[one]

    @precondition(lambda self: self.looked)
    @rule(data=st.data())
    def told(self, data: st.DataObject) -> None:
        """Deliver a list; the reset begins, or the one under way is joined."""
        one = data.draw(st.sampled_from(sorted(self.looked)))
        resetting = bool(self.waiting)
        self.waiting[one] = self.looked.pop(one)
        if resetting:
            return
        if occupied("gpu-0", list(self.waiting.values()), self.book, find).spared:
            # By an old list it may still have been for those who have ended since.
            assert self.seen[one]
        else:
            assert not self.running | self.crashed

    @precondition(lambda self: self.waiting)
    @rule(well=st.booleans())
    def done(self, well: bool) -> None:  # noqa: FBT001 - drawn
        """End the reset: all who wait are let go, or fail."""
        for one, case in self.waiting.items():
            if well:
                self.book.let_go(case.start, case.number)
                self.running.add(one)
            else:
                self.book.failed(case.start, case.number)
                self.idle.add(one)
        self.waiting.clear()
        self.seen = {one: seen | self.running for one, seen in self.seen.items()}

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def stop(self, data: st.DataObject) -> None:
        """End a container and its pod; the share is free."""
        self.running.remove(data.draw(st.sampled_from(sorted(self.running))))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        """End a container alone: it will ask again with the same share."""
        one = data.draw(st.sampled_from(sorted(self.running)))
        self.running.remove(one)
        self.crashed.add(one)
        self.idle.add(one)


TestSharedCard = SharedCard.TestCase
TestSharedCard.settings = settings(max_examples=100, stateful_step_count=40)


def test_answer_that_is_none_is_told(tmp_path: Path) -> None:
    """Bytes that are no list, and more of them than a kubelet sends, are a problem with words."""
    socket = tmp_path / "kubelet.sock"

    async def run(answer: bytes) -> Holdings:
        async def reply(_request: bytes, _context: object) -> bytes:
            return answer

        service, method = METHOD.strip("/").split("/")
        server = grpc.aio.server()
        handler: Any = grpc.unary_unary_rpc_method_handler(reply)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        server.add_insecure_port(f"unix:{socket}")
        await server.start()
        try:
            return await PodResources(socket).ask()
        finally:
            await server.stop(None)

    assert "sent what is no answer" in asyncio.run(run(b"\xff\xff\xff")).problem
    assert "RESOURCE_EXHAUSTED" in asyncio.run(run(bytes(17 * 1024 * 1024))).problem
    assert asyncio.run(run(b"")) == Holdings()
