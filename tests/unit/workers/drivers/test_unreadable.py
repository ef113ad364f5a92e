"""One attribute of one device that cannot be read: the other devices are found, and the operator hears of it.

A directory stands where an attribute would be: reading it fails (EISDIR), as it does when a driver reports an error.
"""

import errno
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from devd.workers.drivers import KINDS, kind
from devd.workers.drivers.base import Found
from devd.workers.drivers.hardware import HardwareDriver
from devd.workers.drivers.infiniband import InfinibandDriver
from devd.workers.drivers.nvidia import NvidiaDriver
from devd.workers.drivers.nvme import NvmeDriver
from devd.workers.drivers.pci import PciDriver
from devd.workers.drivers.usb import UsbDriver
from devd.workers.drivers.vfio import VfioDriver
from devd.workers.hw import attributes, survey
from tests.unit.workers.drivers import infiniband_tree, nvidia_tree, nvme_tree, pci_tree, usb_tree
from tests.unit.workers.drivers.tree import grow


def _pci(root: Path) -> Path:
    pci_tree.function(root, "0000:03:00.1")
    return pci_tree.function(root)


def _vfio(root: Path) -> Path:
    grow(root, {"sys/class/misc/vfio/dev": "10:196"} | {f"sys/class/vfio/{one}/dev": f"241:{one}" for one in (7, 8)})
    pci_tree.function(root, "0000:03:00.1", driver="vfio-pci", group="8")
    return pci_tree.function(root, driver="vfio-pci", group="7")


def _infiniband(root: Path) -> Path:
    infiniband_tree.adapter(root, "mlx5_1", number=1, address="0000:06:00.0", guid="0002:c903:00ab:0001")
    return infiniband_tree.adapter(root)


def _nvme(root: Path) -> Path:
    nvme_tree.disk(root, "nvme1", address="0000:02:00.0", serial="S2", wwid="eui.0025388b91d0ffff")
    return nvme_tree.disk(root)


def _usb(root: Path) -> Path:
    usb_tree.tty(root, usb_tree.device(root, "1-5", serial="OTHER", number=6), "ttyUSB1", 1)
    real = usb_tree.device(root)
    usb_tree.tty(root, real)
    return real


def _nvidia(root: Path) -> Path:
    nvidia_tree.gpu(root)
    nvidia_tree.gpu(root, address="0000:5e:00.0", minor=1, uuid="GPU-2b724e78-eef5-4163-d43c-e4da15d41176")
    return root / "sys/bus/pci/devices" / nvidia_tree.ADDRESS


WORLDS: Mapping[str, tuple[Callable[[Path], Path], Callable[..., kind.Discovery], Mapping[str, object]]] = {
    "pci": (_pci, PciDriver, {"vendor": "1234"}),
    "vfio": (_vfio, VfioDriver, {}),
    "infiniband": (_infiniband, InfinibandDriver, {}),
    "nvme": (_nvme, NvmeDriver, {}),
    "usb": (_usb, UsbDriver, {"vendor": "0403"}),
    "nvidia": (_nvidia, NvidiaDriver, {}),
}
"""Two devices each: what grows them (and returns the first one's directory), discovery, and a selector."""

OPTIONAL = [
    ("pci", "numa_node"),
    ("pci", "revision"),
    ("pci", "subsystem_vendor"),
    ("vfio", "numa_node"),
    ("infiniband", "fw_ver"),
    ("infiniband", "hca_type"),
    ("infiniband", "board_id"),
    ("infiniband", "device/numa_node"),
    ("nvme", "firmware_rev"),
    ("nvme", "model"),
    ("nvme", "subsysnqn"),
    ("nvme", "numa_node"),
    ("usb", "manufacturer"),
    ("usb", "product"),
    ("usb", "speed"),
    ("nvidia", "numa_node"),
]
NEEDED = [
    ("pci", "vendor"),
    ("pci", "class"),
    ("vfio", "device"),
    ("infiniband", "node_guid"),
    ("nvme", "serial"),
    ("nvme", "nvme0n1/wwid"),
    ("nvme", "nvme0n1/dev"),
    ("usb", "serial"),
    ("usb", "idVendor"),
    ("usb", "1-4:1.0/ttyUSB0/tty/ttyUSB0/dev"),
]


def _scan(root: Path, driver: str) -> Found:
    """Scan as a scout does, below another root."""
    _grown, discovery, match = WORLDS[driver]
    hardware = HardwareDriver(KINDS[driver], match)
    hardware._discovery = discovery(match, root=root)
    return hardware.discover()


def _break(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


@pytest.mark.parametrize(("driver", "name"), OPTIONAL)
def test_a_device_can_do_without_an_attribute(tmp_path: Path, driver: str, name: str) -> None:
    """It is listed under its own id, without that attribute, and a problem names both."""
    directory = WORLDS[driver][0](tmp_path)
    before = _scan(tmp_path, driver)
    _break(directory / name)
    found = _scan(tmp_path, driver)
    assert [one.id for one in found.devices] == [one.id for one in before.devices]
    (problem,) = set(found.problems) - set(before.problems)
    who = Path(os.path.realpath((directory / name).parent)).name
    assert problem.startswith(f"{who}: read {tmp_path}/sys/")
    assert problem.endswith(f"/{Path(name).name}: EISDIR (Is a directory): taken as absent")


@pytest.mark.parametrize(("driver", "name"), NEEDED)
def test_a_device_that_cannot_be_known_hides_no_other(tmp_path: Path, driver: str, name: str) -> None:
    """Without what its id is made of it is not offered; the other one is, and a problem says so."""
    directory = WORLDS[driver][0](tmp_path)
    before = [one.id for one in _scan(tmp_path, driver).devices]
    _break(directory / name)
    found = _scan(tmp_path, driver)
    assert len(found.devices) == 1
    assert found.devices[0].id in before
    assert any(f"/{name}: EISDIR (Is a directory): not offered" in one for one in found.problems), found.problems


def test_a_device_that_is_being_removed_is_no_problem() -> None:
    """ENODEV is what the kernel answers then: not listed, and nothing to tell."""

    def make(name: str) -> str:
        if name == "going":
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), "/sys/x/serial")
        return name

    with survey.problems() as told:
        assert survey.each(["one", "going", "two"], make) == ["one", "two"]
    assert told == []


def test_errors_are_raised_where_nobody_listens(tmp_path: Path) -> None:
    """A reset that looks who is in its way must not take a device for absent that it could not read."""
    directory = _nvme(tmp_path)
    _break(directory / "serial")
    with pytest.raises(IsADirectoryError):
        NvmeDriver({}, root=tmp_path).discover()
    shutil.rmtree(directory / "serial")
    _break(directory / "model")
    assert attributes.optional(directory / "model") == ""
