"""The pci driver against trees of fixtures: who is offered under which id, and what each signal says."""

import shutil
from pathlib import Path

import pytest

from devd.ipc.messages import Device
from devd.workers.drivers.pci import SIGNALS, PciDriver, PciSignals, allowed
from devd.workers.errors import SpecError
from devd.workers.hw import pci, pci_state
from tests.unit.workers.drivers.pci_tree import BOOT, CARD, PORT, bind, bridge, config, counters, function, node
from tests.unit.workers.drivers.tree import GARBAGE, Content, grow, link

EDU = {"vendor": "1234"}
LINK: dict[str, Content] = {
    "current_link_width": "4",
    "max_link_width": "8",
    "current_link_speed": "8.0 GT/s PCIe",
    "max_link_speed": "16.0 GT/s PCIe",
}
AER: dict[str, Content] = {
    "aer_dev_correctable": counters("COR", 3),
    "aer_dev_nonfatal": counters("NONFATAL", 0),
    "aer_dev_fatal": counters("FATAL", 0),
}


def _only(root: Path, **match: object) -> Device:
    (device,) = PciDriver(match or EDU, root=root).discover().devices
    return device


def _signals(root: Path, **match: object) -> PciSignals:
    return PciSignals(_only(root, **match), root=root)


def _bad(signals: PciSignals) -> dict[str, str]:
    return {one.name: reason for one in SIGNALS if (reason := signals.check(one.name))}


# ---- discovery --------------------------------------------------------------------------------------------------


def test_a_function_is_found_with_what_sysfs_says(tmp_path: Path) -> None:
    """Id, properties and NUMA node come from sysfs alone; without nodes asked for there are none."""
    bridge(tmp_path)
    function(tmp_path, group="7")
    device = _only(tmp_path)
    assert (device.id, device.nodes, device.numa_node) == ("0000:00-1c.4-00.0", (), 1)
    assert device.properties == {
        "sysfs": f"/sys/devices/pci0000:00/{PORT}/{CARD}",
        "subsystem": "pci",
        "address": CARD,
        "path": "0000:00-1c.4-00.0",
        "vendor": "1234",
        "device": "11e8",
        "subsystem_id": "1af4:1100",
        "class": "00ff00",
        "revision": "10",
        "driver": "edu",
        "iommu_group": "7",
        "pcie_switch": "pci0000:00",
    }


@pytest.mark.parametrize(
    ("above", "joined"),
    [
        ("", "pci0000:00"),
        (PORT, "pci0000:00"),
        (f"{PORT}/0000:01:00.0", "0000:01:00.0"),
        (f"{PORT}/0000:01:00.0/0000:02:04.0", "0000:01:00.0"),
        (f"{PORT}/0000:01:00.0/0000:02:04.0/0000:05:00.0/0000:06:01.0", "0000:05:00.0"),
    ],
)
def test_the_switch_of_a_function_is_the_nearest_that_has_others(tmp_path: Path, above: str, joined: str) -> None:
    """Behind a switch its upper port, behind a plain bridge that bridge, else the root complex."""
    function(tmp_path, above=above)
    assert _only(tmp_path).properties["pcie_switch"] == joined
    assert pci.switch(tmp_path / "sys/bus/pci/devices") == ""


def test_no_pci_at_all_is_an_empty_list(tmp_path: Path) -> None:
    """A machine without a PCI bus has no devices, and no problem."""
    found = PciDriver(EDU, root=tmp_path).discover()
    assert (found.devices, found.problems) == ((), ())


def test_new_bus_numbers_keep_the_id(tmp_path: Path) -> None:
    """The same slot has the same id whatever number its bus gets; another slot has another."""
    function(tmp_path / "before", "0000:03:00.0")
    function(tmp_path / "after", "0000:07:00.0")
    function(tmp_path / "moved", "0000:03:00.0", above="0000:00:1d.0")
    before, after, moved = (_only(tmp_path / name) for name in ("before", "after", "moved"))
    assert before.id == after.id != moved.id
    assert before.properties["address"] != after.properties["address"]


def test_the_address_is_the_id_if_wanted(tmp_path: Path) -> None:
    """``identity: address`` is for those who know their machine by addresses."""
    function(tmp_path)
    assert _only(tmp_path, **EDU, identity="address").id == CARD


def test_twins_are_told_apart_by_their_slots(tmp_path: Path) -> None:
    """Two equal cards, and two functions of one card, have ids of their own."""
    function(tmp_path)
    function(tmp_path, "0000:03:00.1")
    function(tmp_path, "0000:04:00.0", above="0000:00:1d.0")
    devices = PciDriver(EDU, root=tmp_path).discover().devices
    assert [one.id for one in devices] == ["0000:00-1c.4-00.0", "0000:00-1c.4-00.1", "0000:00-1d.0-00.0"]


