"""CDI (Container Device Interface): the names of a resource's devices there, and what makes them mean something. Pure.

A container runtime that is told ``vendor/class=device`` looks it up in the specifications of its directories and edits
the container accordingly. A specification is there before anybody asks, and the edits of several devices are applied
one after the other: it can hold only what does not depend on what else a container gets.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from devd.daemon.errors import AllocationRefusedError
from devd.daemon.grants import GrantedDevice, ResourceRules, grant
from devd.daemon.resource import ContainerGrant, MountGrant
from devd.ipc.messages import Device

MAX_SPEC_BYTES = 2 * 1024 * 1024
"""Half of what a message between processes may have; some 6,000 devices."""
VENDOR_PREFIX = "devd."
"""A vendor of devd's own: a resource may be named as the kind that the hardware's vendor specifies himself."""
MAX_FILE_NAME_CHARS = 120
QUALIFIED = re.compile(
    r"[A-Za-z]([A-Za-z0-9_.-]*[A-Za-z0-9])?/[A-Za-z]([A-Za-z0-9_.-]*[A-Za-z0-9])?=[A-Za-z0-9]([A-Za-z0-9_.:-]*[A-Za-z0-9])?"
)
"""A fully qualified name, by CDI's rules for vendor, class and device."""

_DEVICE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.:-]*[A-Za-z0-9])?")
_TYPES = {"char": "c", "block": "b"}
_SHARED = frozenset({"index", "ids", "paths", "names"})
"""Placeholders that depend on all devices of a container."""


class CdiError(Exception):
    """Raised when CDI cannot give a device or a resource as it is configured; the text names it and says why."""


@dataclass(frozen=True, slots=True)
class NodeEdit:
    """A device node as a specification has it. With its numbers, so that nobody has to stat what may be a link."""

    container_path: str
    host_path: str
    type: str
    major: int
    minor: int
    permissions: str


@dataclass(frozen=True, slots=True)
class Edits:
    """What one device brings into a container."""

    nodes: tuple[NodeEdit, ...] = ()
    mounts: tuple[MountGrant, ...] = ()

    def __bool__(self) -> bool:
        """Return whether there is anything: CDI refuses a device without edits."""
        return bool(self.nodes or self.mounts)


def kind(resource: str) -> str:
    """Return a resource's CDI kind: ``devd.example.com/serial`` for ``example.com/serial``. No two have the same."""
    domain, _, name = resource.partition("/")
    # CDI's classes begin with a letter; so that this stays one to one, what looks like our own prefix gets it as well.
    fitting = name if name[0].isalpha() and not name.startswith("x-") else f"x-{name}"
    return f"{VENDOR_PREFIX}{domain}/{fitting}"


def device_name(device: str) -> str:
    """Return the CDI name of a device id: the id itself if it is one, else one that no other id has."""
    return device if _DEVICE.fullmatch(device) and not device.startswith("x:") else f"x:{device}:x"


def qualified(resource: str, device: str) -> str:
    """Return the name by which a runtime is told of a device."""
    return f"{kind(resource)}={device_name(device)}"


def file_name(resource: str) -> str:
    """Return the name of a resource's specification in the runtimes' directory; no two resources have the same."""
    # A domain has no underscore: vendor and class are told apart by the first one.
    name = f"{kind(resource).replace('/', '_')}.json"
    if len(name) <= MAX_FILE_NAME_CHARS:
        return name
    return f"{VENDOR_PREFIX}{hashlib.sha256(resource.encode()).hexdigest()}.json"


def digest(text: str) -> str:
    """Return what a specification's text is known by, "" for none."""
    return hashlib.sha256(text.encode()).hexdigest() if text else ""


def shared_placeholders(used: frozenset[str]) -> frozenset[str]:
    """Return those of some placeholders that depend on what else the container gets."""
    return used & _SHARED


def granted(device: Device) -> GrantedDevice:
    """Return a device as what containers get is made of it."""
    name = device.nodes[0].path.rpartition("/")[2] if device.nodes else device.id
    return GrantedDevice(device.id, name, tuple(node.path for node in device.nodes), device.properties)


def edits(rules: ResourceRules, device: Device) -> Edits:
    """Return what a container gets of one device alone. Raises CdiError."""
    try:
        alone = grant(rules, [granted(device)])
    except AllocationRefusedError as error:
        raise CdiError(str(error)) from error
    nodes = {node.path: node for node in device.nodes}
    found = []
    for one in alone.nodes:
        node = nodes[one.host_path]
        if node.kind not in _TYPES:
            raise CdiError(f"{rules.name}: {node.path} of {device.id} is no device node: CDI cannot give it")
        found.append(
            NodeEdit(one.container_path, one.host_path, _TYPES[node.kind], node.major, node.minor, one.permissions)
        )
    return Edits(tuple(found), alone.mounts)


def specification(resource: str, devices: Mapping[str, Edits]) -> str:
    """Return the text of a resource's specification, "" when no device has edits. Raises CdiError."""
    listed = {device_name(device): one for device, one in sorted(devices.items()) if one}
    if not listed:
        return ""
    spec = {
        "cdiVersion": _version(kind(resource), listed),
        "kind": kind(resource),
        "devices": [{"name": name, "containerEdits": _container_edits(one)} for name, one in listed.items()],
    }
    text = json.dumps(spec, indent=1) + "\n"
    if len(text) > MAX_SPEC_BYTES:
        raise CdiError(
            f"{resource}: a CDI specification of {len(listed)} devices has {len(text)} bytes, at most {MAX_SPEC_BYTES} "
            "are possible: split the resource in two"
        )
    return text


def by_name(full: ContainerGrant, *, only: bool, names: Sequence[str], covered: Sequence[Edits]) -> ContainerGrant:
    """Return what a container gets beside the names of its devices.

    ``only``: no device nodes, and none of the mounts that specifications of devd's (``covered``) bring. Variables and
    annotations always: they may tell of all devices together, which no specification of single ones can.
    """
    if not only:
        return replace(full, cdi=tuple(names))
    brought = {one for edit in covered for one in edit.mounts}
    return replace(full, nodes=(), mounts=tuple(one for one in full.mounts if one not in brought), cdi=tuple(names))


def _version(kind_: str, devices: Mapping[str, Edits]) -> str:
    """Return the lowest version that has what is used: older runtimes refuse a newer one."""
    if "." in kind_.partition("/")[2]:
        return "0.6.0"
    apart = any(node.host_path != node.container_path for one in devices.values() for node in one.nodes)
    return "0.5.0" if apart or not all(name[0].isalpha() for name in devices) else "0.3.0"


def _container_edits(found: Edits) -> dict[str, object]:
    said: dict[str, object] = {}
    if found.nodes:
        said["deviceNodes"] = [_node(one) for one in found.nodes]
    if found.mounts:
        said["mounts"] = [
            {
                "hostPath": one.host_path,
                "containerPath": one.container_path,
                "options": ["rbind", "rprivate", "ro" if one.read_only else "rw"],
            }
            for one in found.mounts
        ]
    return said


def _node(one: NodeEdit) -> dict[str, object]:
    apart = {"hostPath": one.host_path} if one.host_path != one.container_path else {}
    numbers = {"type": one.type, "major": one.major, "minor": one.minor}
    return {"path": one.container_path, **apart, **numbers, "permissions": one.permissions}
