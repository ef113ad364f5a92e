"""What the stub kubelet knows of each resource, and what becomes of it when streams talk and end. No I/O."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from devd.daemon.demo.kubelet_rules import HEALTHY, MAX_DEVICE_ID_CHARS, UNHEALTHY
from devd.proto.gen import deviceplugin_pb2 as pb
from devd.proto.gen import deviceplugin_pb2_grpc as rpc

HISTORY_LISTS = 4096
"""Device lists kept for a resource; the oldest go first."""

Log = Callable[[str], None]


class Bell:
    """Wakes whoever waits for a condition, after each change. For one event loop."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Tell all waiters to look again."""
        self._rung.set()
        self._rung = asyncio.Event()

    async def until(self, condition: Callable[[], bool], timeout_s: float | None) -> None:
        """Return when the condition holds. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                await self._rung.wait()


@dataclass(frozen=True, slots=True)
class DeviceRecord:
    """One device of a list: its health as sent, and its NUMA nodes."""

    health: str
    numa: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ReceivedList:
    """One message of a ListAndWatch stream. ``at_s`` is monotonic; ``stream`` counts the kubelet's streams."""

    at_s: float
    devices: Mapping[str, DeviceRecord]
    stream: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Options:
    """A plugin's answer to GetDevicePluginOptions."""

    pre_start_required: bool = False
    get_preferred_allocation_available: bool = False


@dataclass(slots=True)
class Endpoint:
    """A connected plugin, as calls reach it; stopped for good once the kubelet has let go of it (monotonic time)."""

    path: Path
    options: Options
    stub: "rpc.DevicePluginAsyncStub | None"
    stopped_at_s: float | None = None


@dataclass(slots=True)
class ResourceState:
    """One resource. ``devices`` are as the kubelet counts them: without a registered stream all are unhealthy."""

    name: str
    devices: dict[str, DeviceRecord] = field(default_factory=dict)
    endpoint: Endpoint | None = None
    lists: deque[ReceivedList] = field(default_factory=lambda: deque(maxlen=HISTORY_LISTS))
    """Every list received, oldest first, over all registrations and restarts of the kubelet."""
    registered_at_s: list[float] = field(default_factory=list)
    """When a plugin was taken in (monotonic), one entry a registration."""
    streams_open: int = 0

    @property
    def options(self) -> Options | None:
        """What the plugin of the newest registration answered; None before the first."""
        return None if self.endpoint is None else self.endpoint.options

    @property
    def stream_alive(self) -> bool:
        """Whether the newest registration still has its stream."""
        return self.streams_open > 0 and self.endpoint is not None and self.endpoint.stopped_at_s is None

    @property
    def healthy(self) -> frozenset[str]:
        """Ids of the devices that can be allocated, in use or not."""
        return frozenset(one for one, record in self.devices.items() if record.health == HEALTHY)

    @property
    def health(self) -> dict[str, str]:
        """Health by device id."""
        return {one: record.health for one, record in self.devices.items()}


