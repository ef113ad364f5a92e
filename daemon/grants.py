"""What a container gets for the devices it was given: nodes, mounts, variables, annotations. Pure."""

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from devd.daemon import templates, variables
from devd.daemon.errors import AllocationRefusedError
from devd.daemon.natural import natural_key
from devd.daemon.resource import ContainerGrant, DeviceNodeGrant, MountGrant

_SYSFS = "sysfs"
"""The one property that is a path: the kernel's own."""


@dataclass(frozen=True, slots=True)
class GrantedDevice:
    """One physical device of a container: its id, its short name, the host's paths of its nodes, its properties."""

    id: str
    name: str
    paths: tuple[str, ...]
    properties: Mapping[str, str] = field(default_factory=dict)


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
    """What the configuration says of a resource's containers; all texts below ``access`` are templates."""

    @property
    def name(self) -> str:
        """Extended resource name, ``domain/name``."""

    @property
    def driver(self) -> str:
        """The driver's name."""

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

    A mount or container path that names one device ({id}, {path}, {name}, {index}, a property) is made for each of
    them, any other text once, with the first device's values and all devices' properties, joined by commas. In ``env``
    paths are those the container sees; everywhere else they are the host's. Variables named after the resource come
    along; one of the same name in ``env`` goes before.

    Raises AllocationRefusedError when there is no device, when two things land on one path of the container, when
    a path there is not absolute, and when a device has not the property that is asked for.
    """
    unique = {one.id: one for one in sorted(devices, key=lambda one: (one.id, one.paths))}
    ordered = [unique[one] for one in sorted(unique, key=natural_key)]
    if not ordered:
        raise AllocationRefusedError(f"{resource.name}: no device to grant")
    landings = _Landings(resource.name)
    inside = [
        replace(device, paths=tuple(landings.node(resource, device, index, ordered)))
        for index, device in enumerate(ordered)
    ]
    for rule in resource.mounts:
        _mount(resource, rule, ordered, landings)
    everybody = [one.properties for one in ordered]
    own = variables.given(resource.name, resource.driver, [one.id for one in ordered], everybody)
    return ContainerGrant(
        nodes=tuple(landings.nodes.values()),
        mounts=tuple(landings.mounts.values()),
        envs=own | _texts(resource, "env", resource.env, inside),
        annotations=_texts(resource, "annotation", resource.annotations, ordered),
    )


def _texts(
    resource: ResourceRules, what: str, texts: Mapping[str, str], devices: Sequence[GrantedDevice]
) -> dict[str, str]:
    """Return texts that are made once for all devices."""
    values = _values(resource.name, devices, 0)
    return {key: _filled(text, values, devices, f"{resource.name}: {what} {key}") for key, text in texts.items()}


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
                inside = _path(rules.container_path, values, device, f"{rules.name}: container_path")
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
        each = templates.differs(rule.host) or templates.differs(rule.container)
    except templates.TemplateError as error:
        raise AllocationRefusedError(f"{where}: {error}") from error
    for index in range(len(devices) if each else 1):
        values = _values(resource.name, devices, index)
        device = devices[index]
        host, container = _path(rule.host, values, device, where), _path(rule.container, values, device, where)
        landings.mount(MountGrant(host, container, rule.read_only))


def _values(resource: str, devices: Sequence[GrantedDevice], index: int) -> dict[str, str]:
    """Return the value of every placeholder, as the device at ``index`` sees it."""
    device = devices[index]
    return {
        "id": device.id,
        "ids": ",".join(one.id for one in devices),
        "path": device.paths[0] if device.paths else "",
        "paths": ",".join(dict.fromkeys(path for one in devices for path in one.paths)),
        "name": device.name,
        "names": ",".join(one.name for one in devices),
        "index": str(index),
        "resource": resource,
    }


def _path(text: str, values: Mapping[str, str], device: GrantedDevice, where: str) -> str:
    """Return a path for one device; what a device says of itself must not lead elsewhere."""
    for name in _properties(text, where) - {_SYSFS}:
        value = device.properties.get(name, "")
        if "/" in value or value in (".", ".."):
            raise AllocationRefusedError(f"{where}: property {name} of {device.id} is {value!r:.80}: no part of a path")
    return _filled(text, values, [device], where)


def _filled(text: str, values: Mapping[str, str], devices: Sequence[GrantedDevice], where: str) -> str:
    """Return a template filled in; properties are those of all the devices given."""
    found = {name: _joined(name, devices, where) for name in _properties(text, where)}
    try:
        return templates.render(text, {**found, **values})
    except templates.TemplateError as error:
        raise AllocationRefusedError(f"{where}: {error}") from error


def _properties(text: str, where: str) -> frozenset[str]:
    try:
        return templates.properties(text)
    except templates.TemplateError as error:
        raise AllocationRefusedError(f"{where}: {error}") from error


def _joined(name: str, devices: Sequence[GrantedDevice], where: str) -> str:
    for one in devices:
        if name not in one.properties:
            has = ", ".join(sorted(one.properties)) or "none"
            raise AllocationRefusedError(f"{where}: device {one.id} has no property {name}; it has: {has}")
    return ",".join(one.properties[name] for one in devices)
