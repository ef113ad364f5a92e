"""Who is in the way of a reset: by the kubelet's list and the order in which containers asked to start."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
from hypothesis import given
from hypothesis import strategies as st

from devd.daemon.occupancy import MAX_ALLOCATED, Occupied, Start, StartBook, occupied
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


def test_device_of_another_pod_is_told_by_what_is_its_own() -> None:
    """Its nodes and its address, not the node that both have; nothing of resources that are not devd's."""
    book = StartBook()
    mine = start("gpu-0", shared=False)
    listed = Holdings((*held("gpu-0", "gpu-1", "gpu-9").held, Held("other.io/nic", "gpu-2", "pod x")))
    found = occupied(mine, book.begins(mine), book, listed, find)
    words = "pod of gpu-1 has gpu-1 allocated"
    assert found == {"gpu-0": Occupied(allocated=(Allocated(("/dev/gpu1", "0000:01:00.1"), words),))}


def test_allocated_is_not_begun() -> None:
    """A container that was admitted and has not asked to start is in nobody's way; one that failed is so again."""
    book = StartBook()
    first, second = start("gpu-0::0"), start("gpu-0::1")
    book.allocated(GPU, ["gpu-0::0"])
    book.allocated(GPU, ["gpu-0::1"])
    listed = held("gpu-0::0", "gpu-0::1")
    one = book.begins(first)
    assert not occupied(first, one, book, listed, find)["gpu-0"].spared
    two = book.begins(second)
    assert occupied(second, two, book, listed, find)["gpu-0"].spared == "shared with pod of gpu-0::0"
    assert not occupied(first, one, book, listed, find)["gpu-0"].spared
    book.failed(first, one)
    assert not occupied(second, two, book, listed, find)["gpu-0"].spared
    book.failed(first, one)
    book.allocated(GPU, ["gpu-0::0"])
    assert not occupied(second, two, book, listed, find)["gpu-0"].spared
    book.forget(lambda _key: False)
    assert len(book) == 0


def test_devices_of_one_container_are_not_in_each_others_way() -> None:
    """A container with two cards of one circuit may have both reset."""
    book = StartBook()
    both = start("gpu-0", "gpu-1", shared=False)
    assert occupied(both, book.begins(both), book, held("gpu-0", "gpu-1"), find) == {
        "gpu-0": Occupied(),
        "gpu-1": Occupied(),
    }


def test_container_is_not_in_its_own_way() -> None:
    """The kubelet asks resource by resource: what the same container has of another one is no stranger's."""
    book = StartBook()
    other = Start("devd.io/nic", ("nic",), (CARDS["gpu-1"],), shared=False, takes_along=True)
    book.begins(other)
    mine = start("gpu-0", shared=False)
    listed = Holdings((Held("devd.io/nic", "nic", "pod a (main)"), Held(GPU, "gpu-0", "pod a (main)")))

    def both(resource: str, offered: str) -> Device | None:
        return CARDS["gpu-1"] if resource == "devd.io/nic" else find(resource, offered)

    assert occupied(mine, book.begins(mine), book, listed, both) == {"gpu-0": Occupied()}
    strange = Holdings((Held("devd.io/nic", "nic", "pod b (main)"), Held(GPU, "gpu-0", "pod a (main)")))
    assert occupied(mine, book.begins(mine), book, strange, both)["gpu-0"].allocated


def test_too_many_allocations_are_no_free_pass() -> None:
    """What does not fit into a message is said to be unknown, so that the reset is refused."""
    book = StartBook()
    mine = start("gpu-0", shared=False)
    found = occupied(mine, book.begins(mine), book, held(*["gpu-1"] * (MAX_ALLOCATED + 1)), find)["gpu-0"]
    assert len(found.allocated) == MAX_ALLOCATED
    assert f"more than {MAX_ALLOCATED}" in found.unseen


SHARES = [f"gpu-0::{number}" for number in range(4)]
STEPS = st.lists(st.tuples(st.sampled_from(["allocate", "begin", "fail", "end"]), st.sampled_from(SHARES)), max_size=40)


@given(STEPS)
def test_of_those_that_run_only_the_first_was_reset_for(steps: list[tuple[str, str]]) -> None:
    """Whatever comes when: a reset goes ahead only while nobody who began earlier still has a share."""
    book = StartBook()
    listed: list[str] = []
    running: dict[str, int] = {}
    for what, one in steps:
        if what == "allocate" and one not in listed:
            book.allocated(GPU, [one])
            listed.append(one)
        elif what == "begin" and one in listed:
            mine = start(one)
            number = book.begins(mine)
            others = set(running) - {one}
            spared = occupied(mine, number, book, held(*listed), find)["gpu-0"].spared
            assert bool(spared) == bool(others)
            running[one] = number
        elif what == "fail" and one in running:
            book.failed(start(one), running.pop(one))
        elif what == "end" and one in listed:
            listed.remove(one)
            running.pop(one, None)


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
