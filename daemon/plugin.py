"""The DevicePlugin service over one resource's view: argument checks, answers, and the device list's stream.

Nothing here touches a device or waits for one, but PreStartContainer, which waits for the view. A new ``Plugin`` is
made for each socket, so that its streams are those of one registration.
"""

# ruff: noqa: N802 - the methods bear gRPC's names

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

import grpc

from devd.daemon.errors import AllocationRefusedError, PreStartError
from devd.daemon.plugin_wire import (
    BadRequestError,
    check_containers,
    check_ids,
    container_response,
    device_list,
    one_line,
)
from devd.daemon.resource import ResourceView
from devd.daemon.rpc_times import RpcCall, RpcTimes
from devd.proto.gen import deviceplugin_pb2 as pb
from devd.proto.gen import deviceplugin_pb2_grpc as rpc

MAX_LIST_BYTES = 4 * 1024 * 1024
"""The kubelet's receive limit: a longer device list ends the stream."""
LIST_GAP_S = 0.05
"""Least time between two lists on a stream: the kubelet rewrites and fsyncs its checkpoint for each."""
T = TypeVar("T")
Context = grpc.aio.ServicerContext[Any, Any]


class Detached:
    """Tasks that outlive the call that began them; kept here so that none is lost or left behind."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._tasks: set[asyncio.Task[None]] = set()

    def keep(self, task: asyncio.Task[None]) -> None:
        """Hold the task until it ends."""
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def cancel(self) -> None:
        """End what still runs, and wait for it."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Whoever still waits gets it too; this line is for the case that nobody does.
            self._log.debug("pre-start ended: %s", error)


