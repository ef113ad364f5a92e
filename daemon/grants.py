"""What a container gets for the devices it was given: nodes, mounts, variables, annotations. Pure."""

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from devd.daemon import templates
from devd.daemon.errors import AllocationRefusedError
from devd.daemon.natural import natural_key
from devd.daemon.resource import ContainerGrant, DeviceNodeGrant, MountGrant


@dataclass(frozen=True, slots=True)
class GrantedDevice:
    """One physical device of a container: its id, its short name, the host's paths of its nodes."""

    id: str
    name: str
    paths: tuple[str, ...]


class MountRule(Protocol):
    """A bind mount as configured; both paths are templates."""

    @property
    def host(self) -> str:
        """Path on the node."""

    @property
    def container(self) -> str:
        """Path in the container."""

    @property
    def read_only(self) -> bool:
        """Whether the container may only read it."""


class ResourceRules(Protocol):
    """What the configuration says of a resource's containers; every text but ``name`` and ``access`` is a template."""

    @property
    def name(self) -> str:
        """Extended resource name, ``domain/name``."""

    @property
    def access(self) -> str:
        """Permissions of the nodes, of r, w, m."""

    @property
    def container_path(self) -> str | None:
        """Where a node lies in the container; None: where it lies on the host."""

    @property
    def env(self) -> Mapping[str, str]:
        """Environment variables."""

    @property
    def annotations(self) -> Mapping[str, str]:
        """Annotations for the container runtime."""

    @property
    def mounts(self) -> Sequence[MountRule]:
        """Bind mounts."""


def grant(resource: ResourceRules, devices: Sequence[GrantedDevice]) -> ContainerGrant:
    """Return what a container gets; devices count once each, in natural order of their ids, whatever order they have.

    A mount or container path that names one device ({id}, {path}, {name}, {index}) is made for each of them, any
    other text once, with the first device's values. In ``env`` paths are those the container sees; everywhere else
    they are the host's.

    Raises AllocationRefusedError when there is no device, when two things land on one path of the container, and when
    a path there is not absolute.
    """
    unique = {one.id: one for one in sorted(devices, key=lambda one: (one.id, one.paths))}
    ordered = [unique[one] for one in sorted(unique, key=natural_key)]
    if not ordered:
        raise AllocationRefusedError(f"{resource.name}: no device to grant")
    landings = _Landings(resource.name)
    inside = [
        GrantedDevice(device.id, device.name, tuple(landings.node(resource, device, index, ordered)))
        for index, device in enumerate(ordered)
    ]
    for rule in resource.mounts:
        _mount(resource, rule, ordered, landings)
    seen, host = _values(resource.name, inside, 0), _values(resource.name, ordered, 0)
    return ContainerGrant(
        nodes=tuple(landings.nodes.values()),
        mounts=tuple(landings.mounts.values()),
        envs={key: _filled(text, seen, f"{resource.name}: env {key}") for key, text in resource.env.items()},
        annotations={
            key: _filled(text, host, f"{resource.name}: annotation {key}") for key, text in resource.annotations.items()
        },
    )


@dataclass(slots=True)
class _Landings:
    """What lies where in the container; nothing may land on anything else."""

    resource: str
    nodes: dict[str, DeviceNodeGrant] = field(default_factory=dict)
    mounts: dict[str, MountGrant] = field(default_factory=dict)
    _owners: dict[str, str] = field(default_factory=dict)

    def node(
        self, rules: ResourceRules, device: GrantedDevice, index: int, devices: Sequence[GrantedDevice]
    ) -> Iterator[str]:
        """Place a device's nodes; yield each one's path in the container."""
        for path in dict.fromkeys(device.paths):
            inside = path
            if rules.container_path is not None:
                name = device.name if len(device.paths) == 1 else posixpath.basename(path)
                values = {**_values(rules.name, devices, index), "path": path, "name": name}
                inside = _filled(rules.container_path, values, f"{rules.name}: container_path")
            spec = DeviceNodeGrant(path, inside, rules.access)
            key = self._place(inside)
            if key not in self.nodes or self.nodes[key] != spec:
                self._claim(key, f"{path} of device {device.id}")
                self.nodes[key] = spec
            yield inside

    def mount(self, spec: MountGrant) -> None:
        """Place a mount; the same one again is one mount."""
        key = self._place(spec.container_path)
        if key not in self.mounts or self.mounts[key] != spec:
            self._claim(key, f"the mount of {spec.host_path}")
            self.mounts[key] = spec

    def _place(self, path: str) -> str:
        if not path.startswith("/"):
            raise AllocationRefusedError(f"{self.resource}: container path {path!r} is not absolute: begin it with '/'")
        # A leading double slash survives normpath, and means the same on Linux.
        return "/" + posixpath.normpath(path).lstrip("/")

    def _claim(self, key: str, owner: str) -> None:
        other = self._owners.setdefault(key, owner)
        if other != owner:
            raise AllocationRefusedError(
                f"{self.resource}: {other} and {owner} would both be {key} in the container: "
                "tell them apart with {index} (devices) or {name} (nodes of one device) in container_path or mounts"
            )


def _mount(resource: ResourceRules, rule: MountRule, devices: Sequence[GrantedDevice], landings: _Landings) -> None:
    where = f"{resource.name}: mount {rule.container}"
    try:
        each = templates.PER_DEVICE & (templates.placeholders(rule.host) | templates.placeholders(rule.container))
    except templates.TemplateError as error:
        raise AllocationRefusedError(f"{where}: {error}") from error
    for index in range(len(devices) if each else 1):
        values = _values(resource.name, devices, index)
        host, container = _filled(rule.host, values, where), _filled(rule.container, values, where)
        landings.mount(MountGrant(host, container, rule.read_only))


def _values(resource: str, devices: Sequence[GrantedDevice], index: int) -> dict[str, str]:
    """Return the value of every placeholder, as the device at ``index`` sees it."""
    device = devices[index]
    return {
        "id": device.id,
        "ids": ",".join(one.id for one in devices),
        "path": device.paths[0] if device.paths else "",
        "paths": ",".join(path for one in devices for path in dict.fromkeys(one.paths)),
        "name": device.name,
        "names": ",".join(one.name for one in devices),
        "index": str(index),
        "resource": resource,
    }


def _filled(text: str, values: Mapping[str, str], where: str) -> str:
    try:
        return templates.render(text, values)
    except templates.TemplateError as error:
        raise AllocationRefusedError(f"{where}: {error}") from error
