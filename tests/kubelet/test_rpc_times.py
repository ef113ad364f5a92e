"""What is counted of the kubelet's calls, by a real gRPC client over a real socket."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from devd.daemon.errors import PreStartError
from devd.daemon.plugin import MAX_LIST_BYTES
from devd.daemon.rpc_times import BOUNDS_S, METHODS, Method, RpcTimes
from devd.proto.gen import deviceplugin_pb2 as pb
from tests.kubelet.endpoint_support import MemoryView, eventually, served

if TYPE_CHECKING:
    from devd.proto.gen.deviceplugin_pb2_grpc import DevicePluginAsyncStub as Stub

NOTHING = {"ok": 0, "refused": 0, "cancelled": 0, "failed": 0}


def play(tmp_path: Path, view: MemoryView, work: Callable[["Stub", RpcTimes], Awaitable[None]]) -> RpcTimes:
    """Run ``work`` against the served view; return what was counted until the server's end."""
    times = RpcTimes()

    async def scene() -> None:
        async with served(view, tmp_path / "p.sock", times) as (_, stub):
            await work(stub, times)

    asyncio.run(scene())
    return times


def only(times: RpcTimes, method: Method, **results: int) -> None:
    """Check that these and no other calls were counted, and that the histogram has as many."""
    assert times.methods[method].results == {**NOTHING, **results}
    assert sum(times.methods[method].counts) == sum(results.values())
    assert [one for one in METHODS if one != method and any(times.methods[one].counts)] == []


def allocate(*ids: str) -> pb.AllocateRequest:
    """Return a request of one container."""
    return pb.AllocateRequest(container_requests=[pb.ContainerAllocateRequest(devices_ids=ids)])


def test_answers_refusals_and_bugs_are_told_apart(tmp_path: Path) -> None:
    """An answered Allocate, one of an unknown device, a wrong one and one that meets a bug count as what they are."""
    view = MemoryView()

    async def work(stub: "Stub", times: RpcTimes) -> None:
        del times
        await stub.Allocate(allocate("a"))
        for wrong in (allocate("stranger"), pb.AllocateRequest()):
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.Allocate(wrong)
        view.bug = KeyError("lost row")
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Allocate(allocate("a"))
        view.bug = None

    only(play(tmp_path, view, work), "Allocate", ok=1, refused=2, failed=1)


def test_list_counts_with_its_first_answer_and_once(tmp_path: Path) -> None:
    """A device list is counted while its stream is open, and neither more lists nor its end count again."""

    async def work(stub: "Stub", times: RpcTimes) -> None:
        call = stub.ListAndWatch(pb.Empty())
        await call.read()
        await eventually(lambda: times.methods["ListAndWatch"].results["ok"] == 1, "the count of an open stream")
        view.set("a", healthy=False)
        await call.read()
        call.cancel()

    view = MemoryView()
    only(play(tmp_path, view, work), "ListAndWatch", ok=1)


@pytest.mark.parametrize("who", ["kubelet", "devd"])
def test_list_that_never_came_is_cancelled(tmp_path: Path, who: str) -> None:
    """A stream that either side ended before there was a list to send does not count as answered."""
    view = MemoryView(ids=[f"{number:060}" for number in range(MAX_LIST_BYTES // 60)])

    times = RpcTimes()

    async def scene() -> None:
        async with served(view, tmp_path / "p.sock", times) as (server, stub):
            call = stub.ListAndWatch(pb.Empty())
            await eventually(lambda: server.plugin.streams_open == 1, "the open stream")
            if who == "kubelet":
                call.cancel()
            else:
                await server.stop(1.0)
            await eventually(lambda: server.plugin.streams_open == 0, "the stream's end")

    asyncio.run(scene())
    only(times, "ListAndWatch", cancelled=1)


def test_pre_start_takes_as_long_as_the_reset(tmp_path: Path) -> None:
    """A PreStartContainer that waits shows in the histogram by its time; a failed reset is a refusal."""
    wait_s = 1.1

    async def work(stub: "Stub", times: RpcTimes) -> None:
        del times
        view.pre_start_gate = asyncio.Event()
        call = stub.PreStartContainer(pb.PreStartContainerRequest(devices_ids=["a"]))
        await eventually(lambda: view.pre_started == [["a"]], "the call at the view")
        asyncio.get_running_loop().call_later(wait_s, view.pre_start_gate.set)
        await call
        view.pre_start_error = PreStartError("a: reset failed")
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.PreStartContainer(pb.PreStartContainerRequest(devices_ids=["a"]))

    view = MemoryView()
    times = play(tmp_path, view, work)
    only(times, "PreStartContainer", ok=1, refused=1)
    held = times.methods["PreStartContainer"]
    assert held.total_s >= wait_s * 0.9  # timers may fire a little early
    assert sum(count for bound, count in zip(BOUNDS_S, held.counts, strict=False) if bound < wait_s) == 1


def test_pre_start_that_the_kubelet_gave_up_is_cancelled(tmp_path: Path) -> None:
    """The kubelet's deadline passes while the reset runs: the call counts as cancelled, not as a bug or a refusal."""
    view = MemoryView()

    async def work(stub: "Stub", times: RpcTimes) -> None:
        view.pre_start_gate = asyncio.Event()
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.PreStartContainer(pb.PreStartContainerRequest(devices_ids=["a"]), timeout=1.0)
        await eventually(lambda: times.methods["PreStartContainer"].results["cancelled"] == 1, "the count")
        view.pre_start_gate.set()

    only(play(tmp_path, view, work), "PreStartContainer", cancelled=1)


def test_options_and_preferences_are_counted(tmp_path: Path) -> None:
    """The other two calls are counted under their own names, and a peer of nothing counts nothing."""
    prefer = pb.PreferredAllocationRequest(
        container_requests=[pb.ContainerPreferredAllocationRequest(available_deviceIDs=["a"], allocation_size=1)]
    )

    async def work(stub: "Stub", times: RpcTimes) -> None:
        assert all(one.results == NOTHING for one in times.methods.values())
        await stub.GetDevicePluginOptions(pb.Empty())
        await stub.GetPreferredAllocation(prefer)

    times = play(tmp_path, MemoryView(), work)
    counted = {name: one.results["ok"] for name, one in times.methods.items() if sum(one.counts)}
    assert counted == {"GetDevicePluginOptions": 1, "GetPreferredAllocation": 1}
