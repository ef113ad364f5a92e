"""The stub kubelet's pods: choosing devices as the device manager does, Allocate, PreStartContainer, PodResources."""

# ruff: noqa: N802 - the servicer's methods bear gRPC's names

import asyncio
import random
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

import grpc

from devd.daemon.demo.kubelet_rules import PRE_START_DEADLINE_S, AdmissionError, ContainerStartError, go_error
from devd.daemon.demo.kubelet_state import DeviceBook, Endpoint, Log, ResourceState
from devd.daemon.demo.kubelet_streams import CONNECTION_CLOSED
from devd.proto.gen import deviceplugin_pb2 as pb
from devd.proto.gen import deviceplugin_pb2_grpc as rpc
from devd.proto.gen import podresources_pb2 as resources_pb
from devd.proto.gen import podresources_pb2_grpc as resources_rpc

NAMESPACE = "default"
"""Namespace of every pod of the stub."""


@dataclass(frozen=True, slots=True)
class Allocation:
    """What one container holds of one resource, and what it got for it."""

    pod: str
    container: str
    resource: str
    ids: tuple[str, ...]
    """Sorted; the plugin saw them in random order."""
    response: pb.ContainerAllocateResponse
    preferred: tuple[str, ...] | None
    """The plugin's answer to GetPreferredAllocation; None when it was not asked."""
    duration_s: float
    """How long Allocate took, GetPreferredAllocation not counted."""


