"""The stub kubelet's plugin watcher: sockets below plugins_registry are asked, registered, told, and let go.

As in the real one, a list of sockets that should be registered follows the directory's events, a second one tells
which are, and a loop brings the second in line with the first. A stream that ends changes neither list, and neither
does a registration that fails at its last step: only a socket made anew comes back.
"""

import asyncio
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc

from devd.daemon.demo.kubelet_rules import (
    API_VERSION,
    KubeletTiming,
    RegistrationRefusedError,
    check_resource_name,
    go_error,
)
from devd.daemon.demo.kubelet_state import Log
from devd.daemon.demo.kubelet_streams import ClientTable, Tasks, dialled
from devd.ipc.inotify import IN_CREATE, IN_DELETE, IN_IGNORED, IN_MOVED_TO, IN_ONLYDIR, Inotify
from devd.proto.gen import pluginregistration_pb2 as pb
from devd.proto.gen import pluginregistration_pb2_grpc as rpc

PLUGIN_TYPE = "DevicePlugin"
_MASK = IN_CREATE | IN_MOVED_TO | IN_DELETE | IN_ONLYDIR


@dataclass(frozen=True, slots=True)
class _Registered:
    stamp: int
    name: str


@dataclass(slots=True)
class _Retry:
    not_before_s: float
    pause_s: float


class PluginRegistry:
    """Watches one directory from ``start`` to ``close``. Never removes anything in it."""

    def __init__(self, directory: Path, clients: ClientTable, timing: KubeletTiming, log: Log) -> None:
        self.paused: Callable[[], bool] = lambda: False
        self._directory = directory
        self._clients = clients
        self._timing = timing
        self._log = log
        self._stamp = 0
        self._desired: dict[Path, int] = {}
        self._actual: dict[Path, _Registered] = {}
        self._retries: dict[Path, _Retry] = {}
        self._pending: set[Path] = set()
        self._watched: dict[int, Path] = {}
        self._inotify: Inotify | None = None
        self._tasks = Tasks()

    def start(self) -> None:
        """Make the directory where it is missing, look through it and watch it."""
        self._directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._inotify = Inotify()
        asyncio.get_running_loop().add_reader(self._inotify.fd, self._readable)
        self._traverse(self._directory)
        self._tasks.spawn(self._loop())

    async def close(self) -> None:
        """End the watch; forget everything, as the kubelet's death does."""
        if self._inotify is not None:
            asyncio.get_running_loop().remove_reader(self._inotify.fd)
            self._inotify.close()
            self._inotify = None
        await self._tasks.close()
        for memory in (self._desired, self._actual, self._retries, self._watched):
            memory.clear()
        self._pending.clear()

    # ---- what should be ---------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        if self._inotify is None:
            return
        for event in self._inotify.read():
            if event.mask & IN_IGNORED:
                self._watched.pop(event.wd, None)
            elif event.wd in self._watched:
                path = self._watched[event.wd] / event.name
                if event.mask & IN_DELETE:
                    self._desired.pop(path, None)
                else:
                    self._created(path)

    def _created(self, path: Path) -> None:
        try:
            mode = path.stat().st_mode
        except OSError:
            return  # gone again already
        if path.name.startswith("."):
            return
        if stat.S_ISDIR(mode):
            self._traverse(path)
        elif stat.S_ISSOCK(mode):
            self._stamp += 1
            self._desired[path] = self._stamp

    def _traverse(self, directory: Path) -> None:
        if self._inotify is None:
            return
        for root, _, names in os.walk(directory):
            try:
                self._watched[self._inotify.add(Path(root), _MASK)] = Path(root)
            except FileNotFoundError:
                continue
            for name in names:
                self._created(Path(root, name))

    # ---- what is ----------------------------------------------------------------------------------------------------

    async def _loop(self) -> None:
        while True:
            await asyncio.sleep(self._timing.reconcile_s)
            await self._reconcile()

    async def _reconcile(self) -> None:
        let_go = [path for path, one in self._actual.items() if self._desired.get(path) != one.stamp]
        for path in let_go:
            if path not in self._pending:
                one = self._actual.pop(path)
                self._log(f"{one.name}: {path} is gone or another one")
                await self._clients.disconnect(one.name)
        now_s = asyncio.get_running_loop().time()
        for path, stamp in list(self._desired.items()):
            retry = self._retries.get(path)
            waits = path in self._pending or path in let_go or (retry is not None and now_s < retry.not_before_s)
            if path not in self._actual and not waits:
                self._pending.add(path)
                self._tasks.spawn(self._attempt(path, stamp))

    async def _attempt(self, path: Path, stamp: int) -> None:
        try:
            await self._register(path, stamp)
        except (RegistrationRefusedError, TimeoutError) as error:
            retry = self._retries.get(path)
            pause_s = self._timing.retry_s if retry is None else min(2 * retry.pause_s, self._timing.retry_max_s)
            self._retries[path] = _Retry(asyncio.get_running_loop().time() + pause_s, pause_s)
            self._log(f"{path}: RegisterPlugin error -- {str(error) or 'dial failed'}; again in {pause_s:g} s")
        else:
            self._retries.pop(path, None)
        finally:
            self._pending.discard(path)

    async def _register(self, path: Path, stamp: int) -> None:
        async with dialled(path, self._timing.dial_s) as channel:
            stub = rpc.RegistrationStub(channel)
            try:
                info = await stub.GetInfo(pb.InfoRequest(), timeout=self._timing.get_info_s)
            except grpc.aio.AioRpcError as error:
                text = f"failed to get plugin info using RPC GetInfo at socket {path}, err: {go_error(error)}"
                raise RegistrationRefusedError(text) from error
            try:
                _validate(info, path)
            except RegistrationRefusedError as error:
                await self._notify(stub, path, str(error))
                raise
            # From here on it counts as registered, whatever comes of it: there is no second try for this socket.
            self._actual[path] = _Registered(stamp, info.name)
            try:
                await self._clients.connect(info.name, Path(info.endpoint or path))
            except RegistrationRefusedError as error:
                await self._notify(stub, path, f"plugin registration failed with err: {error}")
                raise
            await self._notify(stub, path, "")

    async def _notify(self, stub: "rpc.RegistrationAsyncStub", path: Path, error: str) -> None:
        """Tell the plugin how it went. Raises RegistrationRefusedError when it does not listen."""
        text = f"RegisterPlugin error -- {error}" if error else ""
        try:
            await stub.NotifyRegistrationStatus(
                pb.RegistrationStatus(plugin_registered=not error, error=text), timeout=self._timing.notify_s
            )
        except grpc.aio.AioRpcError as failed:
            told = f"failed to send registration status at socket {path}, err: {go_error(failed)}"
            raise RegistrationRefusedError(told) from failed


def _validate(info: pb.PluginInfo, path: Path) -> None:
    if info.type != PLUGIN_TYPE:
        raise RegistrationRefusedError(f"no handler registered for plugin type: {info.type} at socket {path}")
    try:
        if API_VERSION not in info.supported_versions:
            versions = " ".join(info.supported_versions)
            text = f"manager version, {API_VERSION}, is not among plugin supported versions [{versions}]"
            raise RegistrationRefusedError(text)  # noqa: TRY301 - both refusals get the same words in front
        check_resource_name(info.name)
    except RegistrationRefusedError as error:
        raise RegistrationRefusedError(f"plugin validation failed with err: {error}") from error
