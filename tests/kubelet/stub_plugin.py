"""What the stub kubelet's own tests share: a plugin of a few lines, whose every answer the test sets, and a server."""

# ruff: noqa: N802, D102 - the servicers' methods bear gRPC's names, and proto/ describes them

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from devd.daemon.demo.kubelet import KubeletTiming, StubKubelet
from devd.proto.gen import deviceplugin_pb2 as pb
from devd.proto.gen import deviceplugin_pb2_grpc as rpc
from devd.proto.gen import pluginregistration_pb2 as watcher_pb
from devd.proto.gen import pluginregistration_pb2_grpc as watcher_rpc

RESOURCE = "devd.io/tiny"
DEADLINE_S = 10.0
"""How long a test waits for what must come; only used up when something is broken."""
QUIET_S = 0.3
"""How long a test watches for what must not come: several periods of anything the kubelet does by itself."""
WIRE_ROUNDING = 1.02
"""gRPC's core rounds the deadline up in the header; the calling side keeps the exact one."""
FAST = KubeletTiming(dial_s=1.0, get_info_s=0.2, notify_s=0.2, reconcile_s=0.03, retry_s=0.03, retry_max_s=0.06)

Context = grpc.aio.ServicerContext[Any, Any]


class Refused(Exception):  # noqa: N818 - it is an answer, told in the plugin's words
    """Planted in a plugin's answer: the call fails with this text."""


class TinyPlugin(rpc.DevicePluginServicer):
    """Answers as the test says. ``gate`` holds back every call but the stream, while it is clear."""

    def __init__(self, *, pre_start: bool = True, preferred: bool = False) -> None:
        self.options = pb.DevicePluginOptions(
            pre_start_required=pre_start, get_preferred_allocation_available=preferred
        )
        self.gate = asyncio.Event()
        self.gate.set()
        self.current: list[pb.Device] | None = None
        self.streams: list[asyncio.Queue[list[pb.Device] | None]] = []
        self.streams_opened = 0
        self.calls: list[str] = []
        self.available: list[list[str]] = []
        self.must_include: list[list[str]] = []
        self.allocated: list[list[str]] = []
        self.pre_started: list[list[str]] = []
        self.remaining_s: list[float | None] = []
        self.cancelled: list[str] = []
        self.refuse = ""
        self.prefer: Callable[[pb.ContainerPreferredAllocationRequest], list[str]] = lambda _: []
        self.response = pb.AllocateResponse(container_responses=[pb.ContainerAllocateResponse(envs={"A": "1"})])

    def send(self, devices: dict[str, str] | list[pb.Device]) -> None:
        """Send a list on every stream, and on those to come: health by id, or the messages themselves."""
        if isinstance(devices, dict):
            devices = [pb.Device(ID=one, health=health) for one, health in devices.items()]
        self.current = devices
        for stream in self.streams:
            stream.put_nowait(devices)

    def end_stream(self, number: int = 0) -> None:
        """End one stream, the oldest first, from the plugin's side."""
        self.streams[number].put_nowait(None)

    async def GetDevicePluginOptions(self, request: pb.Empty, context: Context) -> pb.DevicePluginOptions:  # noqa: ARG002
        await self._called("options", context)
        return self.options

    async def ListAndWatch(self, request: pb.Empty, context: Context) -> AsyncIterator[pb.ListAndWatchResponse]:  # noqa: ARG002
        queue: asyncio.Queue[list[pb.Device] | None] = asyncio.Queue()
        if self.current is not None:
            queue.put_nowait(self.current)
        self.streams.append(queue)
        self.streams_opened += 1
        try:
            while (devices := await queue.get()) is not None:
                yield pb.ListAndWatchResponse(devices=devices)
        finally:
            self.streams.remove(queue)

    async def GetPreferredAllocation(
        self, request: pb.PreferredAllocationRequest, context: Context
    ) -> pb.PreferredAllocationResponse:
        asked = request.container_requests[0]
        self.available.append(list(asked.available_deviceIDs))
        self.must_include.append(list(asked.must_include_deviceIDs))
        await self._called("preferred", context)
        answer = pb.ContainerPreferredAllocationResponse(deviceIDs=self.prefer(asked))
        return pb.PreferredAllocationResponse(container_responses=[answer])

    async def Allocate(self, request: pb.AllocateRequest, context: Context) -> pb.AllocateResponse:
        self.allocated.append(list(request.container_requests[0].devices_ids))
        await self._called("allocate", context)
        return self.response

    async def PreStartContainer(
        self, request: pb.PreStartContainerRequest, context: Context
    ) -> pb.PreStartContainerResponse:
        self.pre_started.append(list(request.devices_ids))
        await self._called("pre-start", context)
        return pb.PreStartContainerResponse()

    async def _called(self, name: str, context: Context) -> None:
        self.calls.append(name)
        self.remaining_s.append(context.time_remaining())
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        if self.refuse:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, self.refuse)


