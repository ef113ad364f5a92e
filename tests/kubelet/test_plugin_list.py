"""ListAndWatch: what is sent, when, and that a stream leaves nothing behind."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from devd.daemon import plugin
from devd.daemon.plugin import LIST_GAP_S, MAX_LIST_BYTES, _send
from devd.daemon.plugin_server import PluginServer
from devd.daemon.resource import Offered
from devd.proto.gen import deviceplugin_pb2 as pb
from tests.kubelet.endpoint_support import MemoryView, eventually, served

if TYPE_CHECKING:
    from devd.proto.gen.deviceplugin_pb2_grpc import DevicePluginAsyncStub as Stub

Health = dict[str, str]
TRIES = 10


class Reader:
    """Reads one stream in the background and keeps every list with its time of arrival."""

    def __init__(self, stub: "Stub") -> None:
        self.call = stub.ListAndWatch(pb.Empty())
        self.lists: list[Health] = []
        self.raw: list[pb.ListAndWatchResponse] = []
        self.at_s: list[float] = []
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for one in self.call:
            self.raw.append(one)
            self.at_s.append(time.monotonic())
            self.lists.append({device.ID: device.health for device in one.devices})

    async def count(self, number: int) -> None:
        """Wait for that many lists."""
        await eventually(lambda: len(self.lists) >= number, f"{number} lists, have {self.lists}")


def play(tmp_path: Path, view: MemoryView, work: Callable[[PluginServer, "Stub"], Awaitable[None]]) -> None:
    async def scene() -> None:
        async with served(view, tmp_path / "p.sock") as (server, stub):
            await work(server, stub)

    asyncio.run(scene())


async def quiet() -> None:
    """Let any list that is on its way arrive: several gaps long, for proofs that nothing is sent."""
    await asyncio.sleep(4 * LIST_GAP_S)


def test_whole_sorted_list_comes_at_once_with_topology(tmp_path: Path) -> None:
    """The first message holds every device, sorted; only a known NUMA node makes a topology."""
    view = MemoryView(ids=("b", "a", "c"))
    view.set("a", healthy=False, numa_node=1)
    view.set("c", healthy=True, numa_node=-1)

    async def work(_: PluginServer, stub: "Stub") -> None:
        reader = Reader(stub)
        await reader.count(1)
        devices = list(reader.raw[0].devices)
        assert [(one.ID, one.health) for one in devices] == [("a", "Unhealthy"), ("b", "Healthy"), ("c", "Healthy")]
        assert [one.ID for one in devices if one.HasField("topology")] == ["a"]
        assert [node.ID for node in devices[0].topology.nodes] == [1]
        reader.call.cancel()
        await asyncio.wait([reader.task])

    play(tmp_path, view, work)


def test_empty_list_is_sent(tmp_path: Path) -> None:
    """No device at all is a list of its own: 0 of 0 reaches the kubelet."""

    async def work(_: PluginServer, stub: "Stub") -> None:
        assert await stub.ListAndWatch(pb.Empty()).read() == pb.ListAndWatchResponse()

    play(tmp_path, MemoryView(ids=()), work)


def test_unchanged_list_is_never_sent_again(tmp_path: Path) -> None:
    """Calls of ``changed`` that change nothing on the wire (a new reason, nothing at all) send nothing."""
    view = MemoryView()
    view.set("a", healthy=False, reason="one")

    async def work(_: PluginServer, stub: "Stub") -> None:
        reader = Reader(stub)
        await reader.count(1)
        view.set("a", healthy=False, reason="two")
        await quiet()
        view.tell()
        await quiet()
        assert len(reader.lists) == 1
        view.remove("a")
        await reader.count(2)
        assert reader.lists[1] == {"b": "Healthy"}
        reader.call.cancel()
        await asyncio.wait([reader.task])

    play(tmp_path, view, work)


def test_first_change_goes_at_once_and_a_burst_is_coalesced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After quiet a change is sent well under the gap; 100 changes behind it make few lists, the last one current."""
    view = MemoryView()
    sent: list[tuple[float, float]] = []

    async def timed(*arguments: Any) -> bool:
        began_s = time.monotonic()
        wrote = await _send(*arguments)
        if wrote:
            sent.append((began_s, time.monotonic()))
        return wrote

    monkeypatch.setattr(plugin, "_send", timed)

    async def work(_: PluginServer, stub: "Stub") -> None:
        reader = Reader(stub)
        await reader.count(1)
        # The best of several: a busy machine may be late with one, a gap that is waited for is there each time.
        left = TRIES
        while True:
            await quiet()
            before, start_s = len(reader.lists), time.monotonic()
            view.set("a", healthy=not view.devices["a"].healthy)
            await reader.count(before + 1)
            took_s = reader.at_s[before] - start_s
            left -= 1
            if took_s < LIST_GAP_S * 0.8 or not left:
                break
        for number in range(100):
            view.set("b", healthy=number % 2 == 0)
            await asyncio.sleep(0.001)
        last = {one: "Healthy" if view.devices[one].healthy else "Unhealthy" for one in ("a", "b")}
        await eventually(lambda: reader.lists[-1] == last, "the newest list")
        burst_s = time.monotonic() - start_s
        print(f"first change after {took_s * 1000:.1f} ms; 101 changes in {burst_s:.2f} s: {len(reader.lists)} lists")
        assert took_s < LIST_GAP_S * 0.8
        assert len(reader.lists) - before <= 2 + burst_s / LIST_GAP_S
        # By the times of sending: a reader that was held up takes two at once.
        gaps = [later[0] - earlier[1] for earlier, later in itertools.pairwise(sent[before:])]
        assert min(gaps) > LIST_GAP_S * 0.5
        reader.call.cancel()
        await asyncio.wait([reader.task])

    play(tmp_path, view, work)


