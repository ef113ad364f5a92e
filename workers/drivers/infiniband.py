"""Driver ``infiniband``: RDMA devices with their bundle of nodes, known by GUID. Discovery opens nothing."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from devd.ipc.messages import Device, Node
from devd.workers.drivers.base import Found
from devd.workers.drivers.infiniband_resets import (
    FunctionReset,
    LinkReset,
    RecoverReset,
    ReloadReset,
    is_function,
)
from devd.workers.drivers.infiniband_signals import SIGNALS, InfinibandSignals
from devd.workers.drivers.kind import DriverKind, ResetKind
from devd.workers.drivers.twins import Candidate, Twins, listed
from devd.workers.errors import SpecError
from devd.workers.hw import attributes, infiniband, pci, selection, survey
from devd.workers.hw.allowance import Allowance
from devd.workers.params import Params
from devd.workers.sandbox.reach import PLACES
from devd.workers.sandbox.runtime import SYSFS

__all__ = [
    "DRIVER",
    "KEYS",
    "SIGNALS",
    "FunctionReset",
    "InfinibandDriver",
    "InfinibandSignals",
    "LinkReset",
    "RecoverReset",
    "ReloadReset",
    "allowed",
]

KEYS = ("name", "node_guid", "hca_type", "board_id", "firmware", "driver", "address", "link_layer", "netdev", "physfn")
"""What a device can be selected by; each is a property of the device as well. ``physfn`` is a virtual function's."""
BUNDLE = ("uverbs", "umad", "rdma_cm")


class InfinibandDriver:
    """``ports`` are those that count (all by default); ``nodes`` is what a container gets of the bundle."""

    def __init__(self, match: Mapping[str, object], *, root: Path = Path("/")) -> None:
        params = Params("match", match)
        self._selection = selection.select(match, KEYS, ("ports", "nodes"))
        self._ports = _whole_numbers(params)
        self._bundle = params.texts("nodes") or list(BUNDLE)
        for kind in self._bundle:
            if kind not in BUNDLE:
                raise SpecError(f"match.nodes: {kind!r} found, allowed are {', '.join(BUNDLE)}")
        self._root = root
        self.twins = Twins()
        self.what = self._selection.words("RDMA devices")

    def discover(self) -> Found:
        """Read sysfs once. Raises OSError."""
        problems: list[str] = []
        adapters = infiniband.adapters(self._root)
        candidates = survey.each(adapters, lambda one: self._candidate(one, problems), lambda one: one.name)
        devices, twins = listed(candidates, self._selection, self.twins)
        directories = (self._root / "dev/infiniband", self._root / "dev")
        return Found(tuple(devices), tuple(twins + problems), directories)

    def _candidate(self, adapter: infiniband.Adapter, problems: list[str]) -> Candidate | None:
        """Return the adapter as a candidate; None, with a problem, when it cannot be used. Raises OSError."""
        ports = tuple(port for port in adapter.ports if not self._ports or port in self._ports)
        by_kind = infiniband.char_nodes(self._root, adapter.name)
        if not by_kind["uverbs"]:
            problems.append(f"{adapter.name} has no uverbs node: is the module ib_uverbs loaded?")
            return None
        if not ports:
            problems.append(f"{adapter.name} has none of the ports {self._ports}: skipped")
            return None
        suffix = "".join(f"-p{port}" for port in ports) if self._ports else ""
        return Candidate(
            own_name=f"{adapter.guid}{suffix}" if adapter.guid else "",
            port=f"{adapter.place}{suffix}",
            nodes=tuple(_of(kind, node) for kind in self._bundle for node in by_kind[kind]),
            properties=self._properties(adapter, ports),
            numa_node=adapter.numa_node,
            params={"ports": list(ports), "devlink": adapter.devlink},
        )

    def _properties(self, adapter: infiniband.Adapter, ports: tuple[int, ...]) -> dict[str, str]:
        def text(name: str) -> str:
            return attributes.optional(adapter.directory / name)

        return {
            "sysfs": attributes.below(self._root, adapter.directory),
            "subsystem": "infiniband",
            "name": adapter.name,
            "node_guid": adapter.guid,
            "hca_type": text("hca_type"),
            "board_id": text("board_id"),
            "firmware": text("fw_ver"),
            "driver": adapter.driver,
            "address": adapter.address,
            "link_layer": infiniband.link_layer(adapter.directory, ports[0]),
            "netdev": ",".join(infiniband.interfaces(self._root, adapter.directory, ports)),
            "physfn": attributes.target(adapter.directory / "device" / "physfn"),
            "pcie_switch": pci.switch(adapter.directory),
        }