class PodBook:
    """Pods and their devices. It outlives restarts of the kubelet, as the checkpoint does.

    ``order`` mixes the ids of each call, which the real kubelet sends in the order of a Go set: any.
    """

    def __init__(self, book: DeviceBook, log: Log, order: random.Random) -> None:
        self._book = book
        self._log = log
        self._order = order
        self._held: dict[tuple[str, str, str], Allocation] = {}
        self._taken: dict[str, set[str]] = {}
        self._sync_loop = asyncio.Lock()
        self._count = 0

    @property
    def allocations(self) -> tuple[Allocation, ...]:
        """Everything allocated now, oldest first."""
        return tuple(self._held.values())

    # ---- admission --------------------------------------------------------------------------------------------------

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
        if not pod:
            self._count += 1
            pod = f"pod-{self._count}"
        async with self._sync_loop:
            try:
                return await self._admit((pod, container, resource), n if ids is None else len(ids), ids, reuse)
            except AdmissionError as error:
                self._log(f"{pod}/{container}: UnexpectedAdmissionError: {error}")
                raise

    async def _admit(
        self, key: tuple[str, str, str], n: int, ids: Collection[str] | None, reuse: Collection[str]
    ) -> Allocation:
        resource = key[2]
        state = self._book.resources.get(resource)
        if state is None or state.endpoint is None:
            raise AdmissionError(f"cannot allocate unregistered device {resource}")
        if key in self._held:
            return self._still_good(state, self._held[key], n)
        taken = self._taken.setdefault(resource, set())
        mine: set[str] = set()
        preferred = None
        try:
            if ids is None:
                preferred = await self._choose(state, n, mine, taken, reuse)
            else:
                self._force(resource, ids, mine, taken)
            allocation = await self._call_allocate(state, key, mine, preferred)
            self._held[key] = allocation
        finally:
            self._recount()
        self._log(f"{key[0]}/{key[1]}: {resource} {', '.join(allocation.ids)}")
        return allocation

    def _still_good(self, state: ResourceState, held: Allocation, n: int) -> Allocation:
        """Return what a restarting container has already. Raises AdmissionError when it may not have it any more."""
        if len(held.ids) != n:
            raise AdmissionError(
                f'pod "{held.pod}" container "{held.container}" changed request for resource "{held.resource}" '
                f"from {len(held.ids)} to {n}"
            )
        if not state.healthy:
            raise AdmissionError(_no_healthy(held.resource))
        if not state.healthy.issuperset(held.ids):
            raise AdmissionError(
                f"previously allocated devices are no longer healthy; cannot allocate unhealthy devices {held.resource}"
            )
        return held

    def _force(self, resource: str, ids: Collection[str], mine: set[str], taken: set[str]) -> None:
        in_use = taken.intersection(ids)
        if in_use:
            raise AdmissionError(f"{resource}: {', '.join(sorted(in_use))} in use: the kubelet never chooses these")
        mine.update(ids)
        taken.update(ids)

    async def _choose(
        self, state: ResourceState, n: int, mine: set[str], taken: set[str], reuse: Collection[str]
    ) -> tuple[str, ...] | None:
        """Fill ``mine`` and mark it taken; return the plugin's preference."""
        if not state.healthy:
            raise AdmissionError(_no_healthy(state.name))

        def take(from_: Iterable[str]) -> bool:
            for one in self._shuffled(set(from_) - mine):
                if len(mine) == n:
                    break
                mine.add(one)
                taken.add(one)
            return len(mine) == n

        if take(reuse):
            return None
        available = state.healthy - taken
        if len(available) < n - len(mine):
            raise AdmissionError(
                f"requested number of devices unavailable for {state.name}. "
                f"Requested: {n - len(mine)}, Available: {len(available)}"
            )
        preferred = await self._call_preferred(state, available | mine, frozenset(mine), n)
        if not take(available.intersection(preferred or ())):
            take(available)
        return preferred

    # ---- calls ------------------------------------------------------------------------------------------------------

    async def _call_preferred(
        self, state: ResourceState, available: frozenset[str], must_include: frozenset[str], n: int
    ) -> tuple[str, ...] | None:
        endpoint = state.endpoint
        if endpoint is None or not endpoint.options.get_preferred_allocation_available:
            return None
        request = pb.ContainerPreferredAllocationRequest(
            available_deviceIDs=self._shuffled(available),
            must_include_deviceIDs=self._shuffled(must_include),
            allocation_size=n,
        )
        try:
            stub = _stub(endpoint)
            answer = await stub.GetPreferredAllocation(pb.PreferredAllocationRequest(container_requests=[request]))
        except (grpc.aio.AioRpcError, asyncio.CancelledError, _StoppedError) as error:
            text = _failure(error)
            raise AdmissionError(f"device plugin GetPreferredAllocation rpc failed with err: {text}") from error
        chosen = tuple(answer.container_responses[0].deviceIDs) if answer.container_responses else ()
        if len(chosen) != n or len(set(chosen)) != n or not must_include <= set(chosen) <= available:
            self._book.violation(
                f"{state.name}: preferred {sorted(chosen)}: {n} different ones of {sorted(available)} were asked for, "
                f"{sorted(must_include)} among them"
            )
        return chosen

    async def _call_allocate(
        self, state: ResourceState, key: tuple[str, str, str], ids: set[str], preferred: tuple[str, ...] | None
    ) -> Allocation:
        if state.endpoint is None:
            raise AdmissionError(f"unknown Device Plugin {state.name}")
        request = pb.AllocateRequest(container_requests=[pb.ContainerAllocateRequest(devices_ids=self._shuffled(ids))])
        start_s = time.monotonic()
        try:
            answer = await _stub(state.endpoint).Allocate(request)
        except (grpc.aio.AioRpcError, asyncio.CancelledError, _StoppedError) as error:
            raise AdmissionError(f"Allocate failed due to {_failure(error)}, which is unexpected") from error
        duration_s = time.monotonic() - start_s
        if not answer.container_responses:
            raise AdmissionError(f"no containers return in allocation response {answer}")
        if len(answer.container_responses) > 1:
            self._book.violation(f"{state.name}: {len(answer.container_responses)} answers to Allocate, [0] is read")
        response = answer.container_responses[0]
        for node in response.devices:
            if not node.permissions or set(node.permissions) - set("rwm"):
                self._book.violation(f"{state.name}: {node.host_path} with permissions {node.permissions!r}")
        pod, container, resource = key
        return Allocation(pod, container, resource, tuple(sorted(ids)), response, preferred, duration_s)

    async def pre_start(
        self, resource: str, ids: Collection[str], timeout_s: float = PRE_START_DEADLINE_S
    ) -> float | None:
        """Make one start attempt of a container that holds these; return its seconds, None when the plugin wants none.

        Raises ContainerStartError.
        """
        state = self._book.resources.get(resource)
        if state is None or state.endpoint is None:
            raise ContainerStartError(f"endpoint not found in cache for a registered resource: {resource}")
        if not state.endpoint.options.pre_start_required:
            return None
        request = pb.PreStartContainerRequest(devices_ids=self._shuffled(ids))
        start_s = time.monotonic()
        try:
            await _stub(state.endpoint).PreStartContainer(request, timeout=timeout_s)
        except (grpc.aio.AioRpcError, asyncio.CancelledError, _StoppedError) as error:
            text = _failure(error)
            raise ContainerStartError(f"device plugin PreStartContainer rpc failed with err: {text}") from error
        return time.monotonic() - start_s

    # ---- the end of pods --------------------------------------------------------------------------------------------

    def free(self, pod: str) -> None:
        """End a pod; its devices can be allocated again. The plugin is not told: there is no call for it."""
        for key in [one for one in self._held if one[0] == pod]:
            del self._held[key]
        self._recount()

    def _recount(self) -> None:
        """Count as taken what pods hold, and nothing else: what a failed admission took is free again."""
        self._taken = {}
        for held in self._held.values():
            self._taken.setdefault(held.resource, set()).update(held.ids)

    def _shuffled(self, ids: Iterable[str]) -> list[str]:
        mixed = sorted(ids)
        self._order.shuffle(mixed)
        return mixed


