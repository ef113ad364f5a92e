"""PreStart's desk: every call is answered once, in time, whatever its devices do."""

import asyncio
from collections.abc import Callable

import pytest

from devd.daemon.errors import PreStartError
from devd.daemon.occupancy import Start
from devd.daemon.pod_resources import Held, Holdings
from devd.daemon.prestart import PreStartDesk
from devd.ipc.messages import Device

Asked = list[tuple[str, int]]


def desk(answer: Callable[[PreStartDesk, str, int], None], budget_s: float = 5.0) -> tuple[PreStartDesk, Asked, Asked]:
    """Return a desk whose devices answer by ``answer``, what it asked, and what it gave up."""
    asked: Asked = []
    expired: Asked = []

    def ask(device: str, waiter: int) -> None:
        asked.append((device, waiter))
        asyncio.get_running_loop().call_soon(answer, made, device, waiter)

    def expire(device: str, waiter: int) -> None:
        expired.append((device, waiter))
        made.answered(waiter, ok=False, text="too slow")

    made = PreStartDesk(ask, expire, nobody, lambda _resource, _id: None, budget_s)
    return made, asked, expired


async def nobody() -> Holdings:
    """Return that no container has anything."""
    return Holdings()


def start(*ids: str) -> Start:
    """Return the start of a container with these devices, each its own."""
    return Start("devd.io/gpu", ids, tuple(map(Device, ids)), shared=False, takes_along=False)


def test_all_devices_are_asked_at_once_and_must_all_be_ready() -> None:
    """Two devices are asked together; when both are ready, so is the container."""

    async def run() -> None:
        made, asked, _ = desk(lambda one, _device, waiter: one.answered(waiter, ok=len(asked) == 2, text="alone"))
        await made.ready(start("a", "b"))
        assert [device for device, _ in asked] == ["a", "b"]

    asyncio.run(run())


def test_failure_names_each_device_and_its_cause() -> None:
    """The error has every device that is not ready with its cause, and what the kubelet does next."""

    async def run() -> None:
        made, _, _ = desk(lambda one, device, waiter: one.answered(waiter, ok=device == "a", text="no link"))
        with pytest.raises(PreStartError, match=r"^b: no link; c: no link \(the kubelet tries"):
            await made.ready(start("a", "b", "c"))

    asyncio.run(run())


def test_device_that_never_answers_is_given_up_in_time() -> None:
    """A device that says nothing is expired once, and its call fails."""

    async def run() -> None:
        made, asked, expired = desk(lambda _one, _device, _waiter: None, budget_s=0.05)
        with pytest.raises(PreStartError, match="a: too slow"):
            await made.ready(start("a"))
        assert expired == asked

    asyncio.run(run())


def test_late_and_doubled_answers_are_nobodys() -> None:
    """An answer to a call that is over, or a second one, changes nothing."""

    async def run() -> None:
        made, asked, _ = desk(lambda one, _device, waiter: one.answered(waiter, ok=True, text=""))
        await made.ready(start("a"))
        made.answered(asked[0][1], ok=False, text="late")
        made.answered(999, ok=False, text="never asked")
        await made.ready(start("a"))

    asyncio.run(run())


def test_desk_that_closes_answers_whoever_waits_and_whoever_comes() -> None:
    """At devd's end a container that waits is told so at once, and one that comes is asked about nothing any more."""

    async def run() -> None:
        made, asked, _ = desk(lambda _one, _device, _waiter: None)
        waits = asyncio.ensure_future(made.ready(start("a", "b")))
        while len(asked) < 2:  # noqa: ASYNC110 - a list tells of no event
            await asyncio.sleep(0)
        made.close()
        with pytest.raises(PreStartError, match=r"^a: devd is ending.*; b: devd is ending.*\(the kubelet tries"):
            await waits
        with pytest.raises(PreStartError, match=r"^c: devd is ending"):
            await made.ready(start("c"))
        assert len(asked) == 2

    asyncio.run(run())


def test_refused_reset_is_not_begun() -> None:
    """What stands in the way is told in its own words, no device is asked, and no kubelet is spoken of."""

    async def who() -> Holdings:
        return Holdings((Held("devd.io/gpu", "a", "pod default/a (main)"),))

    def ask(device: str, waiter: int) -> None:
        pytest.fail(f"{device} was asked to be reset for waiter {waiter}")

    async def run() -> None:
        made = PreStartDesk(ask, ask, who, lambda _resource, one: Device(one))
        ordered = Start("devd.io/gpu", (), (Device("a"),), shared=False, takes_along=False, ordered=True)
        with pytest.raises(PreStartError, match=r"^a: pod default/a \(main\) has it: wait until"):
            await made.ready(ordered)

    asyncio.run(run())


def test_lists_that_arrive_together_leave_out_nobodys_reset() -> None:
    """Four share a device and are told in one moment who has it: the reset of the first is done, whoever asked last.

    What a reset has to respect is what holds when it begins, not what the last one to look has found.
    """
    ids = [f"a::{number}" for number in range(4)]
    spared: list[str] = []
    arrived = asyncio.Event()

    async def who() -> Holdings:
        await arrived.wait()
        return Holdings(tuple(Held("devd.io/gpu", one, f"pod of {one}") for one in ids))

    def find(_resource: str, one: str) -> Device:
        return Device(one.partition("::")[0])

    def ask(device: str, waiter: int) -> None:
        # As a lifecycle does whose device is idle: the reset begins now, and is soon done.
        spared.append(made.respects(device, [waiter])().spared)
        made.answered(waiter, ok=True, text="")

    made = PreStartDesk(ask, ask, who, find)

    async def run() -> None:
        for one in ids:
            made.allocated("devd.io/gpu", [one])
        starts = [Start("devd.io/gpu", (one,), (Device("a"),), shared=True, takes_along=False) for one in ids]
        calls = [asyncio.ensure_future(made.ready(one)) for one in starts]
        await asyncio.sleep(0)
        arrived.set()
        await asyncio.gather(*calls)

    asyncio.run(run())
    assert [bool(one) for one in spared] == [False, True, True, True]
