"""Driver ``nvidia``: whole GPUs or MIG devices, known by UUID. Discovery reads /proc.

NVML is asked for what is not there: the UUIDs of MIG devices, and which GPUs are joined by NVLink.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from devd.ipc.messages import Device
from devd.workers.drivers.base import Found
from devd.workers.drivers.kind import DriverKind, ResetKind, Tools
from devd.workers.drivers.nvidia_resets import GpuReset
from devd.workers.drivers.nvidia_signals import SIGNALS, NvidiaSignals
from devd.workers.drivers.twins import Candidate, Twins, listed
from devd.workers.hw import attributes, nvidia, pci, selection, survey
from devd.workers.hw.allowance import Allowance
from devd.workers.hw.nvlinks import NvLinks
from devd.workers.hw.nvml import NvmlError, Session
from devd.workers.params import Params
from devd.workers.sandbox.reach import PLACES
from devd.workers.sandbox.requests import of_type
from devd.workers.sandbox.runtime import SYSFS

__all__ = ["DRIVER", "KEYS", "SIGNALS", "GpuReset", "NvidiaDriver", "NvidiaSignals", "allowed"]

KEYS = ("model", "uuid", "address", "minor", "name", "instance")
"""What a device can be selected by; each is a property of the device as well. ``instance`` is a MIG device's."""
CDI_KIND = "nvidia.com/gpu"
GPUS = of_type("F")
"""NV_IOCTL_MAGIC of nv-ioctl-numbers.h: NVML makes dozens of these, and no others."""
SWITCHES = (of_type("c"), of_type("d"))
"""NVSWITCH_CTL_IO_TYPE and NVSWITCH_DEV_IO_TYPE of ioctl_nvswitch.h, which nvidia-smi may ask about joined GPUs."""
LIBRARY_GROUPS = ("locks", "shared_memory")
"""What the vendor's library may do among its threads and beside other clients; its source is not there to be read."""
MOST_GPUS = 32
"""GPUs whose nodes a scout may open; the driver's own limit is higher, no machine has more."""
MEMORY_BYTES = 1024 * 1024 * 1024
"""Private memory a process may have that loads NVML, which maps much and touches little."""
PROCESSES = 32
"""Threads a worker may have: its own three, the one that waits for events, and those the library begins by itself."""


class NvidiaDriver:
    """``offer: gpu`` (GPUs that are not split) or ``mig`` (the devices of those that are).

    Nothing is asked of a GPU that has a node in ``leave_alone``: another process hangs in it.
    """

    def __init__(self, match: Mapping[str, object], *, root: Path = Path("/"), links: NvLinks | None = None) -> None:
        self._selection = selection.select(match, KEYS, ("offer",))
        self._offer = Params("match", match).choice("offer", ("gpu", "mig"), "gpu")
        self._root = root
        self.twins = Twins()
        self._links = links if links is not None else NvLinks()
        self.leave_alone: frozenset[str] = frozenset()
        self.what = self._selection.words("NVIDIA GPUs" if self._offer == "gpu" else "MIG devices")

    def discover(self) -> Found:
        """Read /proc once, ask NVML for the rest. Raises OSError."""
        problems: list[str] = []
        gpus = nvidia.gpus(self._root)
        found = survey.each(gpus, lambda gpu: self._of_gpu(gpu, problems), lambda gpu: gpu.address)
        candidates = [one for of_gpu in found for one in of_gpu]
        if self._offer == "gpu" and len(candidates) > 1:
            candidates = [self._joined(one, problems) for one in candidates]
        numberless = [one.port for one in candidates if not one.nodes]
        devices, twins = listed([one for one in candidates if one.nodes], self._selection, self.twins)
        problems.extend(f"{port} has no device numbers in /proc/devices: skipped" for port in numberless)
        directories = (self._root / "dev", self._root / "dev/nvidia-caps")
        return Found(tuple(devices), tuple(twins + problems), directories)

    def _of_gpu(self, gpu: nvidia.Gpu, problems: list[str]) -> list[Candidate]:
        """Return what of a GPU can be offered: itself, or the devices it is split into. Raises OSError."""
        split = nvidia.instances(self._root, gpu)
        if not _usable(gpu, problems):
            return []
        if self._offer == "mig":
            return self._instances(gpu, split, problems)
        if split:
            problems.append(f"{gpu.address} is split into {len(split)} MIG devices: offer them with 'offer: mig'")
            return []
        return [self._whole(gpu)]

    def _joined(self, one: Candidate, problems: list[str]) -> Candidate:
        """Return a whole GPU with what it is joined to."""
        if not self.leave_alone.isdisjoint(node.path for node in one.nodes if not node.shared):
            return one
        return replace(one, properties={**one.properties, "links": self._links.of(one.port, problems)})

    def _whole(self, gpu: nvidia.Gpu) -> Candidate:
        return Candidate(
            own_name=gpu.uuid,
            port=gpu.address,
            nodes=nvidia.nodes(self._root, gpu),
            properties=self._properties(gpu, gpu.uuid),
            numa_node=gpu.numa_node,
            params={"address": gpu.address, "gpu_uuid": gpu.uuid},
        )

    def _instances(self, gpu: nvidia.Gpu, split: list[nvidia.Instance], problems: list[str]) -> list[Candidate]:
        uuids = _mig_uuids(gpu, problems) if split else {}
        return [
            Candidate(
                # Not the MIG device's UUID: without NVML it is unknown, and an id must not change when NVML comes back.
                own_name=f"{gpu.uuid}-{_name(one)}",
                port=f"{gpu.address}-{_name(one)}",
                nodes=nvidia.nodes(self._root, gpu, one),
                properties=self._properties(gpu, uuids.get((one.gpu_instance, one.compute_instance), ""))
                | {"instance": _name(one)},
                numa_node=gpu.numa_node,
                params={
                    "address": gpu.address,
                    "gpu_uuid": gpu.uuid,
                    "gpu_instance": one.gpu_instance,
                    "compute_instance": one.compute_instance,
                },
            )
            for one in split
        ]

    def _properties(self, gpu: nvidia.Gpu, uuid: str) -> dict[str, str]:
        return {
            "sysfs": f"/sys/bus/pci/devices/{gpu.address}",
            "subsystem": "nvidia",
            "driver": "nvidia",
            "driver_version": nvidia.driver_version(self._root),
            "name": f"nvidia{gpu.minor}",
            "minor": str(gpu.minor),
            "model": gpu.model,
            "address": gpu.address,
            "uuid": uuid,
            "pcie_switch": pci.switch(self._root / pci.DEVICES / gpu.address),
            "cdi": f"{CDI_KIND}={uuid}" if uuid else "",
        }


