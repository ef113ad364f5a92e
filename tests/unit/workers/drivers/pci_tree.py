"""PCI worlds for the drivers' tests: functions below bridges, their links, groups and nodes, as sysfs has them."""

import struct
import time
from collections.abc import Mapping
from pathlib import Path

from devd.workers.probes.base import Call
from tests.unit.workers.drivers.tree import Content, grow, link

BOOT = "proc/sys/kernel/random/boot_id"
PORT = "0000:00:1c.4"
CARD = "0000:03:00.0"


def config(vendor: int = 0x1234, device: int = 0x11E8, command: int = 0x0406) -> bytes:
    """Return the first 64 bytes of a configuration space."""
    return struct.pack("<HHH", vendor, device, command) + bytes(58)


def counters(kind: str, total: int) -> str:
    """Return an AER attribute: a line for each error, the total in the last."""
    return f"Undefined 0\nDLP {total}\nTOTAL_ERR_{kind} {total}"


def function(
    root: Path,
    address: str = CARD,
    *,
    above: str = PORT,
    driver: str = "edu",
    group: str = "",
    files: Mapping[str, Content] | None = None,
) -> Path:
    """Grow one function below a bridge ("" for the root bus) and return its real directory."""
    steps = f"{above}/{address}" if above else address
    real = f"sys/devices/pci0000:00/{steps}"
    plain: dict[str, Content] = {
        "vendor": "0x1234",
        "device": "0x11e8",
        "subsystem_vendor": "0x1af4",
        "subsystem_device": "0x1100",
        "class": "0x00ff00",
        "revision": "0x10",
        "numa_node": "1",
        "config": config(),
        "enable": "1",
        "resource": "0x00000000fe900000 0x00000000fe9fffff 0x0000000000040200",
        "resource0": b"",
        "power/runtime_status": "active",
        "reset": b"",
        "remove": b"",
    }
    grow(root, {f"{real}/{key}": value for key, value in (plain | dict(files or {})).items() if value != "absent"})
    link(root, f"sys/bus/pci/devices/{address}", real)
    grow(root, {"sys/bus/pci/rescan": b"", BOOT: "boot-1", "proc/self": None})
    if driver:
        bind(root, real, driver)
    if group:
        link(root, f"{real}/iommu_group", f"sys/kernel/iommu_groups/{group}")
        link(root, f"sys/kernel/iommu_groups/{group}/devices/{address}", real)
    return root / real


def bind(root: Path, real: str, driver: str) -> None:
    """Bind a function to a driver."""
    grow(root, {f"sys/bus/pci/drivers/{driver}/{name}": b"" for name in ("bind", "unbind")})
    link(root, f"{real}/driver", f"sys/bus/pci/drivers/{driver}")


def bridge(root: Path, address: str = PORT, *, files: Mapping[str, Content] | None = None) -> Path:
    """Grow a root port."""
    return function(
        root, address, above="", driver="pcieport", files={"class": "0x060400", "rescan": b"", **(files or {})}
    )


def node(root: Path, real: Path, place: str, name: str, numbers: str, *, subsystem: str = "misc") -> None:
    """Grow a device with a node below a function."""
    below = f"{real.relative_to(root)}/{place}"
    grow(root, {f"{below}/dev": numbers, f"{below}/uevent": f"MAJOR=1\nDEVNAME={name}", f"dev/{name}": b""})
    grow(root, {f"sys/class/{subsystem}": None})
    link(root, f"{below}/subsystem", f"sys/class/{subsystem}")


def process(root: Path, pid: int, comm: str, opened: str) -> None:
    """Grow a process that has a file open."""
    grow(root, {f"proc/{pid}/comm": comm, f"proc/{pid}/fd/3": f"-> {opened}"})


def call(allowed_s: float = 0.2) -> Call:
    """Return a call with little time: nothing in a fixture comes back by itself."""
    return Call(lambda _activity: None, time.monotonic(), allowed_s)
