"""The pci driver's resets against trees of fixtures: what goes along, who is in the way, what is written."""

from collections.abc import Callable
from pathlib import Path

import pytest

from devd.ipc.messages import Device
from devd.workers.drivers.pci import FunctionReset, PciDriver, RebindReset, RemoveRescanReset
from devd.workers.drivers.pci_resets import allowed_resets
from devd.workers.errors import ResetError
from devd.workers.hw import attributes
from devd.workers.sandbox.runtime import SYSFS
from tests.unit.workers.drivers.pci_tree import CARD, PORT, bridge, call, config, function, node, process
from tests.unit.workers.drivers.tree import grow, link

SIBLING = "0000:03:00.1"
RESETS: list[Callable[..., FunctionReset | RemoveRescanReset | RebindReset]] = [
    FunctionReset,
    RemoveRescanReset,
    RebindReset,
]


def _device(root: Path, address: str = CARD) -> Device:
    (device,) = PciDriver({"address": address}, root=root).discover().devices
    return device


def _virtual(root: Path, real: Path, address: str = "0000:03:10.0") -> None:
    virtual = function(root, address)
    link(root, f"{virtual.relative_to(root)}/physfn", str(real.relative_to(root)))
    link(root, f"{real.relative_to(root)}/virtfn0", str(virtual.relative_to(root)))


# ---- who is in the way: the same for all of them ------------------------------------------------------------------


@pytest.mark.parametrize("reset", RESETS)
def test_an_open_node_is_in_the_way(tmp_path: Path, reset: Callable[..., FunctionReset]) -> None:
    """A process with a node of the function open is named, and nothing is written."""
    real = function(tmp_path, files={"reset_method": "flr bus"})
    node(tmp_path, real, "drm/card0", "dri/card0", "226:0")
    process(tmp_path, 7, "Xorg", "/dev/dri/card0")
    with pytest.raises(ResetError, match=rf"refused, {CARD} would be reset: pid 7 \(Xorg\) has /dev/dri/card0 open"):
        reset(_device(tmp_path), root=tmp_path).run(call())
    assert (real / "reset").read_bytes() == (real / "remove").read_bytes() == b""


@pytest.mark.parametrize("opened", ["/dev/vfio/7", "/dev/vfio/devices/vfio0", "resource0"])
def test_a_function_held_past_its_driver_is_in_use(tmp_path: Path, opened: str) -> None:
    """VFIO's group and device nodes and a mapped region count as well."""
    real = function(tmp_path, group="7", driver="vfio-pci", files={"vfio-dev/vfio0/dev": "511:0"})
    path = opened if opened.startswith("/") else f"{attributes.below(tmp_path, real)}/{opened}"
    process(tmp_path, 8, "qemu", path)
    with pytest.raises(ResetError, match=rf"pid 8 \(qemu\) has {path} open"):
        FunctionReset(_device(tmp_path), root=tmp_path).run(call())


def test_disks_and_interfaces_below_are_users(tmp_path: Path) -> None:
    """A mounted disk of a controller, and one joined from several paths, count; an interface that is up too."""
    real = function(tmp_path)
    node(tmp_path, real, "host0/block/sda", "sda", "8:0", subsystem="block")
    link(tmp_path, "sys/class/block/sda", f"{real.relative_to(tmp_path)}/host0/block/sda")
    grow(real, {"nvme/nvme0/state": "live", "net/eth9/ifindex": "4", "net/eth9/flags": "0x1003"})
    grow(
        tmp_path,
        {
            "sys/class/nvme-subsystem/nvme-subsys0/nvme0": None,
            "sys/class/nvme-subsystem/nvme-subsys0/nvme0n1/dev": "259:1",
            "sys/class/block/nvme0n1/dev": "259:1",
            "proc/1/mountinfo": "1 0 8:0 / /data rw - ext4 x rw\n2 0 259:1 / /db rw - ext4 x rw",
        },
    )
    with pytest.raises(ResetError) as caught:
        FunctionReset(_device(tmp_path), root=tmp_path).run(call())
    text = str(caught.value)
    assert "sda is mounted on /data" in text
    assert "nvme0n1 is mounted on /db" in text
    assert "network interface eth9 is up" in text