def test_virtual_functions_are_named_by_their_number(tmp_path: Path) -> None:
    """Two virtual functions with one device and function number on different buses do not collide."""
    real = function(tmp_path)
    for number, address in enumerate(("0000:03:10.0", "0000:04:10.0")):
        virtual = function(tmp_path, address)
        link(tmp_path, f"{virtual.relative_to(tmp_path)}/physfn", str(real.relative_to(tmp_path)))
        link(tmp_path, f"{real.relative_to(tmp_path)}/virtfn{number}", str(virtual.relative_to(tmp_path)))
    devices = PciDriver(EDU | {"physfn": CARD}, root=tmp_path).discover().devices
    assert [one.id for one in devices] == ["0000:00-1c.4-00.0-vf0", "0000:00-1c.4-00.0-vf1"]


def test_a_domain_behind_a_controller_is_named_from_the_top(tmp_path: Path) -> None:
    """Domains are numbered by order of appearance: the way through the controller is in the id instead."""
    real = "sys/devices/pci0000:00/0000:00:0e.0/pci10000:e0/10000:e0:06.0/10000:e1:00.0"
    grow(tmp_path, {f"{real}/vendor": "0x1234", f"{real}/device": "0x11e8"})
    link(tmp_path, "sys/bus/pci/devices/10000:e1:00.0", real)
    assert _only(tmp_path).id == "0000:00-0e.0-06.0-00.0"


def test_a_card_that_is_plugged_in_appears(tmp_path: Path) -> None:
    """A second scan sees what came and not what went."""
    driver = PciDriver(EDU, root=tmp_path)
    function(tmp_path)
    assert len(driver.discover().devices) == 1
    (tmp_path / f"sys/bus/pci/devices/{CARD}").unlink()
    function(tmp_path, "0000:04:00.0", above="0000:00:1d.0")
    assert [one.id for one in driver.discover().devices] == ["0000:00-1d.0-00.0"]


def test_nodes_are_those_that_are_asked_for(tmp_path: Path) -> None:
    """A container gets the nodes that fit, from anywhere below the function, and no others."""
    real = function(tmp_path)
    node(tmp_path, real, "drm/card0", "dri/card0", "226:0", subsystem="drm")
    node(tmp_path, real, "drm/renderD128", "dri/renderD128", "226:128", subsystem="drm")
    node(tmp_path, real, "host0/block/sda", "sda", "8:0", subsystem="block")
    (one,) = _only(tmp_path, **EDU, nodes="dri/render*").nodes
    assert (one.path, one.kind, one.major, one.minor) == ("/dev/dri/renderD128", "char", 226, 128)
    assert [(one.path, one.kind) for one in _only(tmp_path, **EDU, nodes=["sd?"]).nodes] == [("/dev/sda", "block")]


def test_a_function_without_its_nodes_is_not_offered_yet(tmp_path: Path) -> None:
    """As long as no driver has made a node that fits, there is nothing to give, and the problem says so."""
    function(tmp_path)
    found = PciDriver(EDU | {"nodes": "dri/*"}, root=tmp_path).discover()
    assert found.devices == ()
    assert found.problems == (f"{CARD} has none of the nodes dri/*: not offered",)


def test_the_directories_of_nodes_are_watched(tmp_path: Path) -> None:
    """A change in /dev, and in the directory that a glob names, calls for another scan."""
    grow(tmp_path, {"dev/dri": None})
    found = PciDriver(EDU | {"nodes": ["dri/*", "accel/*", "*/x"]}, root=tmp_path).discover()
    assert found.directories == (tmp_path / "dev", tmp_path / "dev/dri")


def test_bridges_are_taken_on_purpose_only(tmp_path: Path) -> None:
    """A vendor's card does not bring the vendor's bridges along; its class does, without the nodes behind it."""
    upper = bridge(tmp_path)
    node(tmp_path, upper, "misc/own", "own", "10:1")
    node(tmp_path, function(tmp_path), "misc/card", "card", "10:2")
    assert [one.properties["address"] for one in PciDriver(EDU, root=tmp_path).discover().devices] == [CARD]
    one = _only(tmp_path, **{"class": "0604*"}, nodes="*")
    assert (one.properties["address"], [node.path for node in one.nodes]) == (PORT, ["/dev/own"])


