"""A kubelet for tests, the demo and measurements: its device manager's sockets and rules, without a node behind them.

It is strict: whatever the real one refuses, ends or forgets, this one does too. What the real one tolerates but a good
plugin does not do is noted in ``violations``.
"""

# ruff: noqa: N802 - the servicer's methods bear gRPC's names

import os
import random
import stat
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc

from devd.daemon.demo.kubelet_pods import Allocation, PodBook, PodResources
from devd.daemon.demo.kubelet_registry import PluginRegistry
from devd.daemon.demo.kubelet_rules import (
    MAX_MESSAGE_BYTES,
    PRE_START_DEADLINE_S,
    AdmissionError,
    Behaviour,
    ContainerStartError,
    KubeletTiming,
    RegistrationRefusedError,
    check_resource_name,
    check_version,
)
from devd.daemon.demo.kubelet_state import (
    Bell,
    DeviceBook,
    DeviceRecord,
    Endpoint,
    Log,
    Options,
    ReceivedList,
    ResourceState,
)
from devd.daemon.demo.kubelet_streams import ClientTable, grpc_address
from devd.proto.gen import deviceplugin_pb2 as pb
from devd.proto.gen import deviceplugin_pb2_grpc as rpc
from devd.proto.gen import podresources_pb2_grpc as resources_rpc

__all__ = [
    "KUBELET_SOCKET",
    "AdmissionError",
    "Allocation",
    "Behaviour",
    "ContainerStartError",
    "DeviceRecord",
    "Endpoint",
    "KubeletTiming",
    "Options",
    "ReceivedList",
    "ResourceState",
    "StubKubelet",
]

KUBELET_SOCKET = "kubelet.sock"
"""Name of the registration socket in the device-plugins directory."""

_SERVER_OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
)
DEFAULT_TIMING = KubeletTiming()