def test_an_interface_that_is_down_is_no_user(tmp_path: Path) -> None:
    """Down is free; what cannot be read counts as up."""
    real = function(tmp_path, files={"class": "0x020000", "net/eth9/ifindex": "4", "net/eth9/flags": "0x1002"})
    FunctionReset(_device(tmp_path), root=tmp_path).run(call())
    grow(real, {"net/eth9/flags": "garbage"})
    with pytest.raises(ResetError, match="eth9 is up"):
        FunctionReset(_device(tmp_path), root=tmp_path).run(call())


def test_an_interface_that_is_away_may_be_in_a_pod(tmp_path: Path) -> None:
    """A network card with a driver and no interface here is not known to be free; one for virtual machines is."""
    function(tmp_path, files={"class": "0x020000"})
    function(tmp_path, SIBLING, driver="vfio-pci", files={"class": "0x020000", "reset_method": "flr"})
    with pytest.raises(ResetError, match="may be in a pod's network namespace"):
        FunctionReset(_device(tmp_path), root=tmp_path).run(call())
    FunctionReset(_device(tmp_path, SIBLING), root=tmp_path).run(call())


@pytest.mark.parametrize("reset", RESETS)
def test_virtual_functions_are_in_the_way(tmp_path: Path, reset: Callable[..., FunctionReset]) -> None:
    """A physical function is not reset under its virtual ones, used or not."""
    _virtual(tmp_path, function(tmp_path, files={"reset_method": "flr"}))
    device = _device(tmp_path)
    assert reset(device, root=tmp_path).blast_radius() == (CARD, "0000:03:10.0")
    with pytest.raises(ResetError, match=f"{CARD} has the virtual function 0000:03:10.0"):
        reset(device, root=tmp_path).run(call())


# ---- reset --------------------------------------------------------------------------------------------------------


def test_a_function_alone_is_reset(tmp_path: Path) -> None:
    """With a method of its own nothing else goes along, and the kernel's order stays as it is."""
    bridge(tmp_path)
    real = function(tmp_path, files={"reset_method": "flr bus"})
    process(tmp_path, 7, "other", f"{attributes.below(tmp_path, function(tmp_path, SIBLING))}/resource0")
    reset = FunctionReset(_device(tmp_path), root=tmp_path)
    assert reset.blast_radius() == (CARD,)
    reset.run(call())
    assert (real / "reset").read_bytes() == b"1"
    assert (real / "reset_method").read_text() == "flr bus\n"


@pytest.mark.parametrize("methods", ["bus", "cxl_bus", "", "absent"])
def test_a_reset_of_the_bus_takes_all_behind_the_bridge(tmp_path: Path, methods: str) -> None:
    """Where the way is the bus, or is not told, a user of a sibling is in the way."""
    bridge(tmp_path)
    real = function(tmp_path, files={"reset_method": methods})
    sibling = function(tmp_path, SIBLING)
    reset = FunctionReset(_device(tmp_path), root=tmp_path)
    assert reset.blast_radius() == (CARD, SIBLING)
    process(tmp_path, 7, "dpdk", f"{attributes.below(tmp_path, sibling)}/resource0")
    with pytest.raises(ResetError, match=rf"{CARD}, {SIBLING} would be reset: pid 7 \(dpdk\)"):
        reset.run(call())
    assert (real / "reset").read_bytes() == b""


def test_a_chosen_method_is_put_back(tmp_path: Path) -> None:
    """The method is set for this one reset; the order the operator left is there again after it."""
    real = function(tmp_path, files={"reset_method": "flr bus"})
    grow(tmp_path, {f"{real.relative_to(tmp_path)}/reset_method": b"flr bus"})
    FunctionReset(_device(tmp_path), root=tmp_path, method="bus").run(call())
    assert (real / "reset").read_bytes() == b"1"
    assert (real / "reset_method").read_text() == "flr bus"


def test_a_method_that_is_not_offered_is_refused(tmp_path: Path) -> None:
    """The methods there are stand in the refusal; without the file ``reset`` there is no way at all."""
    real = function(tmp_path, files={"reset_method": "flr bus"})
    with pytest.raises(ResetError, match="cannot be reset by pm: its methods are flr, bus"):
        FunctionReset(_device(tmp_path), root=tmp_path, method="pm").run(call())
    (real / "reset").unlink()
    with pytest.raises(ResetError, match="the kernel offers no way"):
        FunctionReset(_device(tmp_path), root=tmp_path).run(call())