def _of(kind: str, node: Node) -> Node:
    """Return a node of the bundle: the connection manager's is one for all adapters."""
    return replace(node, shared=True) if kind == "rdma_cm" else node


def allowed(device: Device) -> Allowance:
    """Return what probing this device needs."""
    netdevs = [name for name in device.properties.get("netdev", "").split(",") if name]
    address = device.properties.get("address", "")
    return Allowance(
        read=(
            "/proc/sys/kernel/random/boot_id",
            "/sys/class/infiniband",
            device.properties["sysfs"],
            *([f"/sys/bus/pci/devices/{address}"] if address else []),
            *(f"/sys/class/net/{name}" for name in netdevs),
        ),
        execute=("devlink",) if address else (),
        sockets=("AF_NETLINK",) if address or netdevs else (),
        capabilities=("CAP_NET_ADMIN",) if address else (),
        why="without netlink the firmware's signals (devlink) are not offered, and links are looked at with each probe",
    )


def _whole_numbers(params: Params) -> tuple[int, ...]:
    numbers = params.numbers("ports") if params.has("ports") else []
    if any(number != int(number) or number < 1 for number in numbers):
        raise SpecError(f"match.ports: {numbers} found, whole numbers from 1 on are needed")
    return tuple(sorted({int(number) for number in numbers}))


def allowed_devlink(device: Device) -> Allowance:  # noqa: ARG001 - each reset kind is asked alike
    """Return what the resets by devlink need beyond probing: to look who uses the function, and devlink itself."""
    return Allowance(
        read=(*SYSFS, "/proc"),
        execute=("devlink",),
        sockets=("AF_NETLINK",),
        capabilities=("CAP_NET_ADMIN",),
        why="devlink speaks netlink",
    )


def allowed_link(device: Device) -> Allowance:  # noqa: ARG001 - each reset kind is asked alike
    """Return what setting a link needs beyond probing: to look who uses the function, and rtnetlink."""
    return Allowance(
        read=(*SYSFS, "/proc"),
        sockets=("AF_NETLINK",),
        capabilities=("CAP_NET_ADMIN",),
        why="an interface is set down and up by rtnetlink",
    )


def allowed_function(device: Device) -> Allowance:
    """Return what the function's reset needs beyond probing: to look who uses it, and its directory."""
    own = is_function(device)
    return Allowance(
        read=(*SYSFS, "/proc"),
        write=(f"/sys/bus/pci/devices/{device.properties['address']}",) if own else (),
        capabilities=("CAP_DAC_OVERRIDE",),
        why="the attribute that resets is for root alone",
    )


DRIVER = DriverKind(
    discovery=InfinibandDriver,
    signals=SIGNALS,
    watch=lambda device, tools: InfinibandSignals(device, baseline=tools.baseline, runner=tools.runner, events=True),
    allowed=allowed,
    resets={
        "recover": ResetKind(
            lambda device, tools: RecoverReset(device, tools.runner), allowed_devlink, "the firmware recovers itself"
        ),
        "link": ResetKind(lambda device, _tools: LinkReset(device), allowed_link, "the interface goes down and up"),
        "reload": ResetKind(
            lambda device, tools: ReloadReset(device, tools.runner), allowed_devlink, "the driver goes down and up"
        ),
        "function": ResetKind(
            lambda device, _tools: FunctionReset(device), allowed_function, "the PCI function, if it takes nobody along"
        ),
    },
    uevents=("infiniband", "infiniband_verbs", "infiniband_mad", "net", "pci"),
    places=(*PLACES, "/proc"),
)
