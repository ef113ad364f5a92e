"""NVMe worlds for the drivers' tests: controllers with a namespace each, as the kernel has them."""

from pathlib import Path

from tests.unit.workers.drivers.tree import Content, grow, link

ONE = "eui.0025388b91d0a1b2"
BOOT = {"proc/sys/kernel/random/boot_id": "boot-1"}


def disk(
    root: Path,
    name: str = "nvme0",
    *,
    address: str = "0000:01:00.0",
    serial: str = "S1",
    wwid: str = ONE,
    node: bool = True,
    **more: Content,
) -> Path:
    """Grow one controller with one namespace, as the kernel has them: the class directories are links."""
    real = f"sys/devices/pci0000:00/{address}/nvme/{name}"
    disk = f"{real}/{name}n1"
    files: dict[str, Content] = {
        f"{real}/state": "live",
        f"{real}/model": "Model A",
        f"{real}/serial": serial,
        f"{real}/firmware_rev": "1.0",
        f"{real}/address": address,
        f"{real}/transport": "pcie",
        f"{real}/numa_node": "1",
        f"{real}/cntlid": "1",
        f"{real}/dev": "1:3",
        f"{real}/reset_controller": "",
        f"{disk}/dev": f"259:{int(name.removeprefix('nvme'))}",
        f"{disk}/wwid": wwid,
        f"{disk}/nsid": "1",
        **({f"dev/{name}": "-> /dev/null"} if node else {}),
        f"dev/{name}n1": "",
        **BOOT,
    }
    grow(root, files | {f"{real}/{key}": content for key, content in more.items()})
    link(root, f"sys/class/nvme/{name}", real)
    link(root, f"sys/class/block/{name}n1", disk)
    return root / real
