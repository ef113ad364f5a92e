"""Trees of fixtures as NVIDIA's driver makes them in /proc, and the scripts of the stand-in for its library."""

from collections.abc import Mapping
from pathlib import Path

from tests.unit.workers.drivers.tree import Content, grow

ADDRESS = "0000:3b:00.0"
UUID = "GPU-1b724e78-eef5-4163-d43c-e4da15d41176"
HEALTHY = f"""uuid {UUID}
action 0
ecc 0
remap 0 0 0 0
pending 0
clocks 0
mig 0
"""
PROC_DEVICES = """Character devices:
  1 mem
195 nvidia
235 nvidia-caps
511 nvidia-uvm

Block devices:
195 sd
"""


def gpu(root: Path, *, address: str = ADDRESS, uuid: str = UUID, minor: int = 0, excluded: str = "No") -> Path:
    """Grow one GPU."""
    information = (
        f"Model: \t\t NVIDIA H200\nIRQ:   \t\t 42\nGPU UUID: \t {uuid}\nVideo BIOS: \t 96.00\nBus Type: \t PCIe\n"
        f"Bus Location: \t {address}\nDevice Minor: \t {minor}\nGPU Firmware: \t 570.1\nGPU Excluded:\t {excluded}"
    )
    files: Mapping[str, Content] = {
        f"proc/driver/nvidia/gpus/{address}/information": information,
        f"sys/bus/pci/devices/{address}/numa_node": "1",
        "sys/module/nvidia/version": "570.86.15",
        "proc/devices": PROC_DEVICES,
        "proc/sys/kernel/random/boot_id": "boot-1",
    }
    return grow(root, files)


def instance(root: Path, gpu_instance: int, compute_instance: int, *, minor: int = 0) -> None:
    """Grow one MIG device of a GPU."""
    base = f"proc/driver/nvidia/capabilities/gpu{minor}/mig/gi{gpu_instance}"
    first = 9 * gpu_instance + 3
    access = "DeviceFileMinor: {}\nDeviceFileMode: 292\nDeviceFileModify: 1"
    inner = f"{base}/ci{compute_instance}/access"
    grow(root, {f"{base}/access": access.format(first), inner: access.format(first + 1 + compute_instance)})
