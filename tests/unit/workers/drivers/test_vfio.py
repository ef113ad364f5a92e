"""The vfio driver against trees of fixtures: groups as devices, what a container gets, who blocks a group."""

from pathlib import Path

import pytest

from devd.ipc.messages import Device
from devd.workers.drivers.vfio import SIGNALS, GroupReset, VfioDriver, VfioSignals, allowed
from devd.workers.errors import ResetError, SpecError
from devd.workers.hw import vfio
from tests.unit.workers.drivers.pci_tree import CARD, PORT, bind, call, function, process
from tests.unit.workers.drivers.tree import GARBAGE, grow

AUDIO = "0000:03:00.1"


def _world(root: Path, group: str = "7") -> Path:
    """Grow a card with two functions on VFIO, in one group with the port above; return the first one's directory."""
    grow(
        root,
        {
            f"sys/class/vfio/{group}/dev": "241:0",
            "sys/class/misc/vfio/dev": "10:196",
            "sys/class/misc/iommu/dev": "10:125",
            f"dev/vfio/{group}": b"",
            "dev/vfio/vfio": b"",
        },
    )
    function(root, PORT, above="", driver="pcieport", group=group, files={"class": "0x060400"})
    function(root, AUDIO, driver="vfio-pci", group=group, files={"reset_method": "flr", "vfio-dev/vfio1/dev": "511:1"})
    return function(root, driver="vfio-pci", group=group, files={"reset_method": "flr", "vfio-dev/vfio0/dev": "511:0"})


def _only(root: Path, **match: object) -> Device:
    (device,) = VfioDriver(match, root=root).discover().devices
    return device


# ---- discovery --------------------------------------------------------------------------------------------------


def test_a_group_is_one_device(tmp_path: Path) -> None:
    """Functions of one group are offered together, under the place of the first, with the group's node first."""
    _world(tmp_path)
    device = _only(tmp_path)
    assert device.id == "0000:00-1c.4-00.0"
    assert [(one.path, one.major, one.minor) for one in device.nodes] == [
        ("/dev/vfio/7", 241, 0),
        ("/dev/vfio/vfio", 10, 196),
    ]
    assert [node.path for node in device.nodes if node.shared] == ["/dev/vfio/vfio"]
    assert device.properties["addresses"] == f"{CARD},{AUDIO}"
    assert device.numa_node == 1


def test_another_group_number_keeps_the_id(tmp_path: Path) -> None:
    """Groups are numbered anew at each boot: the place names the device."""
    _world(tmp_path / "before", "7")
    _world(tmp_path / "after", "31")
    before, after = _only(tmp_path / "before"), _only(tmp_path / "after")
    assert before.id == after.id
    assert after.nodes[0].path == "/dev/vfio/31"


def test_iommufd_gives_each_function_its_node(tmp_path: Path) -> None:
    """With ``cdev`` the container gets the functions' own nodes, and iommufd's as the shared one."""
    _world(tmp_path)
    device = _only(tmp_path, backend="cdev")
    assert [one.path for one in device.nodes] == ["/dev/vfio/devices/vfio0", "/dev/vfio/devices/vfio1", "/dev/iommu"]
    assert [node.path for node in device.nodes if node.shared] == ["/dev/iommu"]


def test_selecting_one_function_offers_its_group(tmp_path: Path) -> None:
    """The group's node is given, and the environment names the selected function alone."""
    _world(tmp_path)
    device = _only(tmp_path, address=CARD)
    assert device.properties["addresses"] == CARD
    assert device.nodes[0].path == "/dev/vfio/7"


def test_what_cannot_be_handed_over_is_told(tmp_path: Path) -> None:
    """A function on a driver of the host, one without a group, a group without a node: each has its problem."""
    function(tmp_path, driver="edu", group="1")
    function(tmp_path, "0000:04:00.0", driver="vfio-pci")
    function(tmp_path, "0000:05:00.0", driver="mlx5_vfio_pci", group="3")
    function(tmp_path, "0000:06:00.0", driver="", group="4")
    found = VfioDriver({"vendor": "1234"}, root=tmp_path).discover()
    assert found.devices == ()
    assert found.problems == (
        f"{CARD} is bound to edu, not to VFIO: not offered",
        "0000:04:00.0 is in no IOMMU group: not offered",
        "0000:06:00.0 is bound to no driver, not to VFIO: not offered",
        "IOMMU group 3 has no node in /dev/vfio: not offered",
    )
    assert VfioDriver({}, root=tmp_path).discover().problems[:1] == ("0000:04:00.0 is in no IOMMU group: not offered",)


def test_a_group_that_isolates_nothing_is_offered_on_purpose_only(tmp_path: Path) -> None:
    """No-IOMMU mode has a node of its own, and is left out unless it is asked for."""
    function(tmp_path, driver="vfio-pci", group="7")
    grow(tmp_path, {"sys/kernel/iommu_groups/7/name": "vfio-noiommu", "sys/class/vfio/noiommu-7/dev": "241:3"})
    found = VfioDriver({}, root=tmp_path).discover()
    assert (found.devices, found.problems) == (
        (),
        ("IOMMU group 7 isolates nothing (no-IOMMU mode): not offered",),
    )
    assert _only(tmp_path, noiommu=True).nodes[0].path == "/dev/vfio/noiommu-7"
    with pytest.raises(SpecError, match=r"match\.noiommu: 'yes' found"):
        VfioDriver({"noiommu": "yes"})


