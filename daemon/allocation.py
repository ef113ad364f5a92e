"""What a container gets, and which devices would serve it best: pure functions of values, no I/O."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, Protocol

from devd.daemon.errors import AllocationRefusedError
from devd.daemon.resource import ContainerGrant, DeviceNodeGrant, MountGrant
from devd.daemon.templates import expand

MAX_NUMA_NODES_SEARCHED = 12
"""Sets of NUMA nodes are tried smallest first, 2^n of them; the largest machines have about 8. Past it all are near."""


class MountRule(Protocol):
    """A bind mount, as the configuration names it; both paths are templates."""

    @property
    def host(self) -> str:
        """Path on the node."""

    @property
    def container(self) -> str:
        """Path in the container."""

    @property
    def read_only(self) -> bool:
        """Whether the container may not write."""


class ResourceRules(Protocol):
    """What a resource gives its containers."""

    @property
    def name(self) -> str:
        """Extended resource name."""

    @property
    def access(self) -> str:
        """Any of r, w, m."""

    @property
    def container_path(self) -> str | None:
        """Template of a node's path in the container; None: the host's path."""

    @property
    def env(self) -> Mapping[str, str]:
        """Templates by variable."""

    @property
    def annotations(self) -> Mapping[str, str]:
        """Templates by key."""

    @property
    def mounts(self) -> Sequence[MountRule]:
        """Bind mounts beside the nodes."""


@dataclass(frozen=True, slots=True)
class GrantedDevice:
    """One physical device of a container: its id, its display name, the host paths of its nodes."""

    id: str
    name: str
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One id the kubelet may choose; several ids of one ``device`` are its replicas."""

    id: str
    device: str
    numa_node: int | None


