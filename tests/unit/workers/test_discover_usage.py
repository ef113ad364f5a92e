"""Who uses what a look found: what keeps a device from being suggested."""

from pathlib import Path

from devd.ipc.messages import Device
from devd.workers.discover import usage
from devd.workers.drivers.usb import UsbDriver
from tests.unit.workers.drivers import usb_tree
from tests.unit.workers.drivers.pci_tree import process
from tests.unit.workers.drivers.tree import grow, link

NAME = "0403:6001:A50285BI"


def _stick(root: Path) -> tuple[Device, ...]:
    """Plug in a memory stick with a partition and find it by its raw node."""
    real = usb_tree.device(root)
    disk = f"{real.relative_to(root)}/1-4:1.0/host6/target6:0:0/6:0:0:0/block/sda"
    grow(root, {f"{disk}/dev": "8:0", f"{disk}/uevent": "DEVNAME=sda", f"{disk}/sda1/partition": "1"})
    grow(root, {f"{disk}/sda1/dev": "8:1", f"{disk}/sda1/uevent": "DEVNAME=sda1", "sys/class/block": None})
    for name in ("sda", "sda/sda1"):
        link(root, f"sys/class/block/{name.rpartition('/')[2]}", f"{disk.removesuffix('/sda')}/{name}")
        link(root, f"{disk.removesuffix('/sda')}/{name}/subsystem", "sys/class/block")
    return UsbDriver({"vendor": "*"}, root=root).discover().devices


def test_free_stick_has_no_users(tmp_path: Path) -> None:
    """Nothing is mounted and nobody has a node open."""
    assert usage(_stick(tmp_path), tmp_path) == {}


def test_mounted_stick_is_in_use(tmp_path: Path) -> None:
    """The raw node alone would be given: what the kernel has made of the device counts all the same."""
    found = _stick(tmp_path)
    assert [node.path for node in found[0].nodes] == ["/dev/bus/usb/001/005"]
    grow(tmp_path, {"proc/1/mountinfo": "30 1 8:1 / /media rw - vfat /dev/sda1 rw"})
    assert usage(found, tmp_path) == {NAME: "sda1 is mounted on /media"}


def test_open_nodes_below_and_the_raw_one_count(tmp_path: Path) -> None:
    """A process with the disk's node open, or the raw one."""
    found = _stick(tmp_path)
    process(tmp_path, 7, "dd", "/dev/sda")
    process(tmp_path, 8, "libusb", "/dev/bus/usb/001/005")
    assert usage(found, tmp_path) == {
        NAME: "pid 7 (dd) has /dev/sda open, pid 8 (libusb) has /dev/bus/usb/001/005 open"
    }


def test_what_cannot_be_looked_at_is_not_nobodys(tmp_path: Path) -> None:
    """Where it cannot be read what is mounted it may be anybody's: the reason is told."""
    found = _stick(tmp_path)
    grow(tmp_path, {"proc/1/mountinfo": None})
    assert usage(found, tmp_path)[NAME].startswith("not known who: look ")
    assert "EISDIR" in usage(found, tmp_path)[NAME]
