"""Socket mode: announce a serving plugin by Register on kubelet.sock, and see when that has to be done anew.

A registration lives as long as its ListAndWatch stream. It is over, and the socket has to be made anew before the next
one, when the stream ends, the kubelet.sock becomes another one, or our own socket is lost. Two traps shape this: a
Register while an old stream lives (the kubelet later drops the NEW client with the old one), and one for an endpoint
that does not serve (the kubelet forgets the client it has).
"""

import asyncio
import re
from functools import partial
from pathlib import Path

import grpc

from devd.daemon.endpoint_state import Backoff, Mode, StatusBoard, Timing, Waker
from devd.daemon.errors import RegistrationError
from devd.daemon.kubelet_watch import KUBELET_SOCKET, FileIdentity, KubeletWatch
from devd.daemon.plugin_server import CHANNEL_OPTIONS, AddServicer, PluginServer, grpc_address
from devd.daemon.plugin_wire import one_line
from devd.proto.gen import deviceplugin_pb2 as pb
from devd.proto.gen import deviceplugin_pb2_grpc as rpc

API_VERSION = "v1beta1"
SHORT_S = 0.5
"""An attempt shorter than this does not show in the status: "waiting for kubelet" keeps its time."""
_PERMANENT = re.compile(
    r"not supported by kubelet|not among plugin supported versions|the ResourceName .* is invalid", re.DOTALL
)
"""The kubelet's words for a wrong version or resource name (devicemanager/plugin/v1beta1): no retry cures them."""


class KubeletSilentError(RegistrationError):
    """Raised when a kubelet took a Register and did not answer in time: it may still act on it, later."""

    def __init__(self, text: str) -> None:
        super().__init__(text, permanent=False)


class KubeletAbsentError(RegistrationError):
    """Raised when nobody listens on kubelet.sock; the file of a kubelet that is down may well be there."""

    def __init__(self, text: str) -> None:
        super().__init__(text, permanent=False)


def is_permanent(text: str) -> bool:
    """Return whether a kubelet's refusal can only be cured by another configuration."""
    return _PERMANENT.search(text) is not None