def test_a_selection_is_needed_and_understood() -> None:
    """No selector at all would offer the machine; a misspelt one too."""
    for match in ({}, {"nodes": "dri/*"}, {"exclude": {"vendor": "8086"}}):
        with pytest.raises(SpecError, match="nothing selects"):
            PciDriver(match)
    with pytest.raises(SpecError, match=r"match\.vendro: unknown"):
        PciDriver({"vendro": "8086"})
    with pytest.raises(SpecError, match=r"match\.identity"):
        PciDriver(EDU | {"identity": "serial"})


def test_ids_are_taken_as_people_write_them(tmp_path: Path) -> None:
    """With 0x, in capitals, in lists and in what is excluded."""
    function(tmp_path)
    function(tmp_path, "0000:04:00.0", files={"device": "0x11e9"})
    device = _only(tmp_path, device=["0x11E8", "11E9"], subsystem_id="0x1AF4:0x1100", exclude={"device": "0x11E9"})
    assert device.properties["address"] == CARD


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_in_sysfs_is_no_crash(tmp_path: Path, garbage: bytes) -> None:
    """Whatever the attributes hold: the function is left out or listed, its signals answer, and none is a fault."""
    names = ("class", "revision", "numa_node", "enable", "resource", "power/runtime_status", *LINK, *AER)
    function(tmp_path, files=dict.fromkeys(names, garbage))
    bridge(tmp_path, files=dict.fromkeys((*LINK, *AER, "aer_rootport_total_err_fatal"), garbage))
    device = _only(tmp_path)
    assert len(device.id) <= 56
    assert _bad(PciSignals(device, root=tmp_path)) == {}
    grow(tmp_path, {f"sys/devices/pci0000:00/{PORT}/{CARD}/vendor": garbage})
    assert PciDriver({"device": "*"}, root=tmp_path).discover().devices == ()


# ---- signals ----------------------------------------------------------------------------------------------------


def test_a_healthy_function_offers_what_it_has(tmp_path: Path) -> None:
    """All signals of a card with a link and error reporting are offered and well."""
    bridge(tmp_path, files=LINK | AER | {"max_link_width": "4", "max_link_speed": "8.0 GT/s PCIe"})
    node(tmp_path, function(tmp_path, files=LINK | AER), "drm/card0", "dri/card0", "226:0")
    signals = _signals(tmp_path, **EDU, nodes="dri/*")
    (tmp_path / "dev/dri/card0").unlink()
    assert sorted(signals.offered) == sorted(one.name for one in SIGNALS)
    assert signals.check("node").startswith("stat /dev/dri/card0: ENOENT")
    assert {name: signals.check(name) for name in signals.offered if name != "node"} == {
        name: "" for name in signals.offered if name != "node"
    }


def test_a_bare_function_offers_little_and_is_well(tmp_path: Path) -> None:
    """What a kernel or card does not have is not offered, and no fault when it is asked for."""
    absent = ("config", "enable", "resource", "power/runtime_status")
    function(tmp_path, driver="", files=dict.fromkeys(absent, "absent"))
    signals = _signals(tmp_path)
    assert signals.offered == ("present", "identity")
    assert _bad(signals) == {}


def test_an_unknown_signal_is_refused(tmp_path: Path) -> None:
    """A misspelt signal is no signal that is well."""
    function(tmp_path)
    with pytest.raises(SpecError, match="'onbus' is unknown"):
        _signals(tmp_path).check("onbus")


def test_a_function_that_left_the_list_is_gone(tmp_path: Path) -> None:
    """A removed function is told as gone, by that signal alone."""
    function(tmp_path, files=LINK | AER)
    signals = _signals(tmp_path)
    (tmp_path / f"sys/bus/pci/devices/{CARD}").unlink()
    shutil.rmtree(tmp_path / f"sys/devices/pci0000:00/{PORT}/{CARD}")
    assert _bad(signals) == {"present": f"{CARD} is gone from the bus"}


def test_a_swapped_card_is_another_device(tmp_path: Path) -> None:
    """Another card at the address is named with both ids."""
    real = function(tmp_path)
    signals = _signals(tmp_path)
    grow(real, {"vendor": "0x10de", "device": "0x2335", "config": config(0x10DE, 0x2335)})
    assert signals.check("identity") == f"{CARD} is 10de:2335 now, was 1234:11e8"


def test_a_lost_or_changed_driver_shows(tmp_path: Path) -> None:
    """Unbound and bound to another driver are both told; a function found without one has no such signal."""
    real = function(tmp_path)
    signals = _signals(tmp_path)
    (real / "driver").unlink()
    assert signals.check("driver") == f"{CARD} is bound to no driver, was to edu"
    bind(tmp_path, str(real.relative_to(tmp_path)), "vfio-pci")
    assert signals.check("driver") == f"{CARD} is bound to vfio-pci, was to edu"
    (real / "driver").unlink()
    assert "driver" not in _signals(tmp_path).offered


