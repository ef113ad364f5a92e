"""Driver ``vfio``: PCI functions set aside for virtual machines, one device for each IOMMU group.

A group can be handed to one machine at a time, whole: functions of one group are never offered apart.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from devd.ipc.messages import Device, Node
from devd.workers.drivers.base import Found, device_id
from devd.workers.drivers.kind import DriverKind, ResetKind
from devd.workers.drivers.pci import HEX_KEYS, KEYS, function_params, properties_of
from devd.workers.drivers.pci import allowed as allowed_pci
from devd.workers.drivers.pci_resets import FunctionReset, allowed_resets
from devd.workers.drivers.pci_signals import SIGNALS as PCI_SIGNALS
from devd.workers.drivers.pci_signals import PciSignals
from devd.workers.drivers.signals import Signal
from devd.workers.errors import SpecError
from devd.workers.hw import attributes, hexids, pci, pci_reach, selection, survey, vfio
from devd.workers.hw.allowance import Allowance
from devd.workers.params import Params
from devd.workers.sandbox.requests import Request

__all__ = ["DRIVER", "KEYS", "SIGNALS", "UEVENTS", "GroupReset", "VfioDriver", "VfioSignals", "allowed"]

UEVENTS = ("pci", "vfio", "vfio-dev")
"""Subsystems whose uevents can change the list."""
SIGNALS = (
    *(one for one in PCI_SIGNALS if one.name != "decode"),
    Signal("viable", "a member of the IOMMU group is bound to a driver of the host; bind it to vfio-pci or unbind it"),
    Signal("group", "the group does not open or is not viable; opening it can meet a machine's start", default=False),
)

GroupFlags = Callable[[Path], int | None]
"""Group's node -> its flags, None while it is in use."""


class VfioDriver:
    """``backend: group`` gives /dev/vfio/GROUP and the shared container node, ``cdev`` iommufd's nodes.

    ``noiommu: true`` offers groups that isolate nothing as well.
    """

    def __init__(self, match: Mapping[str, object], *, root: Path = Path("/")) -> None:
        params = Params("match", match)
        self._selection = selection.select(hexids.plain(match, HEX_KEYS), KEYS, ("backend", "noiommu"))
        self._backend = params.choice("backend", ("group", "cdev"), "group")
        unsafe = params.values.get("noiommu", False)
        if not isinstance(unsafe, bool):
            raise SpecError(f"match.noiommu: {unsafe!r:.80} found, true or false is needed")
        self._unsafe = unsafe
        self._root = root
        self.what = self._selection.words("PCI functions bound to VFIO")

    def discover(self) -> Found:
        """Read sysfs once. Raises OSError."""
        groups: dict[str, list[pci.Function]] = {}
        problems: list[str] = []
        for one in pci.functions(self._root):
            if not self._selection.takes(properties_of(self._root, one)):
                continue
            if not vfio.takes(one.driver):
                if self._selection.include and not one.is_bridge:
                    problems.append(f"{one.address} is bound to {one.driver or 'no driver'}, not to VFIO: not offered")
            elif not one.iommu_group:
                problems.append(f"{one.address} is in no IOMMU group: not offered")
            else:
                groups.setdefault(one.iommu_group, []).append(one)
        found = survey.each(
            groups, lambda group: self._device(group, groups[group], problems), lambda group: f"IOMMU group {group}"
        )
        return Found(tuple(found), tuple(problems), (self._root / "dev/vfio", self._root / "dev"))

    def _device(self, group: str, members: Sequence[pci.Function], problems: list[str]) -> Device | None:
        """Return a group as a device; None, with a problem, when there is nothing to hand over."""
        no_iommu = vfio.has_no_iommu(self._root, group)
        if no_iommu and not self._unsafe:
            problems.append(f"IOMMU group {group} isolates nothing (no-IOMMU mode): not offered")
            return None
        own, shared = self._nodes(f"noiommu-{group}" if no_iommu else group, members)
        if not own:
            words = "/dev/vfio/devices" if self._backend == "cdev" else "/dev/vfio"
            problems.append(f"IOMMU group {group} has no node in {words}: not offered")
            return None
        first = min(members, key=lambda one: one.path_name)
        properties = properties_of(self._root, first) | {
            "addresses": ",".join(one.address for one in members),
        }
        params: dict[str, object] = {
            "functions": [function_params(one) for one in members],
            "group": group,
        }
        return Device(device_id(first.path_name), own + shared, properties, first.numa_node, params)

    def _nodes(self, group: str, members: Sequence[pci.Function]) -> tuple[tuple[Node, ...], tuple[Node, ...]]:
        """Return the nodes of the group alone, and those that all groups share."""
        if self._backend == "group":
            return vfio.group_node(self._root, group), _shared(vfio.container_node(self._root))
        own = tuple(node for one in members for node in vfio.device_nodes(one.directory))
        return own, _shared(vfio.iommu_node(self._root))


