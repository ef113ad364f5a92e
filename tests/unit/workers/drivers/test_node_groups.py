"""Driver node: nodes chosen by what sysfs and udev say of them, and several nodes as one device."""

import os
from pathlib import Path

import pytest

from devd.ipc.messages import Device, Node
from devd.workers.drivers.node import NodeDriver
from devd.workers.errors import SpecError
from devd.workers.hw import node_properties
from tests.unit.workers.drivers import usb_tree
from tests.unit.workers.drivers.tree import GARBAGE, grow, link

NULL, ZERO = "1:3", "1:5"
PCI = "0000:00:14.0"


def _serial_world(root: Path) -> None:
    """Grow two serial adapters whose lines have the numbers of /dev/null and /dev/zero."""
    for name, serial, numbers in (("1-4", "A50285BI", NULL), ("1-5", "B7", ZERO)):
        real = usb_tree.device(root, name, serial=serial, number=int(name[-1]))
        below = f"{real.relative_to(root)}/{name}:1.0/ttyUSB0/tty/ttyUSB0"
        grow(root, {f"{below}/dev": numbers, f"{below}/uevent": "MAJOR=1\nDEVNAME=ttyUSB0"})
        link(root, f"sys/dev/char/{numbers}", below)
        link(root, f"{below}/subsystem", "sys/class/tty")
        link(root, f"{below}/device", f"{real.relative_to(root)}/{name}:1.0/ttyUSB0")
        grow(root, {"sys/class/tty": None, "sys/bus/usb-serial/drivers/ftdi_sio": None})
        link(root, f"{real.relative_to(root)}/{name}:1.0/ttyUSB0/driver", "sys/bus/usb-serial/drivers/ftdi_sio")
        grow(root, {f"run/udev/data/c{numbers}": f"S:serial/by-id/x\nE:ID_SERIAL_SHORT={serial}\nG:systemd"})


def _found(root: Path, **match: object) -> tuple[Device, ...]:
    return NodeDriver({"path": ["/dev/null", "/dev/zero"], **match}, root=root).discover().devices


def _ids(root: Path, **match: object) -> list[str]:
    return [one.id for one in _found(root, **match)]


# ---- properties -------------------------------------------------------------------------------------------------


def test_a_node_knows_what_it_hangs_on(tmp_path: Path) -> None:
    """Driver, PCI function, switch and NUMA node come from the way up to the bus."""
    _serial_world(tmp_path)
    device = _found(tmp_path)[0]
    assert {key: device.properties[key] for key in ("subsystem", "driver", "address", "pcie_switch")} == {
        "subsystem": "tty",
        "driver": "ftdi_sio",
        "address": PCI,
        "pcie_switch": "pci0000:00",
    }
    assert device.properties["sysfs"].endswith("/ttyUSB0/tty/ttyUSB0")
    assert device.numa_node == 0
    grow(tmp_path, {f"sys/devices/pci0000:00/{PCI}/numa_node": "-1"})
    assert _found(tmp_path)[0].numa_node is None


@pytest.mark.parametrize(
    ("match", "ids"),
    [
        ({"properties": {"subsystem": "tty", "driver": ["ftdi_sio", "x"]}}, ["null", "zero"]),
        ({"properties": {"driver": "cp210x"}}, []),
        ({"properties": {"idVendor": "0403", "serial": "A*"}}, ["null"]),
        ({"properties": {"ID_SERIAL_SHORT": "B?"}}, ["zero"]),
        ({"properties": {"DEVTYPE": "usb_device"}}, ["null", "zero"]),
        ({"properties": {"no_such_thing": "*"}}, []),
        ({"exclude_properties": {"serial": "B7"}}, ["null"]),
        ({"exclude_properties": {"no_such_thing": "*"}}, ["null", "zero"]),
        ({"properties": {"driver": "*"}, "exclude_properties": {"ID_SERIAL_SHORT": ["A*", "C*"]}}, ["zero"]),
    ],
)
def test_nodes_are_chosen_by_what_they_are(tmp_path: Path, match: dict[str, object], ids: list[str]) -> None:
    """Names in capitals are udev's or the event's, others sysfs' from the device up; what is not there fits nothing."""
    _serial_world(tmp_path)
    assert _ids(tmp_path, **match) == ids


def test_what_selects_is_a_property_of_the_device(tmp_path: Path) -> None:
    """Templates can name it; what only excludes is not told."""
    _serial_world(tmp_path)
    (device,) = _found(tmp_path, properties={"ID_SERIAL_SHORT": "A*"}, exclude_properties={"idProduct": "7*"})
    assert device.properties["ID_SERIAL_SHORT"] == "A50285BI"
    assert "idProduct" not in device.properties


