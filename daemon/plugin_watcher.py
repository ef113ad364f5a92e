"""Watcher mode: the kubelet finds our socket in plugins_registry, asks who we are and tells how it went.

A kubelet that starts finds the socket by itself. But after a refusal, or when a stream ends while the socket stays, it
does not come back: then the socket is made anew.
"""

# ruff: noqa: N802 - the methods bear gRPC's names

import asyncio
from typing import Any

import grpc

from devd.daemon.endpoint_state import Backoff, Mode, StatusBoard, Timing, Waker
from devd.daemon.plugin_server import AddServicer, PluginServer
from devd.daemon.plugin_wire import one_line
from devd.daemon.registration import API_VERSION, is_permanent
from devd.proto.gen import pluginregistration_pb2 as pb
from devd.proto.gen import pluginregistration_pb2_grpc as rpc

PLUGIN_TYPE = "DevicePlugin"

Context = grpc.aio.ServicerContext[Any, Any]


class Registrar(rpc.RegistrationServicer):
    """Answers the kubelet's watcher on one socket, and remembers what it said."""

    def __init__(self, resource: str, waker: Waker) -> None:
        self._resource = resource
        self._waker = waker
        self.asked = 0
        """How often a kubelet asked who is there."""
        self.told = 0
        """How often a kubelet told how it went."""
        self.refused = False
        """Whether its last word was a refusal, for the reason in ``error``."""
        self.error = ""

    async def GetInfo(self, request: pb.InfoRequest, context: Context) -> pb.PluginInfo:  # noqa: ARG002 - gRPC passes it
        """Say who we are; the empty endpoint means this same socket."""
        self.asked += 1
        self._waker.wake()
        return pb.PluginInfo(type=PLUGIN_TYPE, name=self._resource, endpoint="", supported_versions=[API_VERSION])

    async def NotifyRegistrationStatus(
        self,
        request: pb.RegistrationStatus,
        context: Context,  # noqa: ARG002 - gRPC passes it
    ) -> pb.RegistrationStatusResponse:
        """Take note of how the registration went."""
        self.told += 1
        self.refused = not request.plugin_registered
        self.error = one_line(request.error or "no text") if self.refused else ""
        self._waker.wake()
        return pb.RegistrationStatusResponse()


class WatcherRegistration:
    """Keeps one resource registered through the kubelet's plugin watcher."""

    mode: Mode = "watcher"
    in_contact = False
    """Nothing to wait for between two sockets: the kubelet lets go of the old file before it asks at the new one."""

    def __init__(self, resource: str, board: StatusBoard, waker: Waker, timing: Timing) -> None:
        self._resource = resource
        self._board = board
        self._waker = waker
        self._timing = timing
        self._backoff = Backoff(timing)
        self._registrar = Registrar(resource, waker)

    def services(self) -> tuple[AddServicer, ...]:
        """Return the registration service for the next socket."""
        self._registrar = registrar = Registrar(self._resource, self._waker)
        return (lambda server: rpc.add_RegistrationServicer_to_server(registrar, server),)

    async def hold(self, server: PluginServer) -> None:
        """Stay until the socket has to be made anew."""
        registrar, plugin = self._registrar, server.plugin
        self._board.enter("waiting for kubelet", self._board.status.last_error)
        await self._waker.until(lambda: server.lost or registrar.asked > 0, None)
        if server.lost:
            return
        self._board.enter("registering", self._board.status.last_error)
        if not await self._waker.until(
            lambda: server.lost or registrar.told > 0 or plugin.streams_opened > 0,
            self._timing.register_s + self._timing.stream_s,
        ):
            await self._give_up(server, "the kubelet asked who is there, and then neither registered nor refused")
            return
        while registrar.refused and is_permanent(registrar.error) and not server.lost:
            if not await self._told_again(server, registrar):
                return
        if registrar.refused:
            await self._give_up(server, f"the kubelet refused: {registrar.error}")
        elif not server.lost:
            await self._stay(server)

    async def _told_again(self, server: PluginServer, registrar: Registrar) -> bool:
        """Wait for another word: a kubelet may ask again by itself, and one that has started anew does.

        Returns False when none came within ``refused_s``.
        """
        text = f"the kubelet refused: {registrar.error}"
        self._board.enter(
            "refused", f"{text} (correct the configuration; tried again every {self._timing.refused_s:g} s)"
        )
        told = registrar.told
        return await self._waker.until(lambda: server.lost or registrar.told > told, self._timing.refused_s)

    async def _stay(self, server: PluginServer) -> None:
        plugin, loop = server.plugin, asyncio.get_running_loop()
        self._board.registered()
        if not await self._waker.until(lambda: server.lost or plugin.streams_opened > 0, self._timing.stream_s):
            await self._give_up(server, f"the kubelet opened no ListAndWatch in {self._timing.stream_s:g} s")
            return
        since_s = loop.time()
        await self._waker.until(lambda: server.lost or not plugin.streams_open, None)
        if loop.time() - since_s >= self._timing.steady_s:
            self._backoff.reset()
        if not plugin.streams_open:
            await self._give_up(server, "the kubelet ended the ListAndWatch stream")

    async def _give_up(self, server: PluginServer, error: str) -> None:
        self._board.enter("registering", error)
        await self._waker.until(lambda: server.lost, self._backoff.next_s())
