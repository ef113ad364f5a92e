"""What the endpoint's tests share: a resource in memory behind the real view protocol, and real sockets around it."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import grpc

from devd.daemon.demo.kubelet import KubeletTiming, StubKubelet
from devd.daemon.endpoint import ResourceEndpoint, endpoint_directory
from devd.daemon.endpoint_state import Timing
from devd.daemon.errors import AllocationRefusedError
from devd.daemon.kubelet_watch import KubeletWatch
from devd.daemon.plugin import Detached, Plugin
from devd.daemon.plugin_server import CHANNEL_OPTIONS, PluginServer, grpc_address, serve_plugin
from devd.daemon.resource import ContainerGrant, DeviceNodeGrant, MountGrant, Offered, ResourceView
from devd.daemon.rpc_times import RpcTimes
from devd.proto.gen import deviceplugin_pb2_grpc as rpc

LOG = logging.getLogger("devd.test")
DEADLINE_S = 15.0
"""How long a test waits for what must come: generous, it is only used up when something is broken. Below what endpoint
and watch do by themselves in these tests (30 s): what comes within it came by an event."""


class MemoryView:
    """A resource held in memory: ids and their health, set by the test; what a container gets is told by its ids."""

    def __init__(self, name: str = "devd.io/test", ids: Sequence[str] = ("a", "b")) -> None:
        self.name = name
        self.pre_start_required = True
        self.devices = {one: Offered(one, healthy=True) for one in ids}
        self.subscribers: list[Callable[[], None]] = []
        self.pre_started: list[list[str]] = []
        self.pre_start_gate: asyncio.Event | None = None
        self.pre_start_ended = 0
        self.pre_start_error: Exception | None = None
        self.bug: Exception | None = None

    def offered(self) -> tuple[Offered, ...]:
        """Return the list, or raise the planted bug."""
        if self.bug is not None:
            raise self.bug
        return tuple(self.devices[one] for one in sorted(self.devices))

    def subscribe(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Keep the subscriber until its end is called."""
        self.subscribers.append(changed)
        return lambda: self.subscribers.remove(changed)

    def allocate(self, ids: Sequence[str]) -> ContainerGrant:
        """Answer with values that tell the ids."""
        if self.bug is not None:
            raise self.bug
        for one in ids:
            if one not in self.devices:
                raise AllocationRefusedError(f"{one}: no such device")
            if not self.devices[one].healthy:
                raise AllocationRefusedError(f"{one} is Unhealthy: {self.devices[one].reason}")
        return ContainerGrant(
            nodes=tuple(DeviceNodeGrant(f"/dev/{one}", f"/dev/in-{one}", "rw") for one in ids),
            mounts=(MountGrant("/host", "/container", read_only=True),),
            envs={"IDS": ",".join(ids)},
            annotations={"devd.io/ids": " ".join(ids)},
        )

    def prefer(self, available: Sequence[str], must_include: Sequence[str], size: int) -> list[str]:
        """Choose what must be in, then the first of the rest."""
        rest = [one for one in available if one not in must_include]
        return [*must_include, *rest][:size]

    async def pre_start(self, ids: Sequence[str]) -> None:
        """Wait at the gate, if there is one; then end as planned."""
        self.pre_started.append(list(ids))
        if self.pre_start_gate is not None:
            await self.pre_start_gate.wait()
        self.pre_start_ended += 1
        if self.pre_start_error is not None:
            raise self.pre_start_error

    def set(self, device: str, *, healthy: bool, reason: str = "", numa_node: int | None = None) -> None:
        """Change or add a device, and tell."""
        self.devices[device] = Offered(device, healthy=healthy, reason=reason, numa_node=numa_node)
        self.tell()

    def remove(self, device: str) -> None:
        """Take a device away, and tell."""
        del self.devices[device]
        self.tell()

    def tell(self) -> None:
        """Call the subscribers."""
        for one in list(self.subscribers):
            one()


@dataclass(frozen=True)
class Paths:
    """The kubelet section of a configuration."""

    dir: Path
    registry_dir: Path
    registration: Literal["socket", "watcher"] = "socket"


def descriptors() -> set[str]:
    """Return the process's open descriptors."""
    return {one.name for one in Path("/proc/self/fd").iterdir()}


async def eventually(condition: Callable[[], bool], what: str, timeout_s: float = DEADLINE_S) -> float:
    """Poll until the condition holds; return the seconds it took. Fails the test by name when the time is up."""
    start_s = time.monotonic()
    while not condition():
        assert time.monotonic() - start_s < timeout_s, f"not within {timeout_s:g} s: {what}"
        await asyncio.sleep(0.002)
    return time.monotonic() - start_s


@asynccontextmanager
async def served(
    view: ResourceView, path: Path, times: RpcTimes | None = None
) -> AsyncIterator[tuple[PluginServer, "rpc.DevicePluginAsyncStub"]]:
    """Serve a view on a path and connect to it, as the kubelet would."""
    detached = Detached(LOG)
    server = await serve_plugin(path, Plugin(view, detached, LOG, lambda: None, times))
    try:
        async with grpc.aio.insecure_channel(grpc_address(path), options=CHANNEL_OPTIONS) as channel:
            yield server, rpc.DevicePluginStub(channel)
    finally:
        await server.stop(0.1)
        await detached.cancel()


@asynccontextmanager
async def endpoint(
    view: ResourceView, paths: Paths, timing: Timing | None = None, poll_s: float = 30.0
) -> AsyncIterator[ResourceEndpoint]:
    """Run an endpoint with its watch; ends both. The poll is slow: what these tests see came by events."""
    watch = KubeletWatch(endpoint_directory(paths), log=LOG, poll_s=poll_s)
    watch.start()
    one = ResourceEndpoint(view, paths, watch, log=LOG, timing=timing or Timing())
    task = asyncio.create_task(one.run())
    try:
        yield one
    finally:
        await one.stop()
        await task
        watch.close()


async def run_alone(view: ResourceView, paths: Paths) -> None:
    """Run an endpoint that is expected to fail by itself, soon."""
    watch = KubeletWatch(endpoint_directory(paths), log=LOG)
    watch.start()
    try:
        async with asyncio.timeout(DEADLINE_S):
            await ResourceEndpoint(view, paths, watch, log=LOG).run()
    finally:
        watch.close()


@asynccontextmanager
async def kubelet(
    paths: Paths, *, timing: KubeletTiming | None = None, violations: int = 0, start: bool = True
) -> AsyncIterator[StubKubelet]:
    """Run a strict kubelet; at the end there must be exactly so many violations: none, but where a test makes one."""
    registry = paths.registry_dir if paths.registration == "watcher" else None
    stub = StubKubelet(paths.dir, registry, log=LOG.debug, timing=timing or KubeletTiming())
    try:
        if start:
            await stub.start()
        yield stub
        assert len(stub.violations) == violations, stub.violations
    finally:
        await stub.stop()


def healthy(stub: StubKubelet, view: MemoryView) -> bool:
    """Return whether the kubelet has the resource's stream and counts every device healthy."""
    state = stub.resources.get(view.name)
    return state is not None and state.stream_alive and state.healthy == set(view.devices)


def make_paths(tmp_path: Path, registration: Literal["socket", "watcher"] = "socket") -> Paths:
    """Make the kubelet's two directories."""
    paths = Paths(tmp_path / "dp", tmp_path / "pr", registration)
    paths.dir.mkdir()
    paths.registry_dir.mkdir()
    return paths


def sockets(directory: Path) -> list[str]:
    """Return the names of our sockets there, hidden ones too."""
    return sorted(one.name for one in directory.iterdir() if "devd" in one.name)
