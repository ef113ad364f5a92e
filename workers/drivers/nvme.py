"""Driver ``nvme``: namespaces (disks) or controllers, known by what they call themselves. Discovery opens nothing."""

from collections.abc import Mapping
from pathlib import Path

from devd.ipc.messages import Device
from devd.workers.drivers.base import Found
from devd.workers.drivers.kind import DriverKind, ResetKind
from devd.workers.drivers.nvme_resets import ControllerReset, SubsystemReset, reach_of
from devd.workers.drivers.nvme_signals import SIGNALS, NvmeSignals
from devd.workers.drivers.twins import Candidate, Twins, listed
from devd.workers.hw import attributes, nodes, nvme, nvme_smart, pci, selection, survey
from devd.workers.hw.allowance import Allowance
from devd.workers.params import Params
from devd.workers.sandbox.reach import PLACES
from devd.workers.sandbox.requests import Request
from devd.workers.sandbox.runtime import SYSFS

__all__ = ["DRIVER", "KEYS", "SIGNALS", "ControllerReset", "NvmeDriver", "NvmeSignals", "SubsystemReset", "allowed"]

KEYS = ("model", "serial", "firmware", "address", "transport", "subsysnqn", "wwid", "name")
"""What a device can be selected by; each is a property of the device as well."""


class NvmeDriver:
    """``offer: namespace`` (a disk is a device) or ``controller`` (the admin node is)."""

    def __init__(self, match: Mapping[str, object], *, root: Path = Path("/")) -> None:
        self._selection = selection.select(match, KEYS, ("offer",))
        self._offer = Params("match", match).choice("offer", ("namespace", "controller"), "namespace")
        self._root = root
        self.twins = Twins()
        self.what = self._selection.words(f"NVMe {self._offer}s")

    def discover(self) -> Found:
        """Read sysfs once. Raises OSError."""
        controllers = nvme.controllers(self._root)
        candidates: list[Candidate] = []
        if self._offer == "namespace":
            disks = nvme.namespaces(self._root, controllers)
            candidates.extend(survey.each(disks, self._namespace, lambda one: one.name))
        else:
            candidates.extend(survey.each(controllers, self._controller, lambda one: one.name))
        numberless = [one.properties["name"] for one in candidates if not one.nodes]
        devices, problems = listed([one for one in candidates if one.nodes], self._selection, self.twins)
        problems.extend(f"{name} has no device number: skipped" for name in numberless)
        return Found(tuple(devices), tuple(problems), (self._root / "dev",))

    def _namespace(self, one: nvme.Namespace) -> Candidate:
        first = min(one.controllers, key=lambda controller: controller.address)
        nsid = attributes.text(one.directory / "nsid") or one.name.rpartition("n")[2]
        own = one.wwid or (f"{first.serial}-n{nsid}" if first.serial else "")
        properties = self._properties(first, one.directory, one.name) | {"wwid": one.wwid, "nsid": nsid}
        return Candidate(
            own_name=own,
            port=f"{first.address}-n{nsid}",
            properties=properties,
            nodes=nodes.of_directory(one.directory, f"/dev/{one.name}", "block"),
            numa_node=first.numa_node,
            params=self._params(one.controllers, namespace=one.name),
        )

    def _controller(self, one: nvme.Controller) -> Candidate:
        own = f"{one.serial}-c{attributes.text(one.directory / 'cntlid') or '0'}" if one.serial else ""
        return Candidate(
            own_name=own,
            port=one.address or one.name,
            properties=self._properties(one, one.directory, one.name),
            nodes=nodes.of_directory(one.directory, f"/dev/{one.name}", "char"),
            numa_node=one.numa_node,
            params=self._params((one,), namespace=""),
        )

    def _properties(self, one: nvme.Controller, directory: Path, name: str) -> dict[str, str]:
        return {
            "sysfs": attributes.below(self._root, directory),
            "subsystem": "nvme",
            "name": name,
            "model": one.model,
            "serial": one.serial,
            "firmware": one.firmware,
            "address": one.address,
            "transport": one.transport,
            "subsysnqn": one.subsysnqn,
            "pcie_switch": pci.switch(one.directory),
        }

    def _params(self, of: tuple[nvme.Controller, ...], *, namespace: str) -> dict[str, object]:
        """Return what the worker needs: where its controllers are, and what they must still say they are."""
        return {
            "namespace": namespace,
            "controllers": [
                {
                    "name": one.name,
                    "sysfs": attributes.below(self._root, one.directory),
                    "serial": one.serial,
                }
                for one in of
            ],
        }


def allowed(device: Device) -> Allowance:
    """Return what probing this device needs; a reset needs what its own ``allowed`` adds."""
    controllers = NvmeSignals.controllers_of(device)
    return Allowance(
        read=("/proc/sys/kernel/random/boot_id", device.properties["sysfs"], *(one.sysfs for one in controllers)),
        ioctl=tuple(f"/dev/{one.name}" for one in controllers),
        requests=(Request(nvme_smart.ADMIN_COMMAND),),
        capabilities=("CAP_SYS_ADMIN",),
        why="without the controller's node and CAP_SYS_ADMIN the signals from the SMART page are not offered",
    )


def allowed_resets(device: Device) -> Allowance:
    """Return what the resets need beyond probing: the controllers' directories, and each disk to see who has it."""
    controllers = NvmeSignals.controllers_of(device)
    return Allowance(
        read=(*SYSFS, "/proc/swaps", *(f"/dev/{name}" for name in reach_of(device))),
        write=tuple(one.sysfs for one in controllers),
        requests=(Request(nvme_smart.SUBSYSTEM_RESET),),
        capabilities=("CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"),
        why="without the disks' nodes a reset cannot know that nobody uses them, and refuses",
    )


DRIVER = DriverKind(
    discovery=NvmeDriver,
    signals=SIGNALS,
    watch=lambda device, tools: NvmeSignals(device, baseline=tools.baseline),
    allowed=allowed,
    resets={
        "controller": ResetKind(
            lambda device, _tools: ControllerReset(device),
            allowed_resets,
            "each controller of the device is set up anew",
        ),
        "subsystem": ResetKind(
            lambda device, _tools: SubsystemReset(device),
            allowed_resets,
            "the whole NVM subsystem, all its controllers",
        ),
    },
    uevents=("nvme", "nvme-subsystem", "block", "pci"),
    places=(*PLACES, "/proc/swaps"),
)