def test_a_function_that_fell_off_the_bus(tmp_path: Path) -> None:
    """All ones is gone, "retry" is not ready, another id is another device; too few bytes say nothing."""
    real = function(tmp_path)
    signals = _signals(tmp_path)
    for content, reason in (
        (b"\xff" * 64, f"{CARD} fell off the bus: its configuration space reads as ones"),
        (config(0x0001, 0xFFFF), f"{CARD} is not ready: it answers that it still comes up"),
        (config(0x1234, 0x0001), f"{CARD} answers as 1234:0001, was 1234:11e8"),
        (b"\xff\xff", ""),
        (b"", ""),
    ):
        (real / "config").write_bytes(content)
        assert signals.check("on-bus") == reason


def test_a_virtual_function_shows_ones_as_its_ids(tmp_path: Path) -> None:
    """By the standard: not a fault; all of the header as ones still is."""
    real = function(tmp_path, "0000:03:10.0", files={"config": config(0xFFFF, 0xFFFF), **LINK})
    link(tmp_path, f"{real.relative_to(tmp_path)}/physfn", f"sys/devices/pci0000:00/{PORT}/{CARD}")
    signals = _signals(tmp_path)
    assert _bad(signals) == {}
    assert not {"link-width", "link-speed", "decode", "port-errors"} & set(signals.offered)
    (real / "config").write_bytes(b"\xff" * 64)
    assert "fell off the bus" in signals.check("on-bus")


def test_a_sleeping_function_is_not_woken(tmp_path: Path) -> None:
    """Neither the configuration space nor the link is read while it sleeps; ``wake`` is for those who want that."""
    files: dict[str, Content] = LINK | {
        "power/runtime_status": "suspended",
        "config": b"\xff" * 64,
        "current_link_width": "1",
    }
    real = function(tmp_path, files=files)
    bridge(tmp_path, files=LINK)
    signals = _signals(tmp_path)
    asked = {one.name for one in SIGNALS} - {"wake"}
    assert {name: signals.check(name) for name in asked} == dict.fromkeys(asked, "")
    assert signals.notes == {f"{CARD} on-bus": "asleep, not asked"}
    assert "fell off the bus" in signals.check("wake")
    grow(real, {"power/runtime_status": "active"})
    assert "fell off the bus" in signals.check("on-bus")
    assert signals.notes == {}


def test_a_function_that_cannot_be_woken(tmp_path: Path) -> None:
    """The kernel's own word for a failed suspend or resume is a fault."""
    function(tmp_path, files={"power/runtime_status": "error"})
    assert "runtime_status error" in _signals(tmp_path).check("power")


def test_lanes_are_compared_with_what_both_ends_can(tmp_path: Path) -> None:
    """A wide card in a narrow slot is well; lanes lost of those that both have are not."""
    real = function(tmp_path, files=LINK)
    upper = bridge(tmp_path, files={"max_link_width": "4", "max_link_speed": "16.0 GT/s PCIe"})
    signals = _signals(tmp_path)
    assert signals.check("link-width") == ""
    assert signals.check("link-speed") == f"{CARD} runs at 8 GT/s, both ends can 16"
    grow(upper, {"max_link_width": "16"})
    assert signals.check("link-width") == f"{CARD} has 4 lanes, both ends can 8"
    for nonsense in ("0", "63", "255", "many"):
        grow(real, {"current_link_width": nonsense})
        assert signals.check("link-width") == ""


def test_a_link_without_a_bridge_is_judged_by_its_own_end(tmp_path: Path) -> None:
    """On the root bus, or where the port tells nothing, the function's own maximum counts."""
    function(tmp_path, files=LINK, above="")
    assert _signals(tmp_path).check("link-width") == f"{CARD} has 4 lanes, both ends can 8"


def test_own_errors_count_from_the_baseline(tmp_path: Path) -> None:
    """What was counted before is no fault; one more uncorrectable error is, until a reset has cured it."""
    real = function(tmp_path, files=AER | {"aer_dev_fatal": counters("FATAL", 2)})
    signals = _signals(tmp_path)
    assert _bad(signals) == {}
    grow(real, {"aer_dev_fatal": counters("FATAL", 3), "aer_dev_nonfatal": counters("NONFATAL", 1)})
    assert _bad(signals) == {
        "fatal-errors": f"{CARD} fatal errors grew by 1 (2 -> 3)",
        "nonfatal-errors": f"{CARD} nonfatal errors grew by 1 (0 -> 1)",
    }
    kept = PciSignals(_only(tmp_path), root=tmp_path, baseline=signals.baseline)
    assert kept.check("fatal-errors")
    kept.cured()
    assert _bad(kept) == {}


