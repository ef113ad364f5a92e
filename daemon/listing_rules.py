"""What in a listing becomes a path or a word of a command in the next worker, and what it must look like. Pure.

A scout is no more trusted than a worker, and the device it lists decides what the device's worker may reach: a name
with ``..`` in it, or a folder that is none of sysfs, would lead that worker anywhere. Texts that are shown alone (a
model, a serial number) are not looked at here: what a device calls itself is its own affair.
"""

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping

from devd.daemon.config import Resource
from devd.daemon.selection import foreign
from devd.ipc.messages import Device, Listing, Node

MAX_PATH_CHARS = 4095
"""PATH_MAX of limits.h without its NUL."""
MAX_NUMBER = (1 << 64) - 1
"""Of a node: device numbers have 32 bits each, the inode of a file that is no device node 64."""
_SHOWN_CHARS = 100

Rule = Callable[[str], bool]


def _like(pattern: str) -> Rule:
    """Return the rule that a text is this as a whole."""
    compiled = re.compile(pattern, re.ASCII)
    return lambda text: compiled.fullmatch(text) is not None


def _each(rule: Rule) -> Rule:
    """Return the rule for a comma-separated list."""
    return lambda text: all(map(rule, text.split(",")))


def _leads_down(path: str) -> bool:
    """Return whether a path is absolute and no part of it leads up again."""
    return path.startswith("/") and len(path) <= MAX_PATH_CHARS and "\0" not in path and ".." not in path.split("/")


def _is_sysfs(text: str) -> bool:
    # The last part is the kernel's name of the device, which operators put into commands as {name}.
    normal = _leads_down(text) and posixpath.normpath(text) == text
    return normal and text.startswith("/sys/") and _WORD(text.rpartition("/")[2])


_WORD = _like(r"(?!\.{1,2}\Z)[^\x00-\x20/\x7f-][^\x00-\x1f/\x7f]{0,127}")
"""One part of a path that could not be taken for an option: what the kernel names a device, a driver, an interface."""
_ADDRESS = _like(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_NUMBER = _like(r"[0-9]{1,10}")
_CONTROLLER = _like(r"nvme[0-9]{1,10}")
_NAMESPACE = _like(r"(nvme[0-9]{1,10}n[0-9]{1,10})?")
_DISK = _like(r"nvme[0-9]{1,10}(n[0-9]{1,10})?")
_USB = _like(r"[0-9]{1,5}-[0-9]{1,3}(\.[0-9]{1,3}){0,6}")
_TTY = _like(r"/dev/tty[A-Za-z][A-Za-z0-9_]{0,31}")
_GPU = _like(r"[A-Za-z0-9-]{1,64}")

_EVERYWHERE: Mapping[str, Rule] = {"sysfs": _is_sysfs}
PROPERTIES: Mapping[str, Mapping[str, Rule]] = {
    "infiniband": {"name": _WORD, "address": _WORD, "netdev": _each(_WORD), "driver": _WORD},
    "nvidia": {"address": _ADDRESS, "minor": _NUMBER, "name": _like(r"nvidia[0-9]{1,10}")},
    "nvme": {"name": _DISK},
    "pci": {"address": _ADDRESS, "driver": _WORD},
    "usb": {"name": _USB},
    "vfio": {"address": _ADDRESS, "addresses": _each(_ADDRESS), "driver": _WORD},
}
"""Driver -> property -> what it must be like, where it has a value."""
PARAMS: Mapping[str, Mapping[str, Rule]] = {
    "nvidia": {"address": _ADDRESS, "gpu_uuid": _GPU},
    "nvme": {"namespace": _NAMESPACE, "controllers.name": _CONTROLLER, "controllers.sysfs": _is_sysfs},
    "pci": {"functions.address": _ADDRESS, "functions.driver": _WORD},
    "usb": {"name": _USB, "ttys": _TTY},
    "vfio": {"functions.address": _ADDRESS, "functions.driver": _WORD, "group": _NUMBER},
}
"""The same for what goes to the worker alone. Keys are joined by points; a list stands for each of its entries."""


def breach(resource: Resource, listing: Listing) -> str:
    """Return what a resource's scout may not have listed, or nothing."""
    for device in listing.devices:
        if found := _of_device(resource, device):
            return f"listed {device.id!r:.60} with {found}"
    if path := foreign(resource, listing):
        return f"listed {path!r:.120}, which the selector of {resource.name} does not name"
    return ""


def _of_device(resource: Resource, device: Device) -> str:
    for node in device.nodes:
        if found := _of_node(node):
            return found
    if resource.driver == "sim":
        return ""  # nothing of what it lists leads anywhere: its properties are the configuration's own
    properties = {**PROPERTIES.get(resource.driver, {}), **_EVERYWHERE}
    for name, rule in properties.items():
        text = device.properties.get(name, "")
        if text and not rule(text):
            return f"the property {name} {text!r:.{_SHOWN_CHARS}}"
    for name, rule in PARAMS.get(resource.driver, {}).items():
        for value in _values(device.params, name.split(".")):
            if not isinstance(value, str) or (value and not rule(value)):
                return f"the parameter {name} {value!r:.{_SHOWN_CHARS}}"
    return ""


def _of_node(node: Node) -> str:
    if not _leads_down(node.path):
        return f"the node {node.path!r:.{_SHOWN_CHARS}}"
    if not all(0 <= number <= MAX_NUMBER for number in (node.major, node.minor)):
        return f"the numbers {node.major}:{node.minor} of {node.path}"
    return ""


def _values(value: object, keys: list[str]) -> Iterator[object]:
    """Yield what stands under these keys, of each entry where there is a list; null is nothing."""
    if isinstance(value, list | tuple):
        for one in value:
            yield from _values(one, keys)
    elif not keys:
        if value is not None:
            yield value
    elif isinstance(value, Mapping):
        yield from _values(value.get(keys[0]), keys[1:])
    elif value is not None:
        yield value  # no map where one belongs: no rule lets it through but for a text
