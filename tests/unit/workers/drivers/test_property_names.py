"""The properties that drivers give are those that the configuration knows for templates."""

from pathlib import Path

import pytest

from devd.daemon.config.properties import CDI, PROPERTIES
from devd.workers.drivers import infiniband, nvidia, nvme, pci, usb, vfio
from devd.workers.drivers.kind import Discovery
from tests.unit.workers.drivers import nvidia_tree, pci_tree, usb_tree

KEYS = {
    "infiniband": infiniband.KEYS,
    "nvidia": nvidia.KEYS,
    "nvme": nvme.KEYS,
    "pci": pci.KEYS,
    "usb": usb.KEYS,
    "vfio": vfio.KEYS,
}


@pytest.mark.parametrize("driver", KEYS)
def test_what_selects_may_stand_in_a_template(driver: str) -> None:
    """Each key that a selector of the driver may have is a property of its devices."""
    assert set(KEYS[driver]) <= set(PROPERTIES[driver])


def test_every_property_of_a_device_is_known(tmp_path: Path) -> None:
    """What discovery gives for a function, a GPU and a stick is in the tables, nothing else."""
    pci_tree.bridge(tmp_path)
    pci_tree.function(tmp_path, group="7")
    nvidia_tree.gpu(tmp_path)
    usb_tree.device(tmp_path)
    drivers: dict[str, Discovery] = {
        "pci": pci.PciDriver({"vendor": "1234"}, root=tmp_path),
        "nvidia": nvidia.NvidiaDriver({}, root=tmp_path),
        "usb": usb.UsbDriver({"vendor": "0403"}, root=tmp_path),
    }
    for name, driver in drivers.items():
        (device,) = driver.discover().devices
        assert set(device.properties) <= {*PROPERTIES[name], *CDI}