def allowed(device: Device) -> Allowance:
    """Return what probing this device needs. The library is looked for as ld.so does."""
    return Allowance(
        read=(
            "/proc/sys/kernel/random/boot_id",
            "/proc/driver/nvidia",
            "/sys/module/nvidia",
            "/etc/ld.so.cache",
            device.properties["sysfs"],
        ),
        # NVML opens the control node and this GPU's for writing; the one for unified memory is the application's.
        ioctl=(f"/dev/nvidia{device.properties['minor']}", "/dev/nvidiactl", *_caps(device)),
        requests=(GPUS,),
        libraries=True,
        groups=LIBRARY_GROUPS,
        memory_bytes=MEMORY_BYTES,
        processes=PROCESSES,
        why="without the library and the nodes only 'nvml' can be told, and it is bad",
    )


def _caps(device: Device) -> tuple[str, ...]:
    return tuple(node.path for node in device.nodes if node.path.startswith("/dev/nvidia-caps/"))


def _usable(gpu: nvidia.Gpu, problems: list[str]) -> bool:
    if gpu.excluded:
        problems.append(f"{gpu.address} is excluded by the driver's settings: skipped")
    elif gpu.minor is None:
        problems.append(f"{gpu.address} has no minor number in its information: skipped")
    elif not gpu.uuid:
        # Its address would do for now, and be another id as soon as somebody uses it.
        problems.append(f"{gpu.address} has no UUID yet: start nvidia-persistenced, or use it once")
    else:
        return True
    return False


def _name(instance: nvidia.Instance) -> str:
    return f"gi{instance.gpu_instance}-ci{instance.compute_instance}"


def _mig_uuids(gpu: nvidia.Gpu, problems: list[str]) -> dict[tuple[int, int], str]:
    """Return the UUIDs by which containers ask for MIG devices; without NVML none, with a problem."""
    with Session(gpu.address) as session:
        try:
            return session.mig_instances()
        except NvmlError as error:
            problems.append(f"{gpu.address}: the UUIDs of its MIG devices are unknown: {error}")
            return {}


def allowed_resets(device: Device) -> Allowance:  # noqa: ARG001 - each reset kind is asked alike
    """Return what the reset needs beyond probing: to run nvidia-smi, which opens every GPU's nodes.

    Those that are there now, and not all of /dev: its capabilities would make it the master of every disk.
    """
    return Allowance(
        read=(*SYSFS, "/proc"),
        ioctl=tuple(f"/dev/{name}" for name in attributes.names(Path("/dev")) if name.startswith("nvidia")),
        requests=(GPUS, *SWITCHES),
        groups=LIBRARY_GROUPS,
        execute=("nvidia-smi",),
        capabilities=("CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"),
        why="nvidia-smi resets GPUs as root alone",
    )


def _watch(device: Device, tools: Tools) -> NvidiaSignals:
    xids = tools.options.values.get("xids")
    return NvidiaSignals(device, baseline=tools.baseline, xids=xids if isinstance(xids, Mapping) else None)


DRIVER = DriverKind(
    discovery=NvidiaDriver,
    signals=SIGNALS,
    watch=_watch,
    allowed=allowed,
    resets={
        "gpu": ResetKind(
            lambda device, tools: GpuReset(device, tools.runner, release=tools.release),
            allowed_resets,
            "nvidia-smi --gpu-reset, once nobody uses the GPU",
        ),
    },
    uevents=("pci", "nvidia", "module"),
    places=(*PLACES, "/proc", "/etc/ld.so.cache"),
    scout=Allowance(
        read=("/sys", "/proc"),
        look=("/dev",),
        # To ask a GPU NVML opens its node: those that are there when the scout begins.
        ioctl=("/dev/nvidiactl", *(f"/dev/nvidia{minor}" for minor in range(MOST_GPUS))),
        requests=(GPUS,),
        libraries=True,
        groups=LIBRARY_GROUPS,
        memory_bytes=MEMORY_BYTES,
        processes=PROCESSES,
    ),
)
