"""Who has which devices by the kubelet's word: one List of its PodResources API.

Asked before a reset that could take from a running container what it has. The answer of a node with hundreds of pods is
large, so a thread takes it apart.
"""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

import grpc

from devd.daemon.plugin_server import grpc_address
from devd.daemon.plugin_wire import one_line
from devd.proto.gen import podresources_pb2 as pb

ANSWER_WITHIN_S = 2.0
MAX_ANSWER_BYTES = 16 * 1024 * 1024
"""What the kubelet itself sends at most (pkg/kubelet/apis/podresources/constants.go)."""
METHOD = "/v1.PodResourcesLister/List"

_OPTIONS = (("grpc.max_receive_message_length", MAX_ANSWER_BYTES), ("grpc.enable_http_proxy", 0))


@dataclass(frozen=True, slots=True)
class Held:
    """A device id that a container has; ``holder`` names the container in words."""

    resource: str
    id: str
    holder: str


@dataclass(frozen=True, slots=True)
class Holdings:
    """What containers have. ``problem`` says why that is not known; ``absent`` that there is nobody to ask."""

    held: tuple[Held, ...] = ()
    problem: str = ""
    absent: bool = False


class PodResources:
    """The kubelet's socket, asked anew each time; nothing stays open."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def ask(self) -> Holdings:
        """Return who has what; never raises."""
        request = pb.ListPodResourcesRequest().SerializeToString()
        async with grpc.aio.insecure_channel(grpc_address(self.path), options=_OPTIONS) as channel:
            try:
                answer: bytes = await channel.unary_unary(METHOD, bytes, bytes)(request, timeout=ANSWER_WITHIN_S)
            except grpc.aio.AioRpcError as error:
                return self._explained(error)
        try:
            return Holdings(await asyncio.to_thread(_taken_apart, answer))
        except ValueError as error:
            return Holdings(problem=f"{self.path}: PodResources sent what is no answer: {one_line(str(error))}")

    def _explained(self, error: grpc.aio.AioRpcError) -> Holdings:
        match error.code():
            case grpc.StatusCode.UNAVAILABLE if not os.path.lexists(self.path):
                return Holdings(
                    problem=f"{self.path}: no PodResources to ask: mount the kubelet's pod-resources directory",
                    absent=True,
                )
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                return Holdings(problem=f"{self.path}: PodResources did not answer within {ANSWER_WITHIN_S:g} s")
            case code:
                text = one_line(error.details() or "no text")
                return Holdings(problem=f"{self.path}: PodResources failed: {code.name}: {text}")


def _taken_apart(answer: bytes) -> tuple[Held, ...]:
    """Return each held id of an answer. Raises ValueError."""
    try:
        pods = pb.ListPodResourcesResponse.FromString(answer).pod_resources
    except Exception as error:  # protobuf's DecodeError is a ValueError in one of its implementations only
        raise ValueError(str(error)) from error
    return tuple(
        Held(devices.resource_name, one, f"pod {pod.namespace}/{pod.name} ({container.name})")
        for pod in pods
        for container in pod.containers
        for devices in container.devices
        for one in devices.device_ids
    )
