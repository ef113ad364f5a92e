"""The drivers' words in the configuration are those that the workers know."""

from typing import get_args

import pytest

from devd.daemon.config import hardware
from devd.daemon.config.reference import HARDWARE_MATCHES
from devd.workers.drivers import KINDS, infiniband, nvidia, nvme, pci, usb, vfio
from devd.workers.hw import pci_reach, xid_catalogue

KEYS = {
    "infiniband": infiniband.KEYS,
    "nvidia": nvidia.KEYS,
    "nvme": nvme.KEYS,
    "pci": pci.KEYS,
    "usb": usb.KEYS,
    "vfio": vfio.KEYS,
}
OWN = {
    "infiniband": {"ports", "nodes"},
    "nvidia": {"offer"},
    "nvme": {"offer"},
    "pci": {"nodes", "identity"},
    "usb": {"nodes", "identity"},
    "vfio": {"backend", "noiommu"},
}


def test_every_driver_is_in_both() -> None:
    """A driver with signals is a word of the configuration, and the other way about."""
    assert set(KINDS) == set(hardware.HARDWARE) == set(hardware.SIGNALS) == set(hardware.METHODS)
    assert set(KINDS) == set(HARDWARE_MATCHES)


@pytest.mark.parametrize("driver", sorted(KINDS))
def test_words_are_the_same(driver: str) -> None:
    """Signals, resets and keys of a driver have the same names in the same order on both sides."""
    assert hardware.SIGNALS[driver] == tuple(one.name for one in KINDS[driver].signals)
    assert hardware.METHODS[driver] == tuple(KINDS[driver].resets)
    keys = {field.alias or name for name, field in HARDWARE_MATCHES[driver].model_fields.items()}
    assert keys == {*KEYS[driver], *OWN[driver], "exclude"}


def test_ways_to_reset_a_function_are_the_kernel_s() -> None:
    """Those of a function alone are the workers' own list; the others reset the bus."""
    assert set(hardware.WAYS) == {name for name, methods in hardware.METHODS.items() if "function" in methods} - {
        "infiniband"
    }
    for ways in hardware.WAYS.values():
        assert set(ways) - set(pci_reach.OWN_METHODS) == {"bus", "cxl_bus"}
        assert ways[: len(pci_reach.OWN_METHODS)] == pci_reach.OWN_METHODS


def test_cures_are_the_catalogue_s() -> None:
    """What an XID may be taken for is what the catalogue has."""
    assert set(hardware.CURES) == set(get_args(xid_catalogue.Cure))