def test_a_function_that_does_not_come_back_failed(tmp_path: Path) -> None:
    """A reset is done when the function answers as what it was, and fails when the time is over."""
    real = function(tmp_path, files={"config": b"\xff" * 64})
    with pytest.raises(ResetError, match=f"{CARD} does not answer after the reset"):
        FunctionReset(_device(tmp_path), root=tmp_path).run(call())
    assert (real / "reset").read_bytes() == b"1"
    grow(real, {"config": config()})
    FunctionReset(_device(tmp_path), root=tmp_path).run(call())


def test_a_write_that_fails_is_told(tmp_path: Path) -> None:
    """The kernel's answer stands in the error, with the file."""
    real = function(tmp_path)
    (real / "reset").unlink()
    (real / "reset").mkdir()
    with pytest.raises(ResetError, match=rf"write /sys/devices/.*/{CARD}/reset: EISDIR"):
        FunctionReset(_device(tmp_path), root=tmp_path).run(call())


# ---- remove and rescan --------------------------------------------------------------------------------------------


def test_a_function_is_removed_and_its_bus_scanned(tmp_path: Path) -> None:
    """The bridge above scans, not the whole machine; on the root bus the machine does."""
    upper = bridge(tmp_path)
    real = function(tmp_path)
    reset = RemoveRescanReset(_device(tmp_path), root=tmp_path)
    reset.run(call())
    assert (real / "remove").read_bytes() == (upper / "rescan").read_bytes() == b"1"
    assert (tmp_path / "sys/bus/pci/rescan").read_bytes() == b""
    function(tmp_path, "0000:00:05.0", above="")
    RemoveRescanReset(_device(tmp_path, "0000:00:05.0"), root=tmp_path).run(call())
    assert (tmp_path / "sys/bus/pci/rescan").read_bytes() == b"1"


def test_nothing_is_removed_that_cannot_be_looked_for_again(tmp_path: Path) -> None:
    """The rescan is open before the removal: where it may not be written, the function stays."""
    upper = bridge(tmp_path)
    real = function(tmp_path)
    (upper / "rescan").unlink()
    (upper / "rescan").mkdir()
    with pytest.raises(ResetError, match=f"nothing was removed, .*: open /sys/devices/.*/{PORT}/rescan: EISDIR"):
        RemoveRescanReset(_device(tmp_path), root=tmp_path).run(call())
    assert (real / "remove").read_bytes() == b""


def test_what_was_removed_comes_back_also_when_another_could_not_be(tmp_path: Path) -> None:
    """With two functions of which the second may not be removed, the rescan for the first is made all the same."""
    upper = bridge(tmp_path)
    first, second = function(tmp_path), function(tmp_path, SIBLING)
    (second / "remove").unlink()
    (second / "remove").mkdir()
    params = [{"address": one, "ids": "1234:11e8", "driver": "edu"} for one in (CARD, SIBLING)]
    with pytest.raises(ResetError, match=f"write /sys/devices/.*/{SIBLING}/remove: EISDIR"):
        RemoveRescanReset(Device("both", params={"functions": params}), root=tmp_path).run(call())
    assert (first / "remove").read_bytes() == (upper / "rescan").read_bytes() == b"1"


def test_a_bridge_that_is_removed_itself_is_not_asked_to_look(tmp_path: Path) -> None:
    """Of a bridge and a function behind it, the bridge above both looks for both: here the machine."""
    upper = bridge(tmp_path)
    function(tmp_path)
    params = [
        {"address": PORT, "ids": "1234:11e8", "driver": "pcieport"},
        {"address": CARD, "ids": "1234:11e8", "driver": "edu"},
    ]
    device = Device("both", params={"functions": params})
    RemoveRescanReset(device, root=tmp_path).run(call())
    assert (upper / "rescan").read_bytes() == b""
    assert (tmp_path / "sys/bus/pci/rescan").read_bytes() == b"1"
    assert f"/sys/bus/pci/devices/{PORT}/rescan" not in allowed_resets(device, tmp_path).write


