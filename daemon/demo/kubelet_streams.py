"""The stub kubelet's connections to plugins: dialling, options, and the one ListAndWatch stream of each registration.

Clients are kept by resource name alone, as the real kubelet does, with what follows from it: a stream that ends
disconnects whichever client has its name by then, and a registration that fails takes away the one that was there.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import grpc

from devd.daemon.demo.kubelet_rules import (
    MAX_MESSAGE_BYTES,
    Behaviour,
    KubeletTiming,
    RegistrationRefusedError,
    go_error,
)
from devd.daemon.demo.kubelet_state import Bell, DeviceBook, Endpoint, Log, Options
from devd.proto.gen import deviceplugin_pb2 as pb
from devd.proto.gen import deviceplugin_pb2_grpc as rpc

_CHANNEL_OPTIONS = (
    ("grpc.default_authority", "localhost"),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    # A dial is a new connection: without this, channels of one process to one path share theirs.
    ("grpc.use_local_subchannel_pool", 1),
)

LEAST_LOOK_S = 0.001
"""Shortest pause between two looks at a connection that is being made; it grows with the time waited."""
MOST_LOOK_S = 0.02
LOOKS = 20
"""A look comes at the latest when this fraction of the time waited so far has passed again."""

DIAL_FAILED = "failed to dial device plugin: context deadline exceeded"
CONNECTION_CLOSED = "rpc error: code = Canceled desc = grpc: the client connection is closing"


def grpc_address(path: Path) -> str:
    """Return gRPC's name of a socket path, which it reads as part of an URI."""
    return f"unix:{quote(os.fspath(path))}"


async def dial(path: Path, timeout_s: float) -> grpc.aio.Channel:
    """Connect to a unix socket, trying again until the time is up. Raises TimeoutError. The caller closes it.

    The state is looked at again and again on purpose: gRPC's own wait for it must not be cancelled, its core then
    writes into memory that is freed.
    """
    channel = grpc.aio.insecure_channel(grpc_address(path), options=_CHANNEL_OPTIONS)
    start_s = time.monotonic()
    try:
        while channel.get_state(try_to_connect=True) is not grpc.ChannelConnectivity.READY:
            waited_s = time.monotonic() - start_s
            if waited_s > timeout_s:
                raise TimeoutError  # noqa: TRY301 - the channel is closed below, for whatever reason it fails
            await asyncio.sleep(min(max(waited_s / LOOKS, LEAST_LOOK_S), MOST_LOOK_S))
    except BaseException:
        await channel.close()
        raise
    return channel


@asynccontextmanager
async def dialled(path: Path, timeout_s: float) -> AsyncIterator[grpc.aio.Channel]:
    """Connect as ``dial`` does, and close the connection at the end."""
    channel = await dial(path, timeout_s)
    try:
        yield channel
    finally:
        await channel.close()


class Tasks:
    """Tasks that go on by themselves, held until they end or are ended."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[None, None, None]) -> "asyncio.Task[None]":
        """Start one and hold it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Cancel all and wait until they are gone."""
        while self._tasks:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


class PluginClient:
    """One registration's connection. It belongs to one ``connect``, ``run`` and ``close``, in this order."""

    def __init__(self, name: str, path: Path, number: int) -> None:
        self.name = name
        self.path = path
        self.number = number
        """Counts the kubelet's registrations; stands in each list its stream receives."""
        self.stub: rpc.DevicePluginAsyncStub | None = None
        self._channel: grpc.aio.Channel | None = None
        self._call: grpc.aio.UnaryStreamCall[pb.Empty, pb.ListAndWatchResponse] | None = None

    async def connect(self, dial_s: float) -> Options:
        """Dial and ask for the options, which has no deadline. Raises RegistrationRefusedError."""
        try:
            self._channel = await dial(self.path, dial_s)
        except TimeoutError:
            raise RegistrationRefusedError(DIAL_FAILED) from None
        self.stub = rpc.DevicePluginStub(self._channel)
        try:
            answer = await self.stub.GetDevicePluginOptions(pb.Empty())
        except grpc.aio.AioRpcError as error:
            raise RegistrationRefusedError(f"failed to get device plugin options: {go_error(error)}") from error
        except asyncio.CancelledError:
            if _we_are_cancelled():
                raise
            raise RegistrationRefusedError(f"failed to get device plugin options: {CONNECTION_CLOSED}") from None
        return Options(answer.pre_start_required, answer.get_preferred_allocation_available)

    async def run(self, received: Callable[[pb.ListAndWatchResponse], None]) -> str:
        """Read the stream to its end, whatever ends it; return why it ended."""
        if self.stub is None or self._channel is None:
            return CONNECTION_CLOSED
        try:
            call = self._call = self.stub.ListAndWatch(pb.Empty())
            async for response in call:
                received(response)
        except grpc.aio.AioRpcError as error:
            return go_error(error)
        except asyncio.CancelledError:
            if _we_are_cancelled():
                raise
            return "the kubelet ended it"
        finally:
            self.cancel_stream()
        return "the plugin ended it"

    def cancel_stream(self) -> None:
        """End the stream from the kubelet's side; the connection stays."""
        if self._call is not None:
            self._call.cancel()

    async def close(self) -> None:
        """Close the connection; a stream on it ends. More than once is fine."""
        self.cancel_stream()
        channel, self._channel, self.stub = self._channel, None, None
        if channel is not None:
            await channel.close()


