"""The device plugin API's values: a resource's plain values turned into messages, a request's ids checked."""

from collections.abc import Collection, Iterable, Sequence

from devd.daemon.resource import ContainerGrant, Offered
from devd.proto.gen import deviceplugin_pb2 as pb

HEALTHY = "Healthy"
"""The one string the kubelet takes for healthy; anything else is not."""
UNHEALTHY = "Unhealthy"
MAX_TEXT_CHARS = 600
"""Longest error text: it travels in a trailer, where a character may take up to twelve of its 8,192 bytes."""


class BadRequestError(Exception):
    """Raised when a request is not one that a kubelet would send; the text goes back to the caller."""


def device_list(offered: Iterable[Offered]) -> pb.ListAndWatchResponse:
    """Return the wire form of a list, sorted by id."""
    return pb.ListAndWatchResponse(devices=[_device(one) for one in sorted(offered, key=lambda one: one.id)])


def one_line(text: str) -> str:
    """Return a text as it may stand in a status: on one line, not too long."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_TEXT_CHARS else line[: MAX_TEXT_CHARS - 1] + "…"


def _device(offered: Offered) -> pb.Device:
    # sysfs says -1 for "no node", and a wrong node can make the topology manager refuse pods: then no topology at all.
    node = offered.numa_node
    topology = pb.TopologyInfo(nodes=[pb.NUMANode(ID=node)]) if node is not None and node >= 0 else None
    return pb.Device(ID=offered.id, health=HEALTHY if offered.healthy else UNHEALTHY, topology=topology)


def container_response(grant: ContainerGrant) -> pb.ContainerAllocateResponse:
    """Return the wire form of what a container gets."""
    return pb.ContainerAllocateResponse(
        envs=grant.envs,
        annotations=grant.annotations,
        mounts=[
            pb.Mount(container_path=one.container_path, host_path=one.host_path, read_only=one.read_only)
            for one in grant.mounts
        ],
        devices=[
            pb.DeviceSpec(container_path=one.container_path, host_path=one.host_path, permissions=one.permissions)
            for one in grant.nodes
        ],
        cdi_devices=[pb.CDIDevice(name=one) for one in grant.cdi],
    )


def check_containers(requests: Collection[object]) -> None:
    """Raise BadRequestError when a request asks for no container."""
    if not requests:
        raise BadRequestError("container_requests: none found, at least one needed")


def check_ids(ids: Sequence[str], where: str) -> None:
    """Raise BadRequestError, naming the field, when there is no id, an empty one, or one twice."""
    if not ids:
        raise BadRequestError(f"{where}: no device id found, at least one needed")
    if "" in ids:
        raise BadRequestError(f"{where}: an empty device id")
    if len(set(ids)) != len(ids):
        twice = next(one for one in sorted(ids) if ids.count(one) > 1)
        raise BadRequestError(f"{where}: device id {twice} stands there twice")