def _shared(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    return tuple(replace(node, shared=True) for node in nodes)


class VfioSignals:
    """The signals of a group: those of its functions, and whether it can be handed over."""

    def __init__(
        self,
        device: Device,
        *,
        root: Path = Path("/"),
        baseline: Mapping[str, object] | None = None,
        group_flags: GroupFlags = vfio.group_flags,
    ) -> None:
        self._pci = PciSignals(device, root=root, baseline=baseline)
        self._root = root
        self._group = Params("params", device.params).text("group")
        self._flags = group_flags
        paths = [node.path for node in device.nodes]
        self._path = next((one for one in paths if one == f"/dev/vfio/{self._group}"), "")
        self._notes: dict[str, str] = {}

    @property
    def offered(self) -> tuple[str, ...]:
        """Return the signals this device has."""
        functions = tuple(name for name in self._pci.offered if name != "decode")
        return (*functions, "viable", *(("group",) if self._path else ()))

    @property
    def notes(self) -> Mapping[str, str]:
        """Return what is worth telling although it is no fault (what -> text)."""
        return {**self._pci.notes, **self._notes}

    @property
    def baseline(self) -> Mapping[str, object]:
        """Return the counters' baseline to keep for the next worker."""
        return self._pci.baseline

    def cured(self) -> None:
        """Take the errors counted so far as the new baseline: a reset has worked."""
        self._pci.cured()

    def check(self, name: str) -> str:
        """Return "" when a signal is well or not offered, else the reason. Raises OSError, SpecError."""
        if name == "viable":
            found = vfio.blockers(self._root, self._group)
            return f"IOMMU group {self._group} cannot be handed over: {', '.join(found)}" if found else ""
        if name == "group":
            return self._check_group()
        return self._pci.check(name)

    def _check_group(self) -> str:
        if not self._path:
            return ""
        flags = self._flags(attributes.under(self._root, self._path))
        if flags is None:
            self._notes["group"] = "in use (EBUSY)"
            return ""
        self._notes.pop("group", None)
        return "" if flags & vfio.FLAG_VIABLE else f"{self._path} says that its group is not viable"


class GroupReset(FunctionReset):
    """Write ``reset`` of each function of the device, when nobody has anything of its IOMMU group open."""

    def __init__(self, device: Device, *, root: Path = Path("/"), method: str = "") -> None:
        super().__init__(device, root=root, method=method)
        self._group = Params("params", device.params).text("group")

    def reach(self) -> pci_reach.Reach:
        """Return what goes along, and the other members that VFIO has: a machine with one of them has the group."""
        found = super().reach()
        members = [
            address
            for address in pci.group_members(self._root, self._group)
            if vfio.takes(attributes.target(self._root / pci.DEVICES / address / "driver"))
        ]
        return pci_reach.Reach(self._root, tuple(dict.fromkeys((*found.addresses, *members))))


def allowed(device: Device, root: Path = Path("/")) -> Allowance:
    """Return what probing this device needs; a reset needs what ``pci_resets.allowed_resets`` adds."""
    group = Params("params", device.params).text("group")
    return Allowance(
        read=(*allowed_pci(device, root).read, f"/{pci.GROUPS}/{group}", "/sys/class/vfio"),
        ioctl=(f"/dev/vfio/{group}",),
        requests=(Request(vfio.VFIO_GROUP_GET_STATUS),),
        why="the group's node is opened for the signal group alone, which is off by default",
    )


DRIVER = DriverKind(
    discovery=VfioDriver,
    signals=SIGNALS,
    watch=lambda device, tools: VfioSignals(device, baseline=tools.baseline),
    allowed=allowed,
    resets={
        "function": ResetKind(
            lambda device, tools: GroupReset(device, method=tools.options.text("by", "")),
            allowed_resets,
            "the kernel resets each function of the group",
        ),
    },
    uevents=UEVENTS,
)
