"""One resource's standing with the kubelet: serve, be registered, and do it anew whenever that ends, for ever.

The order is always the same: stop the old server and with it its streams, let the kubelet forget it, serve on a fresh
socket, and only then register.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from devd.daemon.endpoint_state import Backoff, EndpointStatus, KubeletPaths, StatusBoard, Timing, Waker
from devd.daemon.errors import StartupError
from devd.daemon.kubelet_watch import KubeletWatch
from devd.daemon.plugin import Detached, Plugin
from devd.daemon.plugin_server import PluginServer, serve_plugin, socket_path
from devd.daemon.plugin_watcher import WatcherRegistration
from devd.daemon.registration import SocketRegistration
from devd.daemon.resource import ResourceView
from devd.daemon.rpc_times import RpcTimes

DEFAULT_TIMING = Timing()


def endpoint_directory(kubelet: KubeletPaths) -> Path:
    """Return where the sockets go, by the way of registering: the directory to make the one ``KubeletWatch`` of."""
    return kubelet.dir if kubelet.registration == "socket" else kubelet.registry_dir


class ResourceEndpoint:
    """One per resource. ``watch`` is shared by all, started before and closed after them by its owner.

    ``clock`` gives wall time in seconds, for the status alone; ``times`` counts the kubelet's calls. Raises
    StartupError when the directory is too long for a socket's path.
    """

    def __init__(
        self,
        view: ResourceView,
        kubelet: KubeletPaths,
        watch: KubeletWatch,
        *,
        log: logging.Logger,
        clock: Callable[[], float] = time.time,
        timing: Timing = DEFAULT_TIMING,
        times: RpcTimes | None = None,
    ) -> None:
        self._view = view
        self._watch = watch
        self._log = log
        self._timing = timing
        self._times = times
        self._path = socket_path(endpoint_directory(kubelet), view.name)
        self._waker = Waker()
        self._board = StatusBoard(view.name, kubelet.registration, self._path, log, clock)
        self._way: SocketRegistration | WatcherRegistration = (
            SocketRegistration(view.name, watch, self._board, self._waker, timing)
            if kubelet.registration == "socket"
            else WatcherRegistration(view.name, self._board, self._waker, timing)
        )
        self._backoff = Backoff(timing)
        self._detached = Detached(log)
        self._plugin: Plugin | None = None
        self._served = False
        self._stopped = False
        self._task: asyncio.Task[None] | None = None

    @property
    def status(self) -> EndpointStatus:
        """How the resource stands with the kubelet now."""
        status, plugin = self._board.status, self._plugin
        if plugin is None:
            return status
        return replace(status, stream_open=plugin.streams_open > 0, last_error=status.last_error or plugin.list_error)

    @property
    def settled(self) -> bool:
        """Whether the first try is over: the kubelet has the resource, is waited for, or refused it."""
        status = self._board.status
        waits = self._served and status.state == "waiting for kubelet"
        return status.registrations > 0 or bool(status.last_error) or waits

    async def run(self) -> None:
        """Serve and stay registered until ``stop`` or cancelled; leaves no socket, task or descriptor.

        Raises AlreadyRunningError when another live server holds the socket at the first try, StartupError when the
        socket cannot be made at all. Later on the same is noted, logged and tried again.
        """
        if self._stopped:
            return
        if self._task is not None:
            raise RuntimeError(f"{self._view.name}: run was called twice")
        task = self._task = asyncio.create_task(self._live())
        try:
            await asyncio.wait([task])
        finally:
            task.cancel()
            await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    async def stop(self) -> None:
        """End ``run`` and wait until all is gone. More than once is fine."""
        self._stopped = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    # ---- the life of it ---------------------------------------------------------------------------------------------

    async def _live(self) -> None:
        unsubscribe = self._watch.subscribe(self._path.name, self._waker.wake)
        try:
            while True:
                seen, since_s = self._watch.changes, asyncio.get_running_loop().time()
                again_at_once = await self._once()
                if asyncio.get_running_loop().time() - since_s >= self._timing.steady_s:
                    self._backoff.reset()
                if not again_at_once:
                    await self._pause(seen)
        finally:
            unsubscribe()
            await self._detached.cancel()

    async def _once(self) -> bool:
        """Live through one socket; return whether the next may be made at once."""
        server = await self._serve()
        if server is None:
            return False
        try:
            await self._way.hold(server)
            lost = server.lost
        except StartupError as error:
            self._board.enter("serving", str(error))
            lost = True
        finally:
            seen = self._watch.changes
            had_streams = server.plugin.streams_open > 0
            await self._end(server)
        if had_streams or self._way.in_contact:
            await self._settle(seen, had_streams=had_streams)
        return not lost

    async def _settle(self, seen: int, *, had_streams: bool) -> None:
        """Let the kubelet forget the client it had for the last socket; a new kubelet never knew it.

        A kubelet can listen on a new socket without having died; then the streams it had are still open.
        """
        await self._waker.until(
            lambda: not had_streams and self._watch.changes != seen and self._watch.kubelet is not None,
            self._timing.settle_s,
        )

    async def _serve(self) -> PluginServer | None:
        """Serve on a fresh socket; None when that has to be tried again later."""
        plugin = Plugin(self._view, self._detached, self._log, self._waker.wake, self._times)
        server = None
        try:
            server = await serve_plugin(self._path, plugin, self._way.services())
        except FileNotFoundError:
            directory = self._path.parent
            self._board.enter("waiting for kubelet", f"{directory} is not there; the kubelet makes it when it starts")
            return None
        except (StartupError, OSError) as error:
            known = error if isinstance(error, StartupError) else StartupError(f"{self._path}: {error}")
            if not self._served:
                raise known from error
            self._board.enter("serving", str(known))
            return None
        finally:
            if server is None:
                plugin.close()
        self._served = True
        self._plugin = plugin
        self._board.enter("serving", self._board.status.last_error)
        return server

    async def _end(self, server: PluginServer) -> None:
        """Stop the server to the end, even when this task is cancelled meanwhile: it takes ``stop_s`` at most."""
        stopping = asyncio.ensure_future(server.stop(self._timing.stop_s))
        try:
            await asyncio.shield(stopping)
        except asyncio.CancelledError:
            await asyncio.wait([stopping])
            raise

    async def _pause(self, seen: int) -> None:
        """Wait before the next socket, but not past a change in the kubelet's directory since ``seen``."""
        changed = await self._waker.until(lambda: self._watch.changes != seen, self._backoff.next_s())
        if changed:
            self._backoff.reset()