class DeviceBook:
    """All resources, and what the kubelet tolerates but a good plugin does not do (``violations``).

    ``grace_s`` is the time from a stream's end until the capacity is 0.
    """

    def __init__(self, bell: Bell, log: Log, grace_s: float) -> None:
        self.resources: dict[str, ResourceState] = {}
        self.violations: list[str] = []
        self._bell = bell
        self._log = log
        self._grace_s = grace_s
        self._timers: set[asyncio.TimerHandle] = set()

    def violation(self, text: str) -> None:
        """Note what a good plugin does not do."""
        self.violations.append(text)
        self._log(f"violation: {text}")
        self._bell.ring()

    # ---- what plugins do --------------------------------------------------------------------------------------------

    def connected(self, name: str, endpoint: Endpoint) -> None:
        """Take in a plugin that has answered; its resource's devices stay as they are until the first list."""
        state = self.resources.setdefault(name, ResourceState(name))
        state.endpoint = endpoint
        state.registered_at_s.append(time.monotonic())
        self._log(f"{name}: registered, {endpoint.path}, {endpoint.options}")
        self._bell.ring()

    def disconnected(self, name: str) -> None:
        """Make every device of the resource unhealthy, by NAME: whichever plugin stands for it now is stopped."""
        state = self.resources.get(name)
        if state is None or state.endpoint is None:
            return
        state.devices = {
            one: DeviceRecord(UNHEALTHY if record.health == HEALTHY else record.health, record.numa)
            for one, record in state.devices.items()
        }
        state.endpoint.stopped_at_s = time.monotonic()
        self._ring_after_grace()
        self._log(f"{name}: disconnected, its {len(state.devices)} devices are unhealthy")
        self._bell.ring()

    def stream_opened(self, name: str) -> None:
        """Count a stream."""
        self.resources[name].streams_open += 1
        self._bell.ring()

    def stream_ended(self, name: str, why: str) -> None:
        """Count it out."""
        self.resources[name].streams_open -= 1
        self._log(f"{name}: ListAndWatch ended: {why}")
        self._bell.ring()

    def received(self, name: str, response: pb.ListAndWatchResponse, stream: int) -> None:
        """Take a list for the whole truth about the resource, whichever stream it came from."""
        state = self.resources[name]
        devices = {one.ID: _record(one) for one in response.devices}
        self._check_list(state, [one.ID for one in response.devices], devices, stream)
        state.devices = devices
        state.lists.append(ReceivedList(time.monotonic(), dict(devices), stream, response.ByteSize()))
        self._log(f"{name}: {len(state.healthy)} of {len(devices)} devices healthy")
        self._bell.ring()

    # ---- what the node offers ---------------------------------------------------------------------------------------

    def capacity(self, name: str) -> int:
        """Return how many devices the node has, healthy or not: 0 once the grace after the stream's end is over."""
        state = self._counted(name)
        return 0 if state is None else len(state.devices)

    def allocatable(self, name: str) -> int:
        """Return how many of them are healthy, in use or not."""
        state = self._counted(name)
        return 0 if state is None else len(state.healthy)

    def _counted(self, name: str) -> ResourceState | None:
        state = self.resources.get(name)
        if state is None or state.endpoint is None:
            return None
        stopped_at_s = state.endpoint.stopped_at_s
        if stopped_at_s is not None and time.monotonic() - stopped_at_s > self._grace_s:
            # The node keeps the key, at 0; the kubelet forgets the rest.
            state.devices, state.endpoint = {}, None
            return None
        return state

    # ---- the kubelet's own life -------------------------------------------------------------------------------------

    def restarted(self) -> None:
        """Begin anew as from the checkpoint: the resources are known, without devices until a plugin registers."""
        for state in self.resources.values():
            state.devices = {}
            state.streams_open = 0
            if state.endpoint is not None:
                state.endpoint = Endpoint(state.endpoint.path, Options(), None, time.monotonic())
        self._bell.ring()

    def close(self) -> None:
        """Cancel the timers."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def _ring_after_grace(self) -> None:
        def ring() -> None:
            self._timers.discard(timer)
            self._bell.ring()

        # A little late, so that whoever is woken sees the grace over.
        timer = asyncio.get_running_loop().call_later(self._grace_s + 0.001, ring)
        self._timers.add(timer)

    # ---- what a good plugin does not do -----------------------------------------------------------------------------

    def _check_list(
        self, state: ResourceState, ids: list[str], devices: Mapping[str, DeviceRecord], stream: int
    ) -> None:
        for text in _id_violations(ids):
            self.violation(f"{state.name}: {text}")
        for one in devices:
            for other in self.resources.values():
                if other is not state and one in other.devices:
                    self.violation(f"{state.name}: device id {one} is one of {other.name} too")
        for one, record in devices.items():
            if record.health not in {HEALTHY, UNHEALTHY}:
                self.violation(f"{state.name}: device {one} has health {record.health!r}")
        if state.lists and state.lists[-1].stream == stream and state.lists[-1].devices == devices:
            self.violation(f"{state.name}: an unchanged list was sent again")


def _record(device: pb.Device) -> DeviceRecord:
    return DeviceRecord(device.health, tuple(sorted(node.ID for node in device.topology.nodes)))


def _id_violations(ids: Iterable[str]) -> list[str]:
    found: list[str] = []
    seen: set[str] = set()
    for one in ids:
        if one in seen:
            found.append(f"device id {one} stands twice in a list")
        seen.add(one)
        if not one:
            found.append("an empty device id")
        if len(one) > MAX_DEVICE_ID_CHARS:
            found.append(f"device id {one} has {len(one)} characters, {MAX_DEVICE_ID_CHARS} are allowed")
    return found
