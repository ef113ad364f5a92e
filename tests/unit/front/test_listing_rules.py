"""What a scout lists: an honest one's passes whole, and what would lead a worker elsewhere is named."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from devd.daemon.config import Resource, load_text
from devd.daemon.listing_rules import PARAMS, PROPERTIES, breach
from devd.ipc.messages import Device, Listing, Node
from devd.workers.drivers import KINDS
from devd.workers.drivers.infiniband import InfinibandDriver
from devd.workers.drivers.kind import Discovery
from devd.workers.drivers.nvidia import NvidiaDriver
from devd.workers.drivers.nvme import NvmeDriver
from devd.workers.drivers.pci import PciDriver
from devd.workers.drivers.usb import UsbDriver
from devd.workers.drivers.vfio import VfioDriver
from tests.unit.workers.drivers import (
    infiniband_tree,
    nvidia_tree,
    nvme_tree,
    pci_tree,
    test_vfio,
    usb_tree,
)

SELECTORS = {
    "infiniband": "{}",
    "nvidia": "{}",
    "nvme": "{}",
    "pci": "{vendor: '1234'}",
    "usb": "{vendor: '0403', nodes: [ttyUSB*, 'bus/usb/*']}",
    "vfio": "{}",
    "node": "{path: '/dev/tty*'}",
}
ELSEWHERE = (
    *("../etc/shadow", "/etc/shadow", "/sys/../etc", "/sys", "..", "a/b"),
    *("-rf", "/sys/class/-rf", "x\n", "/etc\0"),
)


def resource(driver: str) -> Resource:
    """Return a resource of a driver."""
    text = f"resources: [{{name: a.io/x, driver: {driver}, match: {SELECTORS[driver]}}}]"
    return load_text(text, "t.yaml").resources[0]


def listing(*devices: Device) -> Listing:
    """Return a list as the resource's scout sends it."""
    return Listing("a.io/x", 1, 1, devices)


def world(root: Path) -> Mapping[str, Discovery]:
    """Grow one device for each driver; return what finds it."""
    usb_tree.tty(root / "usb", usb_tree.device(root / "usb"))
    pci_tree.bridge(root / "pci")
    pci_tree.function(root / "pci")
    test_vfio._world(root / "vfio")
    nvidia_tree.gpu(root / "nvidia")
    nvme_tree.disk(root / "nvme")
    infiniband_tree.adapter(root / "infiniband", layer="Ethernet")
    return {
        "infiniband": InfinibandDriver({}, root=root / "infiniband"),
        "nvidia": NvidiaDriver({}, root=root / "nvidia"),
        "nvme": NvmeDriver({}, root=root / "nvme"),
        "pci": PciDriver({"vendor": "1234"}, root=root / "pci"),
        "usb": UsbDriver({"vendor": "0403", "nodes": ["ttyUSB*", "bus/usb/*"]}, root=root / "usb"),
        "vfio": VfioDriver({}, root=root / "vfio"),
    }


@pytest.fixture
def honest(tmp_path: Path) -> Mapping[str, Device]:
    """Return a device of each driver as its own discovery finds it."""
    return {driver: one.discover().devices[0] for driver, one in world(tmp_path).items()}


def test_what_each_driver_finds_passes(honest: Mapping[str, Device]) -> None:
    """The rules know what devd's own discovery lists, of every driver with rules."""
    assert honest.keys() == KINDS.keys()
    assert honest.keys() >= PROPERTIES.keys() | PARAMS.keys()
    for driver, device in honest.items():
        assert breach(resource(driver), listing(device)) == ""


def test_every_path_like_property_is_looked_at(honest: Mapping[str, Device]) -> None:
    """A name with a way up, a relative path, one outside sysfs, an option: each is named, of each driver."""
    seen = 0
    for driver, device in honest.items():
        for name in {*PROPERTIES.get(driver, {}), "sysfs"} & device.properties.keys():
            for text in ELSEWHERE:
                changed = replace(device, properties={**device.properties, name: text})
                assert f"with the property {name} " in breach(resource(driver), listing(changed)), (driver, name, text)
                seen += 1
    assert seen >= 10 * len(ELSEWHERE)


@pytest.mark.parametrize(
    ("driver", "params"),
    [
        ("nvme", {"namespace": "", "controllers": [{"name": "../etc/shadow", "sysfs": "/sys/x", "serial": ""}]}),
        ("nvme", {"namespace": "", "controllers": [{"name": "nvme0", "sysfs": "/etc/x", "serial": ""}]}),
        ("nvme", {"namespace": "../sda", "controllers": []}),
        ("nvme", {"controllers": "/etc/shadow"}),
        ("nvme", {"controllers": [{"name": ["nvme0"], "sysfs": {"a": 1}}]}),
        ("pci", {"functions": [{"address": "../../../etc", "ids": "", "driver": ""}]}),
        ("pci", {"functions": [{"address": "0000:03:00.0", "ids": "", "driver": "../../devices"}]}),
        ("vfio", {"functions": [], "group": "../../../etc/shadow"}),
        ("vfio", {"functions": [{"address": "/etc"}], "group": "7"}),
        ("usb", {"name": "1-4", "ttys": ["/dev/ttyUSB0", "/dev/mem"]}),
        ("usb", {"name": "1-4", "ttys": ["/dev/../etc/shadow"]}),
        ("usb", {"name": "../../1-4"}),
        ("nvidia", {"address": "../../../etc", "gpu_uuid": "GPU-1"}),
    ],
)
def test_every_path_like_parameter_is_looked_at(
    driver: str, params: Mapping[str, object], honest: Mapping[str, Device]
) -> None:
    """What goes to the worker alone is looked at as well, however deep it lies and whatever type it has."""
    changed = replace(honest[driver], params=params)
    assert "with the parameter " in breach(resource(driver), listing(changed))


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (Node("/dev/../etc/shadow", "char", 1, 3), "with the node '/dev/../etc/shadow'"),
        (Node("dev/tty1", "char", 1, 3), "with the node 'dev/tty1'"),
        (Node("/dev/tty\0", "char", 1, 3), "with the node"),
        (Node("/dev/tty1", "char", -1, 3), "with the numbers -1:3 of /dev/tty1"),
        (Node("/etc/shadow", "other", 1, 3), "listed '/etc/shadow', which the selector of a.io/x does not name"),
    ],
)
def test_node_is_what_the_selector_names(node: Node, words: str) -> None:
    """A node's path leads down, below what the operator named, and its numbers are numbers."""
    assert words in breach(resource("node"), listing(Device("x", (node,))))
    assert breach(resource("node"), listing(Device("x", (Node("/dev/tty1", "char", 4, 1),)))) == ""


def test_nodes_sysfs_is_looked_at_though_its_properties_are_free() -> None:
    """Udev's texts may be anything; the folder in sysfs, which operators put into commands, may not."""
    tty = Node("/dev/tty1", "char", 4, 1)
    free = {"sysfs": "/sys/devices/virtual/tty/tty1", "DEVPATH": "/devices/virtual/tty/tty1", "name": "../x"}
    assert breach(resource("node"), listing(Device("x", (tty,), free))) == ""
    assert "property sysfs '/etc'" in breach(resource("node"), listing(Device("x", (tty,), {"sysfs": "/etc"})))