def test_udevs_database_is_watched_where_it_counts(tmp_path: Path) -> None:
    """Udev writes down what a device is a moment after its node is there: that calls for another scan."""
    _serial_world(tmp_path)
    watched = tmp_path / node_properties.UDEV
    asks = NodeDriver({"path": "/dev/null", "properties": {"ID_BUS": "usb"}}, root=tmp_path).discover().directories
    assert watched in asks
    assert watched not in NodeDriver({"path": "/dev/null"}, root=tmp_path).discover().directories


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_breaks_nothing(tmp_path: Path, garbage: bytes) -> None:
    """Whatever sysfs and udev hold, a node is listed or not, and nothing is raised."""
    _serial_world(tmp_path)
    for path in (f"run/udev/data/c{NULL}", f"sys/devices/pci0000:00/{PCI}/numa_node"):
        grow(tmp_path, {path: garbage})
    assert _ids(tmp_path) == ["null", "zero"]
    assert _ids(tmp_path, properties={"ID_SERIAL_SHORT": "B7"}) == ["zero"]
    assert node_properties.of_node(tmp_path, Node("/dev/x", "char", 240, 0), ("serial", "ID_BUS")) == {}


@pytest.mark.parametrize("match", [{"properties": "x"}, {"properties": {"a": 1}}, {"exclude_properties": [1]}])
def test_a_selection_that_is_none_is_refused(match: dict[str, object]) -> None:
    """Anything but a map of texts is an error of the spec."""
    with pytest.raises(SpecError, match=r"match\.(exclude_)?properties"):
        NodeDriver({"path": "/dev/null", **match}).discover()


# ---- groups -----------------------------------------------------------------------------------------------------


def _groups(tmp_path: Path, *paths: str, **more: object) -> NodeDriver:
    """Return a driver with one group, ``radio``."""
    group = {"name": "radio", "path": [str(tmp_path / one) for one in paths]}
    return NodeDriver({"groups": [group], "type": "any", **more})


def test_a_group_is_one_device_with_all_nodes(tmp_path: Path) -> None:
    """Its id is its name, its nodes come in the order of the globs."""
    for name in ("b1", "a2", "a10"):
        (tmp_path / name).touch()
    (device,) = _groups(tmp_path, "b1", "a*").discover().devices
    assert (device.id, [Path(node.path).name for node in device.nodes]) == ("radio", ["b1", "a10", "a2"])


def test_a_group_that_lacks_a_node_is_not_there(tmp_path: Path) -> None:
    """The problem names what is missing; links that lead nowhere and excluded nodes are missing as well."""
    (tmp_path / "a").touch()
    (tmp_path / "c").symlink_to(tmp_path / "nothing")
    driver = _groups(tmp_path, "a", "b?", "c")
    assert driver.discover().devices == ()
    assert driver.discover().problems == (f"radio: {tmp_path}/b?, {tmp_path}/c is missing: not offered without it",)
    for name in ("b1", "nothing"):
        (tmp_path / name).touch()
    assert [one.id for one in driver.discover().devices] == ["radio"]
    assert _groups(tmp_path, "a", "b?", exclude=str(tmp_path / "b1")).discover().devices == ()


def test_a_group_in_which_somebody_hangs_is_left_alone(tmp_path: Path) -> None:
    """None of its nodes is touched, and nothing is said of it."""
    for name in ("a", "b"):
        (tmp_path / name).touch()
    driver = _groups(tmp_path, "a", "b")
    driver.leave_alone = frozenset({str(tmp_path / "b")})
    found = driver.discover()
    assert (found.devices, found.problems) == ((), ())


@pytest.mark.parametrize(
    "match", [{}, {"path": "/a", "groups": [{"name": "x", "path": "/b"}]}, {"groups": [{"name": "x"}]}]
)
def test_either_paths_or_groups(match: dict[str, object]) -> None:
    """Neither, both, or a group without a path is an error of the spec."""
    with pytest.raises(SpecError, match="either path or groups"):
        NodeDriver(match)


def test_a_stable_link_stays_the_path(tmp_path: Path) -> None:
    """The path a container's node comes from is the link, whatever it leads to today."""
    stable = tmp_path / "usb-FTDI_A50285BI-if00-port0"
    for target in ("/dev/null", "/dev/zero"):
        stable.unlink(missing_ok=True)
        os.symlink(target, stable)  # noqa: PTH211 - the link's own path matters
        (device,) = NodeDriver({"path": str(tmp_path / "usb-*")}).discover().devices
        assert device.nodes[0].path == str(stable)
        status = Path(target).stat()
        assert (device.nodes[0].major, device.nodes[0].minor) == (os.major(status.st_rdev), os.minor(status.st_rdev))