def _we_are_cancelled() -> bool:
    """Tell a cancelled task from a call that was cancelled under it: gRPC raises the same for both."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class ClientTable:
    """The plugins that count, one a resource name, and the streams of all, those that count no more included."""

    def __init__(self, book: DeviceBook, bell: Bell, log: Log, timing: KubeletTiming) -> None:
        self.behaviour = Behaviour()
        self._book = book
        self._bell = bell
        self._log = log
        self._timing = timing
        self._clients: dict[str, PluginClient] = {}
        self._all: set[PluginClient] = set()
        self._tasks = Tasks()
        self._count = 0

    async def connect(self, name: str, path: Path) -> None:
        """Take in the plugin that serves on the path; return when it counts. Raises RegistrationRefusedError.

        Goes on when the caller is cancelled: a plugin that gives up waiting is taken in all the same.
        """
        task = self._tasks.spawn(self._connect(name, path))
        # Nobody may be left to hear of a refusal.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait([task])
        task.result()

    async def disconnect(self, name: str) -> None:
        """Let go of the plugin that has the name now, if there is one."""
        client = self._clients.pop(name, None)
        if client is not None:
            self._book.disconnected(name)
            await client.close()

    def cancel_streams(self, name: str | None = None) -> None:
        """End the streams (of one resource, or all) from the kubelet's side."""
        for client in list(self._all):
            if name in {None, client.name}:
                client.cancel_stream()

    async def close(self) -> None:
        """End every stream and connection, as the kubelet's death does."""
        await self._tasks.close()
        for name in list(self._clients):
            await self.disconnect(name)
        for client in list(self._all):
            await client.close()
        self._all.clear()

    # ---- one registration -------------------------------------------------------------------------------------------

    async def _connect(self, name: str, path: Path) -> None:
        await self._misbehave()
        self._note_live_stream(name)
        self._count += 1
        client = PluginClient(name, path, self._count)
        self._all.add(client)
        # By name, and before it is known to answer: whoever was there counts no more.
        self._clients[name] = client
        try:
            options = await self._dial_back(client)
        except BaseException as error:
            self._log(f"{name}: registration of {path} failed: {error}")
            self._clients.pop(name, None)
            self._all.discard(client)
            await client.close()
            raise
        self._book.connected(name, Endpoint(path, options, client.stub))
        self._tasks.spawn(self._run(client))

    async def _run(self, client: PluginClient) -> None:
        await self._until(lambda behaviour: not behaviour.stream_hang)
        name = client.name
        self._book.stream_opened(name)
        why = "the kubelet is gone"
        try:
            why = await client.run(lambda response: self._book.received(name, response, client.number))
        finally:
            self._book.stream_ended(name, why)
        # Whoever has the name by now is let go, this one or a later one; nobody, when the name is free.
        await self.disconnect(name)
        await client.close()
        self._all.discard(client)

    async def _dial_back(self, client: PluginClient) -> Options:
        if not self.behaviour.dial_back:
            await asyncio.sleep(self._timing.dial_s)
            raise RegistrationRefusedError(DIAL_FAILED)
        options = await client.connect(self._timing.dial_s)
        await self._until(lambda behaviour: not behaviour.options_hang)
        if client.stub is None:
            raise RegistrationRefusedError(f"failed to get device plugin options: {CONNECTION_CLOSED}")
        return options

    async def _misbehave(self) -> None:
        await self._until(lambda behaviour: not behaviour.register_hang)
        await asyncio.sleep(self.behaviour.register_delay_s)
        if self.behaviour.register_error:
            raise RegistrationRefusedError(self.behaviour.register_error)

    async def _until(self, condition: Callable[[Behaviour], bool]) -> None:
        await self._bell.until(lambda: condition(self.behaviour), None)

    def _note_live_stream(self, name: str) -> None:
        state = self._book.resources.get(name)
        if state is not None and state.streams_open:
            self._book.violation(f"{name}: registered again while the stream of the earlier registration is open")
