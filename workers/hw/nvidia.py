"""NVIDIA GPUs as their driver shows them in /proc: discovery needs no library and wakes no GPU."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from devd.ipc.messages import Node
from devd.workers.hw import attributes, survey

BASE = "proc/driver/nvidia"
ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
UUID = re.compile(r"GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""The driver writes question marks for a GPU that nobody has initialised yet."""
CONTROL_MINOR = 255
"""Minor number of /dev/nvidiactl, whose major is the GPUs' own."""
_LINE = re.compile(r"([^:]+):[ \t]*(.*)")
_INSTANCE = re.compile(r"gi([0-9]+)")
_COMPUTE = re.compile(r"ci([0-9]+)")
_MAJORS = ("nvidia-frontend", "nvidia")
"""What /proc/devices calls the GPUs' nodes, in older and newer drivers."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU. ``uuid`` is "" while the driver does not know it, ``minor`` None where it tells none."""

    address: str
    model: str
    uuid: str
    minor: int | None
    excluded: bool
    numa_node: int | None


@dataclass(frozen=True, slots=True)
class Instance:
    """One MIG device: a compute instance of a GPU instance, with the minors of the two nodes that allow its use."""

    gpu_instance: int
    compute_instance: int
    cap_minors: tuple[int, int]


def gpus(root: Path) -> list[Gpu]:
    """Return all GPUs that the driver has, sorted by address. Raises OSError."""
    base = root / BASE / "gpus"
    return survey.each([one for one in attributes.names(base) if ADDRESS.fullmatch(one)], lambda one: _gpu(root, one))


def driver_version(root: Path) -> str:
    """Return the loaded driver's version, "" if it is not loaded. Raises OSError."""
    return attributes.text(root / "sys/module/nvidia/version") or ""


def instances(root: Path, gpu: Gpu) -> list[Instance]:
    """Return the MIG devices that a GPU is split into, none if it is not. Raises OSError."""
    base = root / BASE / "capabilities" / f"gpu{gpu.minor}" / "mig"
    found = []
    for outer in attributes.numbered(base, _INSTANCE):
        access = _cap_minor(base / outer)
        for inner in attributes.numbered(base / outer, _COMPUTE):
            minors = access, _cap_minor(base / outer / inner)
            if minors[0] is not None and minors[1] is not None:
                found.append(Instance(_in(outer), _in(inner), (minors[0], minors[1])))
    return found


def nodes(root: Path, gpu: Gpu, instance: Instance | None = None) -> tuple[Node, ...]:
    """Return what a container needs of a GPU or of one of its MIG devices; none if the driver tells no numbers.

    The node for profiling unified memory is left out where udev has not made it. Raises OSError.
    """
    majors = _majors(root)
    major = next((majors[name] for name in _MAJORS if name in majors), None)
    if major is None or gpu.minor is None:
        return ()
    # All parts of a split GPU come by its own node.
    found = [Node(f"/dev/nvidia{gpu.minor}", "char", major, gpu.minor, shared=instance is not None)]
    if instance is not None:
        if "nvidia-caps" not in majors:
            return ()
        found.extend(_cap(majors["nvidia-caps"], minor) for minor in instance.cap_minors)
    found.append(Node("/dev/nvidiactl", "char", major, CONTROL_MINOR, shared=True))
    if "nvidia-uvm" in majors:
        found.append(Node("/dev/nvidia-uvm", "char", majors["nvidia-uvm"], 0, shared=True))
        if (root / "dev/nvidia-uvm-tools").exists():
            found.append(Node("/dev/nvidia-uvm-tools", "char", majors["nvidia-uvm"], 1, shared=True))
    return tuple(found)


def _gpu(root: Path, address: str) -> Gpu:
    fields = _fields(attributes.content(root / BASE / "gpus" / address / "information") or "")
    uuid = fields.get("GPU UUID", "")
    return Gpu(
        address=address,
        model=fields.get("Model", ""),
        uuid=uuid if UUID.fullmatch(uuid) else "",
        minor=attributes.number(fields.get("Device Minor")),
        excluded=fields.get("GPU Excluded", fields.get("GPU Blacklisted", "No")) == "Yes",
        numa_node=attributes.numa_node(root / "sys/bus/pci/devices" / address),
    )


def _fields(found: str) -> Mapping[str, str]:
    matches = (_LINE.fullmatch(line) for line in found.splitlines())
    return {match[1].strip(): match[2].strip() for match in matches if match}


def _cap_minor(directory: Path) -> int | None:
    fields = _fields(attributes.content(directory / "access") or "")
    return attributes.number(fields.get("DeviceFileMinor"))


def _in(name: str) -> int:
    return int(name[2:])


def _cap(major: int, minor: int) -> Node:
    return Node(f"/dev/nvidia-caps/nvidia-cap{minor}", "char", major, minor)


def _majors(root: Path) -> Mapping[str, int]:
    """Return the character devices' major numbers by driver name."""
    lines = (attributes.content(root / "proc/devices") or "").partition("Block devices")[0].splitlines()
    pairs = (line.split() for line in lines)
    return {pair[1]: int(pair[0]) for pair in pairs if len(pair) == len(("number", "name")) and pair[0].isdecimal()}