def test_a_baseline_of_another_boot_or_list_begins_anew(tmp_path: Path) -> None:
    """A reboot and a remove-and-rescan both clear the kernel's counters: no growth is made up of that."""
    real = function(tmp_path, files=AER | {"aer_dev_fatal": counters("FATAL", 9)})
    signals = _signals(tmp_path)
    assert signals.check("fatal-errors") == ""
    grow(real, {"aer_dev_fatal": counters("FATAL", 1)})
    assert signals.check("fatal-errors") == ""
    grow(tmp_path, {BOOT: "boot-2"})
    grow(real, {"aer_dev_fatal": counters("FATAL", 4)})
    assert PciSignals(_only(tmp_path), root=tmp_path, baseline=signals.baseline).check("fatal-errors") == ""


def test_corrected_errors_are_tolerated_in_moderation(tmp_path: Path) -> None:
    """A hundred in an hour are allowed, more are not."""
    real = function(tmp_path, files=AER)
    signals = _signals(tmp_path)
    assert signals.check("correctable-errors") == ""
    grow(real, {"aer_dev_correctable": counters("COR", 103)})
    assert signals.check("correctable-errors") == ""
    grow(real, {"aer_dev_correctable": counters("COR", 104)})
    assert "grew by 101" in signals.check("correctable-errors")


def test_a_fatal_error_shows_at_the_port_above(tmp_path: Path) -> None:
    """An endpoint's fatal error is counted by the root port that was told of it; a port further up is not asked."""
    function(tmp_path)
    upper = bridge(tmp_path, files={"aer_rootport_total_err_fatal": "0", "aer_rootport_total_err_nonfatal": "0"})
    signals = _signals(tmp_path)
    assert signals.check("port-errors") == ""
    grow(upper, {"aer_rootport_total_err_fatal": "1"})
    assert signals.check("port-errors") == f"{PORT} received fatal errors grew by 1 (0 -> 1)"
    far = function(tmp_path, "0000:05:00.0", above=f"{PORT}/0000:04:00.0")
    grow(far.parent, {"vendor": "0x1234", "device": "0x0001", "class": "0x060400"})
    link(tmp_path, "sys/bus/pci/devices/0000:04:00.0", str(far.parent.relative_to(tmp_path)))
    assert "port-errors" not in _signals(tmp_path, address="0000:05:00.0").offered


def test_a_function_that_lost_its_settings(tmp_path: Path) -> None:
    """Enabled by a driver and answering nowhere is a fault; not enabled, or handed to a guest, it is none."""
    real = function(tmp_path, files={"config": config(command=0)})
    assert "command register (0x0000)" in _signals(tmp_path).check("decode")
    grow(real, {"enable": "0"})
    assert _signals(tmp_path).check("decode") == ""
    grow(real, {"enable": "1"})
    (real / "driver").unlink()
    bind(tmp_path, str(real.relative_to(tmp_path)), "vfio-pci")
    assert "decode" not in _signals(tmp_path).offered


def test_a_worker_may_read_what_its_signals_read(tmp_path: Path) -> None:
    """The function's and the port's real directories are listed as they are below /sys."""
    bridge(tmp_path)
    function(tmp_path)
    reads = allowed(_only(tmp_path), tmp_path).read
    assert f"/sys/devices/pci0000:00/{PORT}/{CARD}" in reads
    assert f"/sys/devices/pci0000:00/{PORT}" in reads


def test_this_machines_functions_are_understood() -> None:
    """Every real function of this machine is listed, its ids are those its hardware gives, and its signals answer."""
    real = pci.functions(Path("/"))
    if not real:
        pytest.skip("this machine shows no PCI bus")
    devices = {one.properties["address"]: one for one in PciDriver({"class": "*"}).discover().devices}
    assert sorted(devices) == sorted(one.address for one in real)
    assert len({one.id for one in devices.values()}) == len(devices)
    for one in real:
        signals = PciSignals(devices[one.address])
        assert {"present", "identity", "on-bus"} <= set(signals.offered)
        assert (signals.check("present"), signals.check("identity"), signals.check("driver")) == ("", "", "")
        if not pci_state.asleep(one.directory) and not one.physfn:
            header = pci_state.header(one.directory)
            assert header is not None
            if not header.gone:
                assert (f"{header.vendor:04x}", f"{header.device:04x}") == (one.vendor, one.device)
