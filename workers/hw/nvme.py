"""NVMe as the kernel shows it: controllers, namespaces and the subsystems that join them. Reads sysfs only."""

import re
from dataclasses import dataclass
from pathlib import Path

from devd.workers.hw import attributes, survey

CONTROLLER = re.compile(r"nvme[0-9]+")
NAMESPACE = re.compile(r"nvme[0-9]+n[0-9]+")
"""A namespace's block device: the only path to it, or the head of several (native multipath)."""
PATH = re.compile(r"nvme[0-9]+c[0-9]+n[0-9]+")
"""One controller's hidden path to a namespace whose head stands in the subsystem's directory."""
_EMPTY_WWID = re.compile(r"(eui\.|nvme\.|uuid\.)?[0-]*")


@dataclass(frozen=True, slots=True)
class Controller:
    """One controller. ``address`` is its PCI address, or the transport's for fabrics."""

    name: str
    directory: Path
    model: str
    serial: str
    firmware: str
    address: str
    transport: str
    subsysnqn: str
    numa_node: int | None


@dataclass(frozen=True, slots=True)
class Namespace:
    """One namespace's block device, with all controllers that lead to it. ``wwid`` is "" where it has none."""

    name: str
    directory: Path
    wwid: str
    controllers: tuple[Controller, ...]


def controllers(root: Path) -> list[Controller]:
    """Return all controllers in the order of their numbers. Raises OSError."""
    base = root / "sys/class/nvme"
    return survey.each(attributes.numbered(base, CONTROLLER), lambda name: _controller(base / name))


def namespaces(root: Path, of: list[Controller]) -> list[Namespace]:
    """Return the namespaces of these controllers, each once however many paths lead to it. Raises OSError."""
    ways: dict[str, tuple[Path, list[Controller]]] = {}
    for controller in of:
        for name in attributes.numbered(controller.directory, NAMESPACE):
            _add(ways, controller.directory / name, controller)
    by_name = {controller.name: controller for controller in of}
    base = root / "sys/class/nvme-subsystem"
    for subsystem in attributes.names(base):
        members = attributes.numbered(base / subsystem, CONTROLLER)
        for name in attributes.numbered(base / subsystem, NAMESPACE):
            for member in members:
                if member in by_name and _leads_to(by_name[member], name):
                    _add(ways, base / subsystem / name, by_name[member])
    return survey.each(ways, lambda name: _namespace(name, *ways[name]))


def state(directory: Path) -> str:
    """Return a controller's state ("live"), "" where the kernel tells none. Raises OSError."""
    return attributes.text(directory / "state") or ""


def subsystem_members(root: Path, name: str) -> list[str]:
    """Return the controllers that one subsystem reset takes along, the given one first. Raises OSError."""
    base = root / "sys/class/nvme-subsystem"
    for subsystem in attributes.names(base):
        members = attributes.numbered(base / subsystem, CONTROLLER)
        if name in members:
            return [name, *(member for member in members if member != name)]
    return [name]


def _controller(directory: Path) -> Controller:
    def text(name: str) -> str:
        return attributes.text(directory / name) or ""

    def optional(name: str) -> str:
        return attributes.optional(directory / name)

    # ``address`` is "traddr=..,trsvcid=.." for fabrics; for PCI the parent device's name says the same in old kernels.
    address = text("address") or attributes.target(directory / "device")
    return Controller(
        name=directory.name,
        directory=directory,
        model=optional("model"),
        serial=text("serial"),
        firmware=optional("firmware_rev"),
        address=address,
        transport=optional("transport"),
        subsysnqn=optional("subsysnqn"),
        numa_node=_numa_node(directory),
    )


def _numa_node(directory: Path) -> int | None:
    own = attributes.numa_node(directory)
    return own if own is not None else attributes.numa_node(directory / "device")


def _add(ways: dict[str, tuple[Path, list[Controller]]], directory: Path, controller: Controller) -> None:
    _directory, known = ways.setdefault(directory.name, (directory, []))
    if controller not in known:
        known.append(controller)


def _namespace(name: str, directory: Path, of: list[Controller]) -> Namespace:
    return Namespace(name, directory, _wwid(directory), tuple(of))


def _wwid(directory: Path) -> str:
    """Return a namespace's own name, "" for one of zeros, which cheap devices have."""
    wwid = attributes.text(directory / "wwid") or ""
    return "" if _EMPTY_WWID.fullmatch(wwid) else wwid


def _leads_to(controller: Controller, head: str) -> bool:
    """Return whether a controller has a path to a head: nvme1c3n2 is a path of nvme1n2."""
    paths = attributes.numbered(controller.directory, PATH)
    return any(re.sub(r"c[0-9]+", "", path) == head for path in paths)