def natural_key(text: str) -> list[tuple[int, str]]:
    """Return a sort key that puts ttyUSB2 before ttyUSB10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text)]


# ---- what a container gets --------------------------------------------------------------------------------------


def grant(rules: ResourceRules, devices: Iterable[GrantedDevice]) -> ContainerGrant:
    """Return all a container gets for its devices, in an order that does not depend on theirs.

    Raises AllocationRefusedError when two nodes would land on one path in the container.
    """
    chosen = sorted(devices, key=lambda one: natural_key(one.id))
    values = _values(rules.name, chosen)
    return ContainerGrant(
        nodes=_nodes(rules, chosen),
        mounts=_mounts(rules, chosen, values),
        envs={key: expand(text, values) for key, text in rules.env.items()},
        annotations={key: expand(text, values) for key, text in rules.annotations.items()},
    )


def _values(resource: str, devices: Sequence[GrantedDevice]) -> dict[str, str]:
    ids = [device.id for device in devices]
    paths = [path for device in devices for path in device.paths]
    names = [_last(path) for path in paths] or [device.name for device in devices]
    return {
        "id": ids[0] if ids else "",
        "ids": ",".join(ids),
        "path": paths[0] if paths else "",
        "paths": ",".join(paths),
        "name": names[0] if names else "",
        "names": ",".join(names),
        "index": "0",
        "resource": resource,
    }


def _nodes(rules: ResourceRules, devices: Sequence[GrantedDevice]) -> tuple[DeviceNodeGrant, ...]:
    found: dict[str, DeviceNodeGrant] = {}
    nodes = [(device, path) for device in devices for path in device.paths]
    for index, (device, path) in enumerate(nodes):
        inside = path
        if rules.container_path is not None:
            own = _values(rules.name, [GrantedDevice(device.id, device.name, (path,))])
            inside = expand(rules.container_path, {**own, "index": str(index)})
        other = found.get(inside)
        if other is not None:
            raise AllocationRefusedError(
                f"{rules.name}: {other.host_path} and {path} would both be {inside} in the container: "
                "put {index} or {name} into container_path"
            )
        found[inside] = DeviceNodeGrant(path, inside, rules.access)
    return tuple(found.values())


def _mounts(
    rules: ResourceRules, devices: Sequence[GrantedDevice], values: Mapping[str, str]
) -> tuple[MountGrant, ...]:
    """Return each mount once a device when its paths name the device, else once."""
    found: dict[str, MountGrant] = {}
    for rule in rules.mounts:
        each: list[Mapping[str, str]] = [
            {**_values(rules.name, [one]), "index": str(index)} for index, one in enumerate(devices)
        ]
        for own in each or [values]:
            mount = MountGrant(expand(rule.host, own), expand(rule.container, own), rule.read_only)
            other = found.setdefault(mount.container_path, mount)
            if other != mount:
                raise AllocationRefusedError(
                    f"{rules.name}: {other.host_path} and {mount.host_path} would both be mounted on "
                    f"{mount.container_path}: put {{index}} or {{id}} into the mount's container path"
                )
    return tuple(found.values())


def _last(path: str) -> str:
    return path.rpartition("/")[2]


# ---- which devices serve best -----------------------------------------------------------------------------------


def preferred(
    candidates: Sequence[Candidate],
    available: Sequence[str],
    must_include: Sequence[str],
    size: int,
    share: Literal["pack", "spread"],
) -> list[str]:
    """Return ``size`` of the available ids, ``must_include`` among them, whatever the order of the input.

    First come the fewest NUMA nodes, then the fewest devices (``pack``) or the most (``spread``), then natural order.
    Raises AllocationRefusedError when the request cannot be met as it stands.
    """
    known = {one.id: one for one in candidates}
    _check(known, available, must_include, size)
    must = [known[one] for one in must_include]
    free = [known[one] for one in available if one in known and one not in set(must_include)]
    chosen = must + _fill(must, _near(must, free, size), size - len(must), share)
    return sorted((one.id for one in chosen), key=natural_key)


def _check(known: Mapping[str, Candidate], available: Sequence[str], must: Sequence[str], size: int) -> None:
    problem = None
    if size < 1:
        problem = f"allocation_size {size} is not positive"
    elif len(set(available)) != len(available) or len(set(must)) != len(must):
        problem = "an id stands twice in the request"
    elif missing := sorted(set(must) - set(available)):
        problem = f"must_include {missing[:5]} is not available"
    elif unknown := sorted(set(must) - known.keys()):
        problem = f"must_include {unknown[:5]} is unknown"
    elif len(must) > size:
        problem = f"must_include has {len(must)} ids, allocation_size is {size}"
    elif len([one for one in available if one in known]) < size:
        problem = f"{size} devices wanted, {len([one for one in available if one in known])} known ones are available"
    if problem is not None:
        raise AllocationRefusedError(f"no preferred allocation: {problem}")


def _near(must: Sequence[Candidate], free: Sequence[Candidate], size: int) -> list[Candidate]:
    """Return the free candidates on the fewest NUMA nodes that suffice together with those ``must`` already uses.

    A device without a node is near to all.
    """
    used = {one.numa_node for one in must if one.numa_node is not None}
    nodes = sorted({one.numa_node for one in free if one.numa_node is not None} - used)
    if len(nodes) > MAX_NUMA_NODES_SEARCHED:
        return list(free)
    wanted = size - len(must)
    for count in range(len(nodes) + 1):
        best: list[Candidate] | None = None
        for extra in combinations(nodes, count):
            near = [one for one in free if one.numa_node is None or one.numa_node in used or one.numa_node in extra]
            # Among as many nodes, the ones with least room left over keep the large ones whole.
            if len(near) >= wanted and (best is None or len(near) < len(best)):
                best = near
        if best is not None:
            return best
    return list(free)


def _fill(
    must: Sequence[Candidate], free: Sequence[Candidate], wanted: int, share: Literal["pack", "spread"]
) -> list[Candidate]:
    groups: dict[str, list[Candidate]] = {}
    for one in sorted(free, key=lambda one: natural_key(one.id)):
        groups.setdefault(one.device, []).append(one)
    used = {one.device for one in must}
    return _packed(groups, used, wanted) if share == "pack" else _spread(groups, must, wanted)


def _packed(groups: Mapping[str, list[Candidate]], used: set[str], wanted: int) -> list[Candidate]:
    """Take from devices already in use, then from the fullest; the last one from the smallest that suffices."""
    chosen: list[Candidate] = []
    left = {device: list(ids) for device, ids in groups.items()}
    for device in sorted(used & left.keys(), key=natural_key):
        chosen += left.pop(device)[: wanted - len(chosen)]
    while len(chosen) < wanted:
        need = wanted - len(chosen)
        enough = [device for device, ids in left.items() if len(ids) >= need]
        if enough:
            device = min(enough, key=lambda one: (len(left[one]), natural_key(one)))
        else:
            device = min(left, key=lambda one: (-len(left[one]), natural_key(one)))
        chosen += left.pop(device)[:need]
    return chosen


def _spread(groups: Mapping[str, list[Candidate]], must: Sequence[Candidate], wanted: int) -> list[Candidate]:
    """Take one at a time from the device least used in this request."""
    load = dict.fromkeys(groups, 0)
    for one in must:
        if one.device in load:
            load[one.device] += 1
    left = {device: list(ids) for device, ids in groups.items()}
    chosen: list[Candidate] = []
    while len(chosen) < wanted:
        device = min((one for one in left if left[one]), key=lambda one: (load[one], natural_key(one)))
        chosen.append(left[device].pop(0))
        load[device] += 1
    return chosen