def test_a_function_that_is_gone_is_looked_for(tmp_path: Path) -> None:
    """One that has left the list already is scanned for, and missing it is a failure."""
    function(tmp_path)
    reset = RemoveRescanReset(_device(tmp_path), root=tmp_path)
    (tmp_path / f"sys/bus/pci/devices/{CARD}").unlink()
    with pytest.raises(ResetError, match=f"{CARD} does not answer after the reset"):
        reset.run(call())
    assert (tmp_path / "sys/bus/pci/rescan").read_bytes() == b"1"


def test_a_function_that_comes_back_without_its_driver_failed(tmp_path: Path) -> None:
    """The driver that was there before belongs to what must come back."""
    real = function(tmp_path)
    reset = RemoveRescanReset(_device(tmp_path), root=tmp_path)
    (real / "driver").unlink()
    with pytest.raises(ResetError, match=f"{CARD} is not bound to edu after the reset"):
        reset.run(call())


def test_a_removal_that_would_lose_something_is_refused(tmp_path: Path) -> None:
    """A driver_override is lost by a removal, a virtual function does not come back by a rescan."""
    real = function(tmp_path, files={"driver_override": "vfio-pci"})
    with pytest.raises(ResetError, match="driver_override vfio-pci, which a removal loses"):
        RemoveRescanReset(_device(tmp_path), root=tmp_path).run(call())
    grow(real, {"driver_override": "(null)"})
    RemoveRescanReset(_device(tmp_path), root=tmp_path).run(call())
    _virtual(tmp_path, real)
    with pytest.raises(ResetError, match="is a virtual function"):
        RemoveRescanReset(_device(tmp_path, "0000:03:10.0"), root=tmp_path).run(call())


def test_a_bridge_takes_all_that_is_behind_it(tmp_path: Path) -> None:
    """Offered on purpose, a bridge is removed with everything below, whose users are in the way."""
    bridge(tmp_path)
    real = function(tmp_path)
    (device,) = PciDriver({"class": "0604*"}, root=tmp_path).discover().devices
    reset = RemoveRescanReset(device, root=tmp_path)
    assert reset.blast_radius() == (PORT, CARD)
    process(tmp_path, 9, "qemu", f"{attributes.below(tmp_path, real)}/resource0")
    with pytest.raises(ResetError, match=r"pid 9 \(qemu\)"):
        reset.run(call())


# ---- rebind -------------------------------------------------------------------------------------------------------


def test_a_driver_is_taken_off_and_given_back(tmp_path: Path) -> None:
    """Unbound and bound by its address; one that lost its driver is bound only."""
    real = function(tmp_path)
    device = _device(tmp_path)
    drivers = tmp_path / "sys/bus/pci/drivers/edu"
    RebindReset(device, root=tmp_path).run(call())
    assert (drivers / "unbind").read_text() == (drivers / "bind").read_text() == CARD
    grow(drivers, {"bind": b"", "unbind": b""})
    (real / "driver").unlink()
    RebindReset(device, root=tmp_path).run(call())
    assert ((drivers / "unbind").read_text(), (drivers / "bind").read_text()) == ("", CARD)


def test_without_a_driver_there_is_nothing_to_bind(tmp_path: Path) -> None:
    """A function that had no driver when it was found is not given one."""
    function(tmp_path, driver="")
    with pytest.raises(ResetError, match="had no driver"):
        RebindReset(_device(tmp_path), root=tmp_path).run(call())


def test_what_a_reset_needs_is_listed(tmp_path: Path) -> None:
    """The function's directory, its driver's and the rescan are written; no process is looked at."""
    function(tmp_path)
    needs = allowed_resets(_device(tmp_path))
    assert needs.write == (f"/sys/bus/pci/devices/{CARD}", "/sys/bus/pci/drivers/edu", "/sys/bus/pci/rescan")
    assert needs.read == SYSFS
    assert needs.capabilities == ("CAP_DAC_OVERRIDE",)


def test_of_the_bridge_above_the_rescan_alone_is_written(tmp_path: Path) -> None:
    """What looks for a function again is the bridge's own attribute; nothing else of the bridge is to be touched."""
    bridge(tmp_path)
    function(tmp_path)
    needs = allowed_resets(_device(tmp_path), tmp_path)
    assert [one for one in needs.write if PORT in one] == [f"/sys/bus/pci/devices/{PORT}/rescan"]
    assert "/sys/bus/pci/rescan" in needs.write