class _StoppedError(Exception):
    """Raised when a call is meant for a plugin the kubelet has let go of."""


def _stub(endpoint: Endpoint) -> "rpc.DevicePluginAsyncStub":
    if endpoint.stub is None or endpoint.stopped_at_s is not None:
        raise _StoppedError(f"endpoint {endpoint.path} has been stopped")
    return endpoint.stub


def _failure(error: BaseException) -> str:
    """Return a failed call's text; a cancellation of our own task goes on instead."""
    if isinstance(error, grpc.aio.AioRpcError):
        return go_error(error)
    task = asyncio.current_task()
    if isinstance(error, asyncio.CancelledError):
        if task is not None and task.cancelling():
            raise error
        return CONNECTION_CLOSED
    return str(error)


def _no_healthy(resource: str) -> str:
    return f"no healthy devices present; cannot allocate unhealthy devices {resource}"


class PodResources(resources_rpc.PodResourcesListerServicer):
    """The PodResources API over the pods of the stub."""

    def __init__(self, allocations: Callable[[], tuple[Allocation, ...]], book: DeviceBook) -> None:
        self._allocations = allocations
        self._book = book

    async def List(
        self,
        request: resources_pb.ListPodResourcesRequest,  # noqa: ARG002 - gRPC passes it
        context: grpc.aio.ServicerContext[Any, Any],  # noqa: ARG002 - gRPC passes it
    ) -> resources_pb.ListPodResourcesResponse:
        """Tell which container of which pod holds which devices."""
        pods: dict[str, resources_pb.PodResources] = {}
        containers: dict[tuple[str, str], resources_pb.ContainerResources] = {}
        for held in self._allocations():
            pod = pods.setdefault(held.pod, resources_pb.PodResources(name=held.pod, namespace=NAMESPACE))
            key = (held.pod, held.container)
            if key not in containers:
                containers[key] = pod.containers.add(name=held.container)
            containers[key].devices.extend(self._devices(held.resource, held.ids))
        return resources_pb.ListPodResourcesResponse(pod_resources=pods.values())

    async def GetAllocatableResources(
        self,
        request: resources_pb.AllocatableResourcesRequest,  # noqa: ARG002 - gRPC passes it
        context: grpc.aio.ServicerContext[Any, Any],  # noqa: ARG002 - gRPC passes it
    ) -> resources_pb.AllocatableResourcesResponse:
        """Tell which devices are healthy."""
        return resources_pb.AllocatableResourcesResponse(
            devices=[
                one
                for state in self._book.resources.values()
                for one in self._devices(state.name, sorted(state.healthy))
            ]
        )

    def _devices(self, resource: str, ids: Iterable[str]) -> list[resources_pb.ContainerDevices]:
        """Return one entry a device, as the kubelet does, with its NUMA nodes where it has told any."""
        state = self._book.resources.get(resource)
        known = {} if state is None else state.devices
        entries = []
        for one in ids:
            numa = known[one].numa if one in known else ()
            topology = resources_pb.TopologyInfo(nodes=[resources_pb.NUMANode(ID=node) for node in numa])
            entries.append(
                resources_pb.ContainerDevices(
                    resource_name=resource, device_ids=[one], topology=topology if numa else None
                )
            )
        return entries