async def register(directory: Path, endpoint: str, resource: str, timeout_s: float) -> None:
    """Send one Register. Raises KubeletAbsentError, or RegistrationError with what the kubelet said."""
    request = pb.RegisterRequest(version=API_VERSION, endpoint=endpoint, resource_name=resource)
    kubelet = directory / KUBELET_SOCKET
    async with grpc.aio.insecure_channel(grpc_address(kubelet), options=CHANNEL_OPTIONS) as channel:
        try:
            await rpc.RegistrationStub(channel).Register(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise _explained(kubelet, error, timeout_s) from error


def _explained(kubelet: Path, error: grpc.aio.AioRpcError, timeout_s: float) -> RegistrationError:
    text = one_line(error.details() or "no text")
    match error.code():
        case grpc.StatusCode.UNAVAILABLE:
            return KubeletAbsentError(f"{kubelet}: no kubelet answers: {text}")
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return KubeletSilentError(f"{kubelet}: no answer to Register within {timeout_s:g} s")
        case grpc.StatusCode.UNKNOWN:
            return RegistrationError(f"the kubelet refused: {text}", permanent=is_permanent(text))
        case code:
            return RegistrationError(f"{kubelet}: Register failed: {code.name}: {text}", permanent=False)


class SocketRegistration:
    """Keeps one resource registered through kubelet.sock."""

    mode: Mode = "socket"

    def __init__(self, resource: str, watch: KubeletWatch, board: StatusBoard, waker: Waker, timing: Timing) -> None:
        self._resource = resource
        self._watch = watch
        self._board = board
        self._waker = waker
        self._timing = timing
        self._backoff = Backoff(timing)
        self._kubelet: FileIdentity | None = None
        self.in_contact = False
        """Whether the kubelet may hold, or be about to make, a client for the socket that ``hold`` was given last."""
        self._doubtful = False
        """A Register of ours went unanswered: the kubelet may take it up yet, beside the next one."""

    def services(self) -> tuple[AddServicer, ...]:
        """Return what is served beside the plugin: nothing."""
        return ()

    async def hold(self, server: PluginServer) -> None:
        """Register the serving plugin and stay until its socket has to be made anew."""
        self.in_contact = False
        await server.check(self._timing.self_check_s)
        # A socket that the kubelet ever opened a stream on is never registered again.
        while not server.lost and not server.plugin.streams_opened:
            if await self._registered(server):
                await self._stay(server)
                return

    # ---- steps ------------------------------------------------------------------------------------------------------

    async def _registered(self, server: PluginServer) -> bool:
        """Try once; return whether the kubelet accepted. A failed try has waited for its time when it returns."""
        self._meet(self._watch.kubelet)
        if self._kubelet is None:
            self._board.enter("waiting for kubelet", f"{self._watch.directory / KUBELET_SOCKET} is not there")
            await self._waker.until(lambda: server.lost or self._kubelet_is_new(), self._timing.backoff_max_s)
            return False
        attempt = asyncio.ensure_future(
            register(self._watch.directory, server.path.name, self._resource, self._timing.register_s)
        )
        attempt.add_done_callback(lambda _: self._waker.wake())
        self.in_contact = True
        try:
            over = partial(self._attempt_over, attempt, server)
            if not await self._waker.until(over, SHORT_S):
                self._board.enter("registering", self._board.status.last_error)
                await self._waker.until(over, None)
            if not attempt.done():  # whoever was asked is gone, or what was offered
                return False
            attempt.result()
        except RegistrationError as error:
            await self._wait_out(error, server)
            return False
        finally:
            await _ended(attempt)
        self._board.registered()
        return True

    def _attempt_over(self, attempt: asyncio.Task[None], server: PluginServer) -> bool:
        return attempt.done() or server.lost or self._kubelet_is_new()

    async def _wait_out(self, error: RegistrationError, server: PluginServer) -> None:
        if isinstance(error, KubeletAbsentError):
            self._board.enter("waiting for kubelet", str(error))
        elif error.permanent:
            self._board.enter(
                "refused", f"{error} (correct the configuration; tried again every {self._timing.refused_s:g} s)"
            )
        else:
            self._board.enter("registering", str(error))
        silent = isinstance(error, KubeletSilentError)
        self._doubtful |= silent
        self.in_contact = silent or self._doubtful
        pause_s = self._timing.refused_s if error.permanent else self._backoff.next_s()
        plugin = server.plugin
        await self._waker.until(lambda: plugin.streams_opened > 0 or server.lost or self._kubelet_is_new(), pause_s)

    async def _stay(self, server: PluginServer) -> None:
        """Return when the registration is over: at once after a success, after a pause when it brought nothing."""
        plugin, loop = server.plugin, asyncio.get_running_loop()
        if not await self._waker.until(
            lambda: plugin.streams_opened > 0 or server.lost or self._kubelet_is_new(), self._timing.stream_s
        ):
            self._board.enter("registering", f"the kubelet opened no ListAndWatch in {self._timing.stream_s:g} s")
            await self._pause(server, self._backoff.next_s())
            return
        since_s = loop.time()
        await self._waker.until(lambda: not plugin.streams_open or self._must_leave(server), None)
        if loop.time() - since_s >= self._timing.steady_s:
            self._backoff.reset()
        if not plugin.streams_open:
            self._board.enter("registering", "the kubelet ended the ListAndWatch stream")
            await self._pause(server, self._backoff.next_s())

    def _must_leave(self, server: PluginServer) -> bool:
        """Return whether living streams have to be given up for a new registration.

        Two streams after an unanswered Register are two registrations: the end of either would take both. One clean
        registration has to take their place.

        Our socket alone being lost is no reason while there is no kubelet.sock to register through again: the kubelet
        behind the stream is still served by it.
        """
        if self._doubtful and server.plugin.streams_open > 1:
            self._doubtful = False
            return True
        return self._kubelet_is_new() or (server.lost and self._watch.kubelet is not None)

    async def _pause(self, server: PluginServer, pause_s: float) -> None:
        await self._waker.until(lambda: server.lost or self._kubelet_is_new(), pause_s)

    # ---- who the kubelet is -----------------------------------------------------------------------------------------

    def _meet(self, kubelet: FileIdentity | None) -> None:
        if self._kubelet_is_new():
            self._backoff.reset()
        self._kubelet = kubelet

    def _kubelet_is_new(self) -> bool:
        """Return whether kubelet.sock is another one than we last turned to; its mere absence tells nothing."""
        return self._watch.kubelet is not None and self._watch.kubelet != self._kubelet


async def _ended(attempt: asyncio.Task[None]) -> None:
    attempt.cancel()
    await asyncio.wait([attempt])
    if not attempt.cancelled():
        attempt.exception()  # seen: nobody needs it any more