def test_list_an_allocate_was_refused_by_goes_out_though_overtaken(tmp_path: Path) -> None:
    """A device Unhealthy for a moment, inside the gap: the kubelet that was refused by it sees it Unhealthy."""
    view = MemoryView()

    async def work(_: PluginServer, stub: "Stub") -> None:
        reader = Reader(stub)
        await reader.count(1)
        view.set("a", healthy=True, numa_node=0)
        await reader.count(2)
        view.set("b", healthy=False)  # within the gap: would wait, and then be undone
        request = pb.AllocateRequest(container_requests=[pb.ContainerAllocateRequest(devices_ids=["b"])])
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Allocate(request)
        view.set("b", healthy=True)
        await reader.count(4)
        assert [one["b"] for one in reader.lists] == ["Healthy", "Healthy", "Unhealthy", "Healthy"]
        reader.call.cancel()
        await asyncio.wait([reader.task])

    play(tmp_path, view, work)


def test_stream_ends_in_order_when_the_server_stops(tmp_path: Path) -> None:
    """Stop ends an idle stream with status OK, at once, and the view has no subscriber left."""
    view = MemoryView()

    async def work(server: PluginServer, stub: "Stub") -> None:
        reader = Reader(stub)
        await reader.count(1)
        start_s = time.monotonic()
        await server.stop(20.0)
        assert time.monotonic() - start_s < 10.0
        assert await reader.call.code() is grpc.StatusCode.OK
        await reader.task
        assert server.plugin.streams_open == 0

    play(tmp_path, view, work)
    assert view.subscribers == []


def test_stream_of_a_gone_peer_leaves_nothing(tmp_path: Path) -> None:
    """Fifty peers that cancel, some while a list is written, leave no open stream and no task behind."""
    view = MemoryView()

    async def work(server: PluginServer, stub: "Stub") -> None:
        await stub.GetDevicePluginOptions(pb.Empty())
        before = len(asyncio.all_tasks())
        for number in range(50):
            call = stub.ListAndWatch(pb.Empty())
            if number % 2:
                await call.read()
            view.set("a", healthy=number % 2 == 0)
            call.cancel()
        await eventually(lambda: server.plugin.streams_opened >= 25, "streams were opened")
        await eventually(lambda: server.plugin.streams_open == 0, "all streams are closed")
        await eventually(lambda: len(asyncio.all_tasks()) <= before, "no task is left")

    play(tmp_path, view, work)


def test_list_over_the_kubelets_limit_is_not_sent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Past 4 MiB nothing is sent, one error tells the size and the remedy, and a short list flows again."""
    view = MemoryView()

    async def work(server: PluginServer, stub: "Stub") -> None:
        reader = Reader(stub)
        await reader.count(1)
        small = view.devices
        many = (f"{number:063d}" for number in range(MAX_LIST_BYTES // 70))
        view.devices = {one: Offered(one, healthy=True) for one in many}
        view.tell()
        await eventually(lambda: server.plugin.list_error != "", "the error is noted")
        view.tell()
        await quiet()
        assert len(reader.lists) == 1
        view.devices = {"a": small["a"]}
        view.tell()
        await reader.count(2)
        assert server.plugin.list_error == ""
        assert reader.lists[1] == {"a": "Healthy"}
        reader.call.cancel()
        await asyncio.wait([reader.task])

    play(tmp_path, view, work)
    errors = [one.getMessage() for one in caplog.records if one.levelname == "ERROR"]
    assert len(errors) == 1
    assert "4194304" in errors[0]
    assert "offer fewer devices" in errors[0]


def test_5000_devices_fit(tmp_path: Path) -> None:
    """A list of 5,000 devices with the longest ids arrives whole."""
    view = MemoryView(ids=tuple(f"{number:063d}" for number in range(5000)))

    async def work(_: PluginServer, stub: "Stub") -> None:
        message = await stub.ListAndWatch(pb.Empty()).read()
        assert isinstance(message, pb.ListAndWatchResponse)
        assert len(message.devices) == 5000

    play(tmp_path, view, work)