def test_a_function_that_is_bound_to_vfio_appears(tmp_path: Path) -> None:
    """Set aside while devd runs, a function is listed at the next scan; taken back, it is gone."""
    real = function(tmp_path, driver="edu", group="7")
    grow(tmp_path, {"sys/class/vfio/7/dev": "241:0"})
    driver = VfioDriver({}, root=tmp_path)
    assert driver.discover().devices == ()
    (real / "driver").unlink()
    bind(tmp_path, str(real.relative_to(tmp_path)), "vfio-pci")
    assert [one.id for one in driver.discover().devices] == ["0000:00-1c.4-00.0"]
    (real / "driver").unlink()
    assert driver.discover().devices == ()


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_is_no_crash(tmp_path: Path, garbage: bytes) -> None:
    """Device numbers of nonsense leave the group out; everything else is left to its signals."""
    _world(tmp_path)
    grow(tmp_path, {"sys/class/misc/vfio/dev": garbage, "sys/kernel/iommu_groups/7/name": garbage})
    assert [one.path for one in _only(tmp_path).nodes] == ["/dev/vfio/7"]
    grow(tmp_path, {"sys/class/vfio/7/dev": garbage})
    assert VfioDriver({}, root=tmp_path).discover().devices == ()


# ---- signals ----------------------------------------------------------------------------------------------------


def test_a_healthy_group_is_well(tmp_path: Path) -> None:
    """A bridge with its port driver does not keep a group from being handed over; all offered signals are well."""
    _world(tmp_path)
    flags: dict[str, int | None] = {"now": vfio.FLAG_VIABLE}
    signals = VfioSignals(_only(tmp_path), root=tmp_path, group_flags=lambda _path: flags["now"])
    names = [name for name in signals.offered if name != "node"]
    assert {"present", "on-bus", "driver", "viable", "group"} <= set(names)
    assert set(signals.offered) <= {one.name for one in SIGNALS}
    assert {name: signals.check(name) for name in names} == dict.fromkeys(names, "")
    flags["now"] = None
    assert (signals.check("group"), signals.notes["group"]) == ("", "in use (EBUSY)")
    flags["now"] = 0
    assert signals.check("group") == "/dev/vfio/7 says that its group is not viable"
    assert "group" not in signals.notes


def test_a_member_on_the_hosts_side_blocks_its_group(tmp_path: Path) -> None:
    """The member and its driver are named; without a driver, or with one that does nothing, it is no obstacle."""
    _world(tmp_path)
    other = function(tmp_path, "0000:03:00.2", driver="xhci_hcd", group="7")
    signals = VfioSignals(_only(tmp_path), root=tmp_path)
    assert signals.check("viable") == "IOMMU group 7 cannot be handed over: 0000:03:00.2 is bound to xhci_hcd"
    (other / "driver").unlink()
    assert signals.check("viable") == ""
    bind(tmp_path, str(other.relative_to(tmp_path)), "pci-stub")
    assert signals.check("viable") == ""


def test_any_function_of_the_group_makes_it_ill(tmp_path: Path) -> None:
    """The second function's fall off the bus is the device's."""
    real = _world(tmp_path)
    signals = VfioSignals(_only(tmp_path), root=tmp_path)
    (real.parent / AUDIO / "config").write_bytes(b"\xff" * 64)
    assert signals.check("on-bus") == f"{AUDIO} fell off the bus: its configuration space reads as ones"


def test_a_busy_or_missing_group_node_as_the_kernel_tells_it(tmp_path: Path) -> None:
    """A file that is no group answers ENOTTY, a missing one ENOENT: neither is taken for a group in use."""
    (tmp_path / "7").touch()
    with pytest.raises(OSError, match="Inappropriate ioctl"):
        vfio.group_flags(tmp_path / "7")
    with pytest.raises(FileNotFoundError):
        vfio.group_flags(tmp_path / "8")


# ---- resets and what a container gets -----------------------------------------------------------------------------


def test_a_machine_with_the_group_is_in_the_way(tmp_path: Path) -> None:
    """Whoever has the group or the node of any member keeps all of it from being reset."""
    real = _world(tmp_path)
    reset = GroupReset(_only(tmp_path, address=CARD), root=tmp_path)
    assert reset.blast_radius() == (CARD, AUDIO)
    process(tmp_path, 7, "qemu", "/dev/vfio/devices/vfio1")
    with pytest.raises(ResetError, match=rf"{CARD}, {AUDIO} would be reset: pid 7 \(qemu\)"):
        reset.run(call())
    assert (real / "reset").read_bytes() == b""
    (tmp_path / "proc/7/fd/3").unlink()
    reset.run(call())
    assert (real / "reset").read_bytes() == b"1"
    assert (real.parent / AUDIO / "reset").read_bytes() == b""


def test_every_selected_function_is_reset(tmp_path: Path) -> None:
    """A device of two functions is clean when both are."""
    real = _world(tmp_path)
    GroupReset(_only(tmp_path), root=tmp_path).run(call())
    assert (real / "reset").read_bytes() == (real.parent / AUDIO / "reset").read_bytes() == b"1"


def test_a_worker_may_read_its_group(tmp_path: Path) -> None:
    """The members are read by path, the group's node is the only one that is opened."""
    _world(tmp_path)
    needs = allowed(_only(tmp_path), tmp_path)
    assert needs.ioctl == ("/dev/vfio/7",)
    assert f"/sys/devices/pci0000:00/{PORT}/{AUDIO}" in needs.read
    assert "/sys/kernel/iommu_groups/7" in needs.read
