"""The four unary calls of a served plugin, by a real gRPC client over a real socket."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from devd.daemon.errors import PreStartError
from devd.daemon.plugin_wire import MAX_TEXT_CHARS
from devd.proto.gen import deviceplugin_pb2 as pb
from tests.kubelet.endpoint_support import MemoryView, eventually, served

if TYPE_CHECKING:
    from devd.proto.gen.deviceplugin_pb2_grpc import DevicePluginAsyncStub as Stub


def call(tmp_path: Path, view: MemoryView, work: Callable[["Stub"], Awaitable[None]]) -> None:
    """Run ``work`` against the served view."""

    async def scene() -> None:
        async with served(view, tmp_path / "p.sock") as (_, stub):
            await work(stub)

    asyncio.run(scene())


def allocate(*containers: list[str]) -> pb.AllocateRequest:
    return pb.AllocateRequest(container_requests=[pb.ContainerAllocateRequest(devices_ids=one) for one in containers])


def prefer(available: list[str], must: list[str], size: int) -> pb.PreferredAllocationRequest:
    one = pb.ContainerPreferredAllocationRequest(
        available_deviceIDs=available, must_include_deviceIDs=must, allocation_size=size
    )
    return pb.PreferredAllocationRequest(container_requests=[one])


async def refusal(awaitable: Awaitable[object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await awaitable
    return caught.value.code(), caught.value.details() or ""


def test_options_follow_the_view(tmp_path: Path) -> None:
    """pre_start_required is the view's word, and preferred allocation is always offered."""
    view = MemoryView()

    async def work(stub: "Stub") -> None:
        for required in (True, False):
            view.pre_start_required = required
            options = await stub.GetDevicePluginOptions(pb.Empty())
            assert (options.pre_start_required, options.get_preferred_allocation_available) == (required, True)

    call(tmp_path, view, work)


def test_allocate_answers_each_container_whatever_the_order(tmp_path: Path) -> None:
    """Each container request gets its response, complete, and the order of ids (a Go set's) does not show."""

    async def work(stub: "Stub") -> None:
        answer = await stub.Allocate(allocate(["b", "a"], ["c"]))
        again = await stub.Allocate(allocate(["a", "b"], ["c"]))
        assert answer == again
        first, second = answer.container_responses
        assert dict(first.envs) == {"IDS": "a,b"}
        assert dict(first.annotations) == {"devd.io/ids": "a b"}
        nodes = [(one.host_path, one.container_path, one.permissions) for one in first.devices]
        assert nodes == [("/dev/a", "/dev/in-a", "rw"), ("/dev/b", "/dev/in-b", "rw")]
        mounts = [(one.host_path, one.container_path, one.read_only) for one in first.mounts]
        assert mounts == [("/host", "/container", True)]
        assert dict(second.envs) == {"IDS": "c"}

    call(tmp_path, MemoryView(ids=("a", "b", "c")), work)


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (allocate(), "container_requests: none found"),
        (allocate([]), "container_requests[0].devices_ids: no device id found"),
        (allocate(["a"], ["b", "b"]), "container_requests[1].devices_ids: device id b stands there twice"),
        (allocate(["a"], ["a"]), "container_requests: device id a stands there twice"),
        (allocate([""]), "an empty device id"),
    ],
)
def test_malformed_allocate_is_an_invalid_argument(tmp_path: Path, request_: pb.AllocateRequest, text: str) -> None:
    """A request no kubelet sends gets INVALID_ARGUMENT with the resource, the field and the fault, on one line."""

    async def work(stub: "Stub") -> None:
        code, details = await refusal(stub.Allocate(request_))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert details.startswith("devd.io/test: ")
        assert text in details

    call(tmp_path, MemoryView(), work)


def test_refused_allocate_says_why_on_one_line(tmp_path: Path) -> None:
    """Unknown and Unhealthy devices give FAILED_PRECONDITION with the view's reason, its line breaks gone."""
    view = MemoryView()
    view.set("b", healthy=False, reason="open /dev/b:\n EIO" + " x" * MAX_TEXT_CHARS)

    async def work(stub: "Stub") -> None:
        code, details = await refusal(stub.Allocate(allocate(["nope"])))
        assert (code, details) == (grpc.StatusCode.FAILED_PRECONDITION, "devd.io/test: nope: no such device")
        code, details = await refusal(stub.Allocate(allocate(["a", "b"])))
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert details.startswith("devd.io/test: b is Unhealthy: open /dev/b: EIO x x")
        assert len(details) <= len("devd.io/test: ") + MAX_TEXT_CHARS

    call(tmp_path, view, work)