class StubKubelet:
    """One kubelet, which can die and come back. Belongs to one event loop, from ``start`` to ``stop``.

    ``plugin_dir`` is its device-plugins directory; with ``registry_dir`` it also watches for plugins there; with
    ``pod_resources_path`` it serves PodResources on that socket. ``log`` gets one line for each thing that happens.
    ``seed`` fixes the order of ids in calls, which is random otherwise.
    """

    def __init__(
        self,
        plugin_dir: Path,
        registry_dir: Path | None = None,
        pod_resources_path: Path | None = None,
        log: Log | None = None,
        *,
        timing: KubeletTiming = DEFAULT_TIMING,
        seed: int | None = None,
    ) -> None:
        self.plugin_dir = plugin_dir.absolute()
        self.socket_path = self.plugin_dir / KUBELET_SOCKET
        self._pod_resources_path = pod_resources_path
        self._log = log or _silent
        self._bell = Bell()
        self._book = DeviceBook(self._bell, self._log, timing.grace_s)
        self._clients = ClientTable(self._book, self._bell, self._log, timing)
        self._pods = PodBook(self._book, self._log, random.Random(seed))  # noqa: S311 - an order, not a secret
        self._registry = (
            None if registry_dir is None else PluginRegistry(registry_dir.absolute(), self._clients, timing, self._log)
        )
        self._servers: list[grpc.aio.Server] = []

    # ---- its life ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Come up: remove every socket in the plugin directory, but nothing else, and listen on a new kubelet.sock.

        What it knew before comes back as from the checkpoint: pods and their devices, resources without devices.
        """
        if self._servers:
            raise RuntimeError("this kubelet runs already")
        self.plugin_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
        _wipe_sockets(self.plugin_dir)
        self._book.restarted()
        try:
            if self._pod_resources_path is not None:
                self._pod_resources_path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
                self._pod_resources_path.unlink(missing_ok=True)
                service = PodResources(lambda: self._pods.allocations, self._book)
                await self._serve(
                    self._pod_resources_path,
                    lambda server: resources_rpc.add_PodResourcesListerServicer_to_server(service, server),
                )
            if self._registry is not None:
                self._registry.start()
            registration = _Registration(self.plugin_dir, self._clients)
            await self._serve(
                self.socket_path, lambda server: rpc.add_RegistrationServicer_to_server(registration, server)
            )
        except BaseException:
            await self.stop()
            raise
        self._log("kubelet started")

    async def stop(self) -> None:
        """Die: every stream and call ends, and the socket files stay behind, stale. More than once is fine."""
        servers, self._servers = self._servers, []
        for server in servers:
            await server.stop(None)
        if self._registry is not None:
            await self._registry.close()
        await self._clients.close()
        self._book.close()
        if servers:
            self._log("kubelet stopped")
        self._bell.ring()

    async def restart(self) -> None:
        """Die and come up at once."""
        await self.stop()
        await self.start()

    async def _serve(self, path: Path, add: Callable[[grpc.aio.Server], None]) -> None:
        """Serve on the path, which must be free.

        gRPC removes at its end the file it has bound. A dead kubelet's file stays, so the server binds another name,
        in a folder outside the watched directories, and the socket is linked to its real one.
        """
        server = grpc.aio.server(options=_SERVER_OPTIONS)
        add(server)
        with tempfile.TemporaryDirectory(prefix=".stub-", dir=path.parent.parent) as folder:
            hidden = Path(folder, "k")
            try:
                server.add_insecure_port(grpc_address(hidden))
                await server.start()
                os.link(hidden, path)
            except BaseException:
                await server.stop(None)
                raise
        self._servers.append(server)

    # ---- what it sees -----------------------------------------------------------------------------------------------

    @property
    def resources(self) -> Mapping[str, ResourceState]:
        """Every resource ever registered, by name. Live: look, do not write."""
        return self._book.resources

    @property
    def violations(self) -> list[str]:
        """What a good plugin does not do, oldest first."""
        return self._book.violations

    @property
    def allocations(self) -> tuple[Allocation, ...]:
        """What pods hold now, oldest first."""
        return self._pods.allocations

    @property
    def running(self) -> bool:
        """Whether it is up."""
        return bool(self._servers)

    def capacity(self, resource: str) -> int:
        """Return the node's capacity: healthy or not; 0 once the grace after the stream's end is over."""
        return self._book.capacity(resource)

    def allocatable(self, resource: str) -> int:
        """Return how many devices of the resource are healthy, in use or not."""
        return self._book.allocatable(resource)

    async def wait_for(self, condition: Callable[[], bool], timeout_s: float, what: str = "") -> float:
        """Wait until the condition holds, looked at after each change; return the seconds it took.

        Raises TimeoutError, telling ``what`` was waited for and how things stand.
        """
        start_s = time.monotonic()
        try:
            await self._bell.until(condition, timeout_s)
        except TimeoutError:
            raise TimeoutError(f"not within {timeout_s:g} s: {what or 'the condition'}; {self._standing()}") from None
        return time.monotonic() - start_s

    def _standing(self) -> str:
        states = [
            f"{one.name}: {one.health}, stream {'open' if one.stream_alive else 'closed'}, "
            f"registered {len(one.registered_at_s)} times"
            for one in self.resources.values()
        ]
        return "; ".join(states) or "no resource is registered"

    # ---- what it does -----------------------------------------------------------------------------------------------

    async def allocate(
        self,
        resource: str,
        n: int = 1,
        *,
        ids: Collection[str] | None = None,
        pod: str = "",
        container: str = "main",
        reuse: Collection[str] = (),
    ) -> Allocation:
        """Admit a container that asks for ``n`` devices; one at a time, without a deadline, as the sync loop does.

        ``ids`` skips the choice, and with it the look at their health: what the kubelet chose a moment ago may have
        changed since. ``reuse`` are devices of the pod's init containers: they are used first and must be included.
        An empty ``pod`` is a new one. Raises AdmissionError: the pod has failed for good.
        """
        return await self._pods.allocate(resource, n, ids=ids, pod=pod, container=container, reuse=reuse)

    async def pre_start(
        self, resource: str, ids: Collection[str], timeout_s: float = PRE_START_DEADLINE_S
    ) -> float | None:
        """Make one start attempt of a container that holds these; return its seconds, None when the plugin wants none.

        Raises ContainerStartError.
        """
        return await self._pods.pre_start(resource, ids, timeout_s)

    def free(self, pod: str) -> None:
        """End a pod; its devices can be allocated again."""
        self._pods.free(pod)

    # ---- how it misbehaves ------------------------------------------------------------------------------------------

    @property
    def behaviour(self) -> Behaviour:
        """How it misbehaves; set it to change that, at any time."""
        return self._clients.behaviour

    @behaviour.setter
    def behaviour(self, behaviour: Behaviour) -> None:
        self._clients.behaviour = behaviour
        self._bell.ring()

    def cancel_streams(self, resource: str | None = None) -> None:
        """End ListAndWatch streams (of one resource, or all) from the kubelet's side."""
        self._clients.cancel_streams(resource)


class _Registration(rpc.RegistrationServicer):
    """The service on kubelet.sock."""

    def __init__(self, directory: Path, clients: ClientTable) -> None:
        self._directory = directory
        self._clients = clients

    async def Register(self, request: pb.RegisterRequest, context: grpc.aio.ServicerContext[Any, Any]) -> pb.Empty:
        """Check, dial back, ask for the options, and only then answer. The request's own options are not read."""
        try:
            check_version(request.version)
            check_resource_name(request.resource_name)
            await self._clients.connect(request.resource_name, _joined(self._directory, request.endpoint))
        except RegistrationRefusedError as error:
            await context.abort(self._clients.behaviour.register_code, str(error))
        return pb.Empty()


def _joined(directory: Path, endpoint: str) -> Path:
    """Join as text, as the kubelet does: an absolute endpoint ends up below the directory too."""
    return Path(os.path.normpath(f"{directory}/{endpoint}"))


def _wipe_sockets(directory: Path) -> None:
    for one in directory.iterdir():
        with suppress(FileNotFoundError):  # its owner may be faster
            if stat.S_ISSOCK(one.lstat().st_mode):
                one.unlink()


def _silent(_: str) -> None:
    """Log nothing."""
