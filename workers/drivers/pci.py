"""Driver ``pci``: any PCI function, known by where it is plugged in. Discovery asks the hardware nothing."""

import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path

from devd.ipc.messages import Device, Node
from devd.ipc.patterns import has_magic
from devd.workers.drivers.base import Found, device_id
from devd.workers.drivers.kind import DriverKind, ResetKind
from devd.workers.drivers.pci_resets import FunctionReset, RebindReset, RemoveRescanReset, allowed_resets
from devd.workers.drivers.pci_signals import SIGNALS, PciSignals
from devd.workers.errors import SpecError
from devd.workers.hw import attributes, hexids, pci, selection, subtree, survey
from devd.workers.hw.allowance import Allowance
from devd.workers.params import Params

__all__ = [
    "DRIVER",
    "KEYS",
    "SIGNALS",
    "UEVENTS",
    "FunctionReset",
    "PciDriver",
    "PciSignals",
    "RebindReset",
    "RemoveRescanReset",
    "allowed",
    "properties_of",
]

KEYS = ("vendor", "device", "subsystem_id", "class", "driver", "address", "path", "physfn")
"""What a function can be selected by; each is a property of the device as well."""
UEVENTS = ("pci",)
"""Subsystems whose uevents can change the list: functions come and go, drivers are bound and unbound."""
HEX_KEYS = ("vendor", "device", "subsystem_id", "class")


class PciDriver:
    """``nodes`` are globs of the device nodes a container gets, as below /dev ("dri/*"); none by default.

    A function is offered once it has one of them. ``identity: address`` makes the address the id. Bridges are taken
    only if ``class`` is given.
    """

    def __init__(self, match: Mapping[str, object], *, root: Path = Path("/")) -> None:
        params = Params("match", match)
        self._selection = selection.select(hexids.plain(match, HEX_KEYS), KEYS, ("nodes", "identity"))
        if not self._selection.include:
            raise SpecError(
                f"match: nothing selects, one of {', '.join(KEYS)} is needed: not every function is a device"
            )
        self._nodes = params.texts("nodes")
        self._by_address = params.choice("identity", ("path", "address"), "path") == "address"
        self._root = root
        self.what = self._selection.words("PCI functions")

    def discover(self) -> Found:
        """Read sysfs once. Raises OSError."""
        problems: list[str] = []
        functions = pci.functions(self._root)
        devices = survey.each(functions, lambda one: self._device(one, problems), lambda one: one.address)
        return Found(tuple(devices), tuple(problems), node_directories(self._root, self._nodes))

    def _device(self, one: pci.Function, problems: list[str]) -> Device | None:
        """Return a function as a device; None if it is not selected or (with a problem) has no node. Raises OSError."""
        properties = properties_of(self._root, one)
        if (one.is_bridge and "class" not in self._selection.include) or not self._selection.takes(properties):
            return None
        nodes = chosen_nodes(one.directory, self._nodes)
        if self._nodes and not nodes:
            problems.append(f"{one.address} has none of the nodes {', '.join(self._nodes)}: not offered")
            return None
        name = device_id(one.address if self._by_address else one.path_name)
        return Device(name, nodes, properties, one.numa_node, {"functions": [function_params(one)]})


def node_directories(root: Path, globs: Sequence[str]) -> tuple[Path, ...]:
    """Return the directories in which nodes that fit the globs come and go; those of patterns are left to uevents."""
    parents = (glob.rpartition("/")[0] for glob in globs)
    plain = (root / "dev" / parent for parent in parents if parent and not has_magic(parent))
    return tuple(dict.fromkeys((root / "dev", *(path for path in plain if path.is_dir()))))


def chosen_nodes(directory: Path, globs: Sequence[str]) -> tuple[Node, ...]:
    """Return the nodes of a function whose names below /dev fit one of the globs. Raises OSError."""
    if not globs:
        return ()
    leaves = subtree.own_leaves(directory, pci.ADDRESS)
    return tuple(leaf.node for leaf in leaves if any(fnmatch.fnmatchcase(leaf.name, one) for one in globs))


def properties_of(root: Path, one: pci.Function) -> dict[str, str]:
    """Return what is told of a function; what has no value is left out."""
    found = {
        "sysfs": attributes.below(root, one.directory),
        "subsystem": "pci",
        "address": one.address,
        "path": one.path_name,
        "vendor": one.vendor,
        "device": one.device,
        "subsystem_id": one.subsystem,
        "class": one.class_code,
        "revision": one.revision,
        "driver": one.driver,
        "iommu_group": one.iommu_group,
        "physfn": one.physfn,
        "pcie_switch": pci.switch(one.directory),
    }
    return {key: value for key, value in found.items() if value}


def function_params(one: pci.Function) -> dict[str, object]:
    """Return what the worker needs of a function: where it is, and what it must still say it is."""
    return {"address": one.address, "ids": f"{one.vendor}:{one.device}", "driver": one.driver}


def allowed(device: Device, root: Path = Path("/")) -> Allowance:
    """Return what probing this device needs; a reset needs what its own ``allowed`` adds."""
    directories: dict[str, None] = {}
    for one in PciSignals.functions_of(device):
        directories[attributes.below(root, root / pci.DEVICES / one.address)] = None
        for bridge in pci.upstream(root, one.address)[:1]:
            directories[attributes.below(root, root / pci.DEVICES / bridge)] = None
    return Allowance(
        read=("/proc/sys/kernel/random/boot_id", f"/{pci.DEVICES}", *directories),
        why="sysfs alone is read; no capability is needed for the first 64 bytes of the configuration space",
    )


DRIVER = DriverKind(
    discovery=PciDriver,
    signals=SIGNALS,
    watch=lambda device, tools: PciSignals(device, baseline=tools.baseline),
    allowed=allowed,
    resets={
        "function": ResetKind(
            lambda device, tools: FunctionReset(device, method=tools.options.text("by", "")),
            allowed_resets,
            "the kernel resets the function, by its own choice or the one way that `by` names",
        ),
        "remove-rescan": ResetKind(
            lambda device, _tools: RemoveRescanReset(device),
            allowed_resets,
            "the function is taken off the bus and looked for again",
        ),
        "rebind": ResetKind(
            lambda device, _tools: RebindReset(device), allowed_resets, "the driver lets go and takes the function anew"
        ),
    },
    uevents=UEVENTS,
)