class TinyRegistrar(watcher_rpc.RegistrationServicer):
    """The plugin watcher's side of a plugin."""

    def __init__(self, info: watcher_pb.PluginInfo | None = None) -> None:
        self.info = info or watcher_pb.PluginInfo(type="DevicePlugin", name=RESOURCE, supported_versions=["v1beta1"])
        self.gate = asyncio.Event()
        self.gate.set()
        self.notify_gate = asyncio.Event()
        self.notify_gate.set()
        self.asked = 0
        self.remaining_s: list[float | None] = []
        self.told: list[tuple[bool, str]] = []

    async def GetInfo(self, request: watcher_pb.InfoRequest, context: Context) -> watcher_pb.PluginInfo:  # noqa: ARG002
        self.asked += 1
        self.remaining_s.append(context.time_remaining())
        await self.gate.wait()
        return self.info

    async def NotifyRegistrationStatus(
        self, request: watcher_pb.RegistrationStatus, context: Context
    ) -> watcher_pb.RegistrationStatusResponse:
        self.told.append((request.plugin_registered, request.error))
        self.remaining_s.append(context.time_remaining())
        await self.notify_gate.wait()
        return watcher_pb.RegistrationStatusResponse()


@asynccontextmanager
async def running(tmp_path: Path, timing: KubeletTiming = FAST, **more: Any) -> AsyncIterator[StubKubelet]:
    """Run a stub kubelet in a directory of the test."""
    kubelet = StubKubelet(tmp_path / "dp", timing=timing, **more)
    await kubelet.start()
    try:
        yield kubelet
    finally:
        await kubelet.stop()


@asynccontextmanager
async def serving(
    plugin: TinyPlugin | None, path: Path, registrar: TinyRegistrar | None = None
) -> AsyncIterator[grpc.aio.Server]:
    """Serve the tiny plugin (and its registrar) on a socket. gRPC removes the file at the end."""
    server = grpc.aio.server()
    if plugin is not None:
        rpc.add_DevicePluginServicer_to_server(plugin, server)
    if registrar is not None:
        watcher_rpc.add_RegistrationServicer_to_server(registrar, server)
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    try:
        yield server
    finally:
        await server.stop(None)


async def register(kubelet: StubKubelet, endpoint: str, resource: str = RESOURCE, **more: Any) -> None:
    """Send one Register, as a plugin does. Raises grpc.aio.AioRpcError."""
    timeout_s = more.pop("timeout_s", DEADLINE_S)
    request = pb.RegisterRequest(version="v1beta1", endpoint=endpoint, resource_name=resource)
    for name, value in more.items():
        field = getattr(request, name)
        if isinstance(field, str):
            setattr(request, name, value)
        else:
            field.CopyFrom(value)
    options = (("grpc.use_local_subchannel_pool", 1),)
    async with grpc.aio.insecure_channel(f"unix:{kubelet.socket_path}", options=options) as channel:
        await rpc.RegistrationStub(channel).Register(request, timeout=timeout_s)


@asynccontextmanager
async def registered(
    kubelet: StubKubelet, plugin: TinyPlugin, devices: dict[str, str], resource: str = RESOURCE, endpoint: str = "p"
) -> AsyncIterator[grpc.aio.Server]:
    """Serve, register, send the first list and wait until the kubelet has it."""
    plugin.send(devices)
    async with serving(plugin, kubelet.plugin_dir / endpoint) as server:
        await register(kubelet, endpoint, resource)
        await has(kubelet, devices, resource)
        yield server


async def has(kubelet: StubKubelet, health: dict[str, str], resource: str = RESOURCE) -> None:
    """Wait until the kubelet sees exactly these devices with this health."""
    await kubelet.wait_for(
        lambda: resource in kubelet.resources and kubelet.resources[resource].health == health, DEADLINE_S, f"{health}"
    )


async def streams(kubelet: StubKubelet, count: int, resource: str = RESOURCE) -> None:
    """Wait until so many streams of the resource are open, trapped ones included."""
    await kubelet.wait_for(
        lambda: resource in kubelet.resources and kubelet.resources[resource].streams_open == count,
        DEADLINE_S,
        f"{count} streams",
    )


async def never(kubelet: StubKubelet, condition: Callable[[], bool]) -> bool:
    """Return whether the condition stayed false for a while."""
    try:
        await kubelet.wait_for(condition, QUIET_S)
    except TimeoutError:
        return True
    return False


async def eventually(condition: Callable[[], bool], what: str) -> None:
    """Poll until something outside the kubelet holds. Fails the test by name when the time is up."""
    end_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end_s, f"not within {DEADLINE_S:g} s: {what}"
        await asyncio.sleep(0.002)
