"""What the gRPC side sees of a resource: plain values and one protocol; it knows neither table nor supervisor."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Offered:
    """One line of a device list. ``numa_node`` None leaves the topology out; ``reason`` is empty when healthy."""

    id: str
    healthy: bool
    reason: str = ""
    numa_node: int | None = None


@dataclass(frozen=True, slots=True)
class DeviceNodeGrant:
    """A device node a container gets; ``permissions`` is a non-empty subset of r, w, m."""

    host_path: str
    container_path: str
    permissions: str


@dataclass(frozen=True, slots=True)
class MountGrant:
    """A bind mount a container gets."""

    host_path: str
    container_path: str
    read_only: bool


@dataclass(frozen=True, slots=True)
class ContainerGrant:
    """Everything one container gets for the devices of one resource."""

    nodes: tuple[DeviceNodeGrant, ...] = ()
    mounts: tuple[MountGrant, ...] = ()
    envs: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    cdi: tuple[str, ...] = ()
    """Fully qualified CDI names, for the container runtime to look up."""


class ResourceView(Protocol):
    """One resource as the kubelet may see it. Every method but ``pre_start`` answers at once, from memory."""

    @property
    def name(self) -> str:
        """Extended resource name, ``domain/name``."""

    @property
    def pre_start_required(self) -> bool:
        """True when a reset is configured."""

    def offered(self) -> tuple[Offered, ...]:
        """Return the whole list, sorted by id."""

    def subscribe(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call ``changed`` (on the event loop) after each change of ``offered``; return the function that ends it."""

    def allocate(self, ids: Sequence[str]) -> ContainerGrant:
        """Return what a container gets. Raises AllocationRefusedError (unknown id, Unhealthy, duplicate, none)."""

    def prefer(self, available: Sequence[str], must_include: Sequence[str], size: int) -> list[str]:
        """Return ``size`` ids. Raises AllocationRefusedError when the request cannot be met as it stands."""

    async def pre_start(self, ids: Sequence[str]) -> None:
        """Reset and probe all devices behind ``ids``. Raises PreStartError, inside 25 s at the latest."""
