"""The configuration that a survey suggests: what stands in it, what is commented out and why; devd takes it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from devd.daemon.config import load
from devd.daemon.look import Looked
from devd.daemon.suggest import suggestion
from devd.daemon.survey import Surveyed
from devd.ipc.messages import Device, Node


def node(path: str, minor: int, kind: Any = "char") -> Node:
    """Return a device node."""
    return Node(path, kind, 240, minor)


def hardware(driver: str, *devices: Device, **usage: str) -> Surveyed:
    """Return what a driver found."""
    return Surveyed(driver, "", {}, Looked(devices, usage=usage))


def nodes(kind: str, *paths: str, first: int = 0, **usage: str) -> Surveyed:
    """Return device nodes of a kind that were found."""
    devices = tuple(Device(path.rpartition("/")[2], (node(path, first + number),)) for number, path in enumerate(paths))
    return Surveyed("node", kind, {"path": [paths[0]]}, Looked(devices, usage=usage))


def disk(name: str, minor: int, model: str, serial: str) -> Device:
    """Return an NVMe disk."""
    facts = {"model": model, "serial": serial, "address": f"0000:0{minor}:00.0"}
    return Device(name, (node(f"/dev/{name}", minor, "block"),), facts)


def taken(text: str, tmp_path: Path) -> dict[str, dict[str, Any]]:
    """Return the resources of a text that devd's own reader has found right."""
    file = tmp_path / "suggested.yaml"
    file.write_text(text, encoding="utf-8")
    load(file)
    return {one["name"]: one for one in yaml.safe_load(text)["resources"]}


def test_node_without_devices_gets_one_to_try_with(tmp_path: Path) -> None:
    """A machine with nothing to offer gets a configuration that is right all the same."""
    assert list(taken(suggestion([]), tmp_path)) == ["devd.io/simulated"]


def test_models_become_resources(tmp_path: Path) -> None:
    """Devices of one model are one resource; names and globs survive odd characters."""
    gpu = {"model": "NVIDIA H200 [80GB]*"}
    found = [
        hardware(
            "nvidia", Device("g0", (node("/dev/nvidia0", 0),), gpu), Device("g1", (node("/dev/nvidia1", 1),), gpu)
        ),
        hardware("nvme", disk("nvme0n1", 2, "Disk A", "1"), disk("nvme1n1", 3, "Disk B", "2")),
    ]
    made = taken(suggestion(found), tmp_path)
    assert list(made) == ["devd.io/nvidia-h200-80gb", "devd.io/nvme-disk-a", "devd.io/nvme-disk-b"]
    assert made["devd.io/nvidia-h200-80gb"]["match"] == {"model": "NVIDIA H200 [[]80GB][*]"}


def test_disk_in_use_is_left_out(tmp_path: Path) -> None:
    """Of two disks of one model the mounted one is excluded by its serial number; a lone one is commented out."""
    pair = [disk("nvme0n1", 2, "Disk", "1"), disk("nvme1n1", 3, "Disk", "2")]
    text = suggestion([hardware("nvme", *pair, nvme0n1="nvme0n1p1 is mounted on /")])
    assert taken(text, tmp_path)["devd.io/nvme-disk"]["match"] == {"model": "Disk", "exclude": {"serial": ["1"]}}
    assert "left out: in use: nvme0n1: nvme0n1p1 is mounted on /" in text
    text = suggestion([hardware("nvme", pair[0], nvme0n1="nvme0n1p1 is mounted on /")])
    assert list(taken(text, tmp_path)) == ["devd.io/simulated"]
    assert "# commented out: in use: nvme0n1: nvme0n1p1 is mounted on /" in text


def test_serial_line_in_use_is_left_out_and_shared_nodes_are_not(tmp_path: Path) -> None:
    """A serial line that somebody has open is excluded by its path; KVM may be open as often as one likes."""
    found = [
        nodes("serial", "/dev/serial/by-id/a", "/dev/serial/by-id/b", a="pid 7 (gpsd) has it open"),
        nodes("kvm", "/dev/kvm", first=9, kvm="pid 8 (qemu) has /dev/kvm open"),
    ]
    made = taken(suggestion(found), tmp_path)
    assert made["devd.io/serial"]["match"]["exclude"] == ["/dev/serial/by-id/a"]
    assert made["devd.io/kvm"]["replicas"] == 100
    assert "exclude" not in made["devd.io/kvm"]["match"]


def test_what_one_driver_offers_no_other_does(tmp_path: Path) -> None:
    """A device with a driver of its own is not suggested again by its PCI function or its nodes."""
    facts = {"model": "GPU", "address": "0000:01:00.0", "vendor": "10de", "device": "2335", "driver": "nvidia"}
    found = [
        hardware("nvidia", Device("g0", (node("/dev/nvidia0", 0),), facts)),
        nodes("accel", "/dev/nvidia0"),
        hardware("pci", Device("0000:01-00.0", (), facts)),
    ]
    text = suggestion(found)
    assert list(taken(text, tmp_path)) == ["devd.io/gpu"]
    assert "pci" not in text


@pytest.mark.parametrize("kind", ["watchdog", "i2c", "gpio"])
def test_dangerous_nodes_are_commented_out(kind: str, tmp_path: Path) -> None:
    """What can reset or cut off the node itself stands as a comment with the reason."""
    text = suggestion([nodes(kind, f"/dev/{kind}0")])
    assert list(taken(text, tmp_path)) == ["devd.io/simulated"]
    assert f"#   name: devd.io/{kind}" in text.replace("# - name", "#   name")
    assert "# commented out: " in text


def stick(name: str, minor: int, **facts: str) -> Device:
    """Return a USB device."""
    return Device(name, (node(f"/dev/bus/usb/001/00{minor}", minor),), {"vendor": "1d6b", "product": "0104", **facts})


def test_disk_on_usb_that_is_mounted_is_commented_out(tmp_path: Path) -> None:
    """What is mounted below the raw node is in use, which the reason says."""
    text = suggestion([hardware("usb", stick("usb1", 1, interfaces="08"), usb1="sda1 is mounted on /media")])
    assert list(taken(text, tmp_path)) == ["devd.io/simulated"]
    assert "# commented out: in use: usb1: sda1 is mounted on /media" in text


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"interfaces": "03"}, "an input device"),
        ({"interfaces": "01,03"}, "an input device"),
        ({"class": "09"}, "a hub"),
        ({"interfaces": "09"}, "a hub"),
        ({"class": "e0"}, "a radio"),
    ],
)
def test_what_the_node_itself_works_with_is_commented_out(facts: dict[str, str], why: str, tmp_path: Path) -> None:
    """Nobody shall lose the keyboard by a paste: such devices stand as a comment with the reason."""
    text = suggestion([hardware("usb", stick("usb1", 1, **facts))])
    assert list(taken(text, tmp_path)) == ["devd.io/simulated"]
    assert f"# commented out: {why}" in text


def test_other_usb_devices_are_suggested(tmp_path: Path) -> None:
    """A serial adapter and a free memory stick are what one looks for."""
    text = suggestion([hardware("usb", stick("usb1", 1, interfaces="08,ff"))])
    assert [one["match"] for one in taken(text, tmp_path).values()] == [{"vendor": "1d6b", "product": "0104"}]


def test_names_stay_apart(tmp_path: Path) -> None:
    """Two models whose names make the same resource name get a number."""
    found = [hardware("nvme", disk("nvme0n1", 2, "Disk+", "1"), disk("nvme1n1", 3, "Disk-", "2"))]
    assert list(taken(suggestion(found), tmp_path)) == ["devd.io/nvme-disk", "devd.io/nvme-disk-2"]