class _Stream:
    """One open ListAndWatch: what it still owes its peer. No queue: the newest list, and one list it must not skip."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self.hurry = asyncio.Event()
        self.owed: pb.ListAndWatchResponse | None = None
        self.sent: bytes | None = None

    def wake(self, owed: pb.ListAndWatchResponse | None = None, *, hurry: bool = False) -> None:
        if owed is not None:
            self.owed = owed
        if hurry:
            self.hurry.set()
        self.changed.set()

    async def rest(self) -> None:
        """Let a burst gather, unless something may not wait."""
        try:
            async with asyncio.timeout(LIST_GAP_S):
                await self.hurry.wait()
        except TimeoutError:
            return


class Plugin(rpc.DevicePluginServicer):
    """Serves one resource on one socket. ``on_streams`` is called whenever a stream opened or ended.

    ``times`` counts the calls: one for all sockets, whoever wants to know.
    """

    def __init__(
        self,
        view: ResourceView,
        detached: Detached,
        log: logging.Logger,
        on_streams: Callable[[], None],
        times: RpcTimes | None = None,
    ) -> None:
        self._view = view
        self._detached = detached
        self._log = log
        self._on_streams = on_streams
        self._times = times if times is not None else RpcTimes()
        self._streams: set[_Stream] = set()
        self._closing = False
        self._oversize = False
        self.streams_opened = 0
        """Streams that ever were opened on this socket."""
        self.list_error = ""
        """Why the current list cannot be sent; empty when it can."""
        self._unsubscribe = view.subscribe(self._list_changed)

    @property
    def streams_open(self) -> int:
        """Streams that are open now."""
        return len(self._streams)

    def close(self) -> None:
        """End all streams in order. More than once is fine."""
        if not self._closing:
            self._closing = True
            self._unsubscribe()
        for stream in self._streams:
            stream.wake(hurry=True)

    # ---- the five calls ---------------------------------------------------------------------------------------------

    async def GetDevicePluginOptions(
        self,
        request: pb.Empty,  # noqa: ARG002 - gRPC passes it
        context: Context,
    ) -> pb.DevicePluginOptions:
        """Answer what the kubelet asks inside Register."""
        with self._times.call("GetDevicePluginOptions") as call:
            return await self._answer(call, context, self._options)

    async def ListAndWatch(  # type: ignore[override]  # grpc.aio takes a coroutine that writes as well, see _feed
        self,
        request: pb.Empty,  # noqa: ARG002 - gRPC passes it
        context: Context,
    ) -> None:
        """Send the list now and after each change, until the peer or the server is gone."""
        stream = _Stream()
        self._streams.add(stream)
        self.streams_opened += 1
        self._on_streams()
        with self._times.call("ListAndWatch", stream=True) as call:
            try:
                await self._feed(stream, context, call)
            except Exception as error:  # noqa: BLE001 - a view's bug must not end the server
                if not context.done():  # else a write met a peer that is gone: the ordinary end
                    await self._fail(call, context, error)
            finally:
                self._streams.discard(stream)
                self._on_streams()

    async def GetPreferredAllocation(
        self, request: pb.PreferredAllocationRequest, context: Context
    ) -> pb.PreferredAllocationResponse:
        """Choose for each container from the table."""
        with self._times.call("GetPreferredAllocation") as call:
            return await self._answer(call, context, lambda: self._preferred(request))

    async def Allocate(self, request: pb.AllocateRequest, context: Context) -> pb.AllocateResponse:
        """Say for each container what it gets, from the table."""
        with self._times.call("Allocate") as call:
            return await self._answer(call, context, lambda: self._allocated(request))

    async def PreStartContainer(
        self, request: pb.PreStartContainerRequest, context: Context
    ) -> pb.PreStartContainerResponse:
        """Wait until the devices are reset and probed. When the kubelet gives up, the reset goes on.

        A later call for the same devices then finds that reset under way, in the view, and joins it.
        """
        ids = list(request.devices_ids)
        with self._times.call("PreStartContainer") as call:
            await self._answer(call, context, lambda: check_ids(ids, "devices_ids"))
            task = asyncio.ensure_future(self._pre_start(sorted(ids)))
            self._detached.keep(task)
            try:
                await asyncio.shield(task)
            except PreStartError as error:
                await self._refuse(context, grpc.StatusCode.FAILED_PRECONDITION, str(error))
            except Exception as error:  # noqa: BLE001 - a view's bug must not end the server
                await self._fail(call, context, error)
        return pb.PreStartContainerResponse()

    # ---- answers ----------------------------------------------------------------------------------------------------

    def _options(self) -> pb.DevicePluginOptions:
        return pb.DevicePluginOptions(
            pre_start_required=self._view.pre_start_required, get_preferred_allocation_available=True
        )

    async def _pre_start(self, ids: Sequence[str]) -> None:
        await self._view.pre_start(ids)

    def _allocated(self, request: pb.AllocateRequest) -> pb.AllocateResponse:
        check_containers(request.container_requests)
        wanted = [list(one.devices_ids) for one in request.container_requests]
        for at, ids in enumerate(wanted):
            check_ids(ids, f"container_requests[{at}].devices_ids")
        check_ids([one for ids in wanted for one in ids], "container_requests")
        try:
            grants = [self._view.allocate(sorted(ids)) for ids in wanted]
        except AllocationRefusedError:
            self._owe_current_list()
            raise
        return pb.AllocateResponse(container_responses=[container_response(one) for one in grants])

    def _preferred(self, request: pb.PreferredAllocationRequest) -> pb.PreferredAllocationResponse:
        check_containers(request.container_requests)
        return pb.PreferredAllocationResponse(
            container_responses=[
                pb.ContainerPreferredAllocationResponse(deviceIDs=self._prefer(one, f"container_requests[{at}]"))
                for at, one in enumerate(request.container_requests)
            ]
        )

    def _prefer(self, request: pb.ContainerPreferredAllocationRequest, where: str) -> list[str]:
        available, must = list(request.available_deviceIDs), list(request.must_include_deviceIDs)
        size = request.allocation_size
        check_ids(available, f"{where}.available_deviceIDs")
        if must:
            check_ids(must, f"{where}.must_include_deviceIDs")
        if strangers := sorted(set(must) - set(available)):
            raise BadRequestError(f"{where}.must_include_deviceIDs: {strangers[0]} is not among the available ids")
        if not max(1, len(must)) <= size <= len(available):
            raise BadRequestError(
                f"{where}.allocation_size: {size} found, {max(1, len(must))} to {len(available)} allowed"
            )
        return self._view.prefer(sorted(available), sorted(must), size)

    async def _answer(self, call: RpcCall, context: Context, work: Callable[[], T]) -> T:
        """Return what ``work`` returns, or end the call with the status its error deserves."""
        try:
            return work()
        except BadRequestError as error:
            await self._refuse(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except AllocationRefusedError as error:
            await self._refuse(context, grpc.StatusCode.FAILED_PRECONDITION, str(error))
        except Exception as error:  # noqa: BLE001 - a view's bug must not end the server
            await self._fail(call, context, error)

    async def _fail(self, call: RpcCall, context: Context, error: Exception) -> NoReturn:
        call.failed()
        self._log.error("%s: %s failed by a bug of devd", self._view.name, call.method, exc_info=error)
        text = f"internal error of devd in {call.method}: {type(error).__name__}: {error}"
        await self._refuse(context, grpc.StatusCode.INTERNAL, text)

    async def _refuse(self, context: Context, code: grpc.StatusCode, text: str) -> NoReturn:
        name = f"{self._view.name}: "
        await context.abort(code, name + one_line(text).removeprefix(name))
        raise AssertionError("abort raises")

    # ---- the list ---------------------------------------------------------------------------------------------------

    def _list_changed(self) -> None:
        for stream in self._streams:
            stream.wake()

    def _owe_current_list(self) -> None:
        """Have the streams send this very list: the kubelet chose by an older one, and would do so again."""
        if (message := self._current_list()) is not None:
            for stream in self._streams:
                stream.wake(message, hurry=True)

    async def _feed(self, stream: _Stream, context: Context, call: RpcCall) -> None:
        # Written by a coroutine, not yielded by a generator: a generator whose call is cancelled between two messages
        # is finished by the garbage collector, some time later; this ends with the call.
        while not self._closing:
            stream.changed.clear()
            stream.hurry.clear()
            owed, stream.owed = stream.owed, None
            wrote = await _send(stream, context, owed)
            wrote |= await _send(stream, context, self._current_list())
            if wrote:
                call.answered()
                await stream.rest()
            await stream.changed.wait()

    def _current_list(self) -> pb.ListAndWatchResponse | None:
        """Return the whole list, or None when the kubelet could not take it."""
        offered = self._view.offered()
        message = device_list(offered)
        size = message.ByteSize()
        if size <= MAX_LIST_BYTES:
            self._note_list("")
            return message
        self._note_list(
            f"the list of {len(offered)} devices takes {size} bytes, the kubelet reads at most {MAX_LIST_BYTES}: "
            "nothing new is sent; offer fewer devices or replicas in this resource, or split it in two"
        )
        return None

    def _note_list(self, error: str) -> None:
        if bool(error) != self._oversize:
            self._oversize = bool(error)
            if error:
                self._log.error("%s: %s", self._view.name, error)
            else:
                self._log.info("%s: the device list is short enough again", self._view.name)
        self.list_error = error


async def _send(stream: _Stream, context: Context, message: pb.ListAndWatchResponse | None) -> bool:
    """Send the list unless it is the one sent last; return whether it was sent."""
    if message is None:
        return False
    frame = message.SerializeToString(deterministic=True)
    if frame == stream.sent:
        return False
    await context.write(message)
    stream.sent = frame
    return True