def test_preferred_holds_what_must_be_in(tmp_path: Path) -> None:
    """The answer has the asked size, contains must_include, and is given also when there is no choice left."""

    async def work(stub: "Stub") -> None:
        answer = await stub.GetPreferredAllocation(prefer(["c", "a", "b"], ["b"], 2))
        assert list(answer.container_responses[0].deviceIDs) == ["b", "a"]
        answer = await stub.GetPreferredAllocation(prefer(["b", "a"], [], 2))
        assert list(answer.container_responses[0].deviceIDs) == ["a", "b"]

    call(tmp_path, MemoryView(), work)


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (pb.PreferredAllocationRequest(), "container_requests: none found"),
        (prefer([], [], 1), "available_deviceIDs: no device id found"),
        (prefer(["a", "a"], [], 1), "available_deviceIDs: device id a stands there twice"),
        (prefer(["a"], ["x"], 1), "must_include_deviceIDs: x is not among the available ids"),
        (prefer(["a", "b"], [], 3), "allocation_size: 3 found, 1 to 2 allowed"),
        (prefer(["a", "b"], ["a", "b"], 1), "allocation_size: 1 found, 2 to 2 allowed"),
        (prefer(["a"], [], 0), "allocation_size: 0 found, 1 to 1 allowed"),
    ],
)
def test_malformed_preference_is_an_invalid_argument(
    tmp_path: Path, request_: pb.PreferredAllocationRequest, text: str
) -> None:
    """A preference request that contradicts itself gets INVALID_ARGUMENT naming the field."""

    async def work(stub: "Stub") -> None:
        code, details = await refusal(stub.GetPreferredAllocation(request_))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert text in details

    call(tmp_path, MemoryView(), work)


def test_pre_start_waits_for_the_view_and_passes_its_reason_on(tmp_path: Path) -> None:
    """All ids reach the view sorted, in one call; its PreStartError is the answer's one-line text."""
    view = MemoryView()

    async def work(stub: "Stub") -> None:
        await stub.PreStartContainer(pb.PreStartContainerRequest(devices_ids=["b", "a"]))
        view.pre_start_error = PreStartError("b: reset took\n25 s")
        code, details = await refusal(stub.PreStartContainer(pb.PreStartContainerRequest(devices_ids=["b"])))
        assert (code, details) == (grpc.StatusCode.FAILED_PRECONDITION, "devd.io/test: b: reset took 25 s")
        code, _ = await refusal(stub.PreStartContainer(pb.PreStartContainerRequest()))
        assert code is grpc.StatusCode.INVALID_ARGUMENT

    call(tmp_path, view, work)
    assert view.pre_started == [["a", "b"], ["b"]]


def test_reset_goes_on_when_the_kubelet_gives_up(tmp_path: Path) -> None:
    """At the kubelet's deadline the call ends but the view's pre_start does not: a later call can join it."""
    view = MemoryView()

    async def work(stub: "Stub") -> None:
        view.pre_start_gate = asyncio.Event()
        request = pb.PreStartContainerRequest(devices_ids=["a"])
        # Long enough for the call to reach the view on a busy machine.
        code, _ = await refusal(stub.PreStartContainer(request, timeout=1.0))
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert (len(view.pre_started), view.pre_start_ended) == (1, 0)
        view.pre_start_gate.set()
        await eventually(lambda: view.pre_start_ended == 1, "the detached pre_start ends by itself")

    call(tmp_path, view, work)


def test_a_bug_in_the_view_is_internal_and_the_server_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An unexpected exception answers INTERNAL with its text, is logged with a traceback, and ends nothing."""
    view = MemoryView()

    async def work(stub: "Stub") -> None:
        view.bug = KeyError("lost row")
        code, details = await refusal(stub.Allocate(allocate(["a"])))
        assert code is grpc.StatusCode.INTERNAL
        assert "internal error of devd in Allocate: KeyError: 'lost row'" in details
        view.bug, view.pre_start_error = None, RuntimeError("odd")
        code, details = await refusal(stub.PreStartContainer(pb.PreStartContainerRequest(devices_ids=["a"])))
        assert (code, "PreStartContainer: RuntimeError: odd" in details) == (grpc.StatusCode.INTERNAL, True)
        assert len((await stub.Allocate(allocate(["a"]))).container_responses) == 1

    with caplog.at_level(logging.ERROR, logger="devd.test"):
        call(tmp_path, view, work)
    assert [one.exc_info is not None for one in caplog.records] == [True, True]
