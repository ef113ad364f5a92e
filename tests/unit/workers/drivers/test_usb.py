"""The usb driver against trees of fixtures: who is offered under which id, what signals say, what resets refuse."""

import ctypes
import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from devd.ipc.messages import Device
from devd.workers.drivers.usb import SIGNALS, AuthorizedReset, PortReset, UsbDriver, UsbSignals, allowed
from devd.workers.drivers.usb_resets import allowed_resets
from devd.workers.errors import ResetError, SpecError
from devd.workers.hw import usb_calls
from tests.unit.workers.drivers.pci_tree import call, process
from tests.unit.workers.drivers.tree import GARBAGE, grow
from tests.unit.workers.drivers.usb_tree import device, replug, tty, unplug

FTDI = {"vendor": "0403"}
PORT = "0000:00-14.0-usb2-4"


def _found(root: Path, **match: object) -> tuple[Device, ...]:
    return UsbDriver(match or FTDI, root=root).discover().devices


def _only(root: Path, **match: object) -> Device:
    (one,) = _found(root, **match)
    return one


def _alive(_path: Path, _timeout_s: float) -> int:
    return 0


def _signals(root: Path, **match: object) -> UsbSignals:
    return UsbSignals(_only(root, **match), root=root, status=_alive)


def _bad(signals: UsbSignals) -> dict[str, str]:
    return {name: reason for name in signals.offered if (reason := signals.check(name)) and name != "node"}


def _refuse(number: int) -> Callable[..., int]:
    def refuse(path: Path, *_more: object) -> int:
        raise OSError(number, os.strerror(number), str(path))

    return refuse


# ---- discovery --------------------------------------------------------------------------------------------------


def test_a_device_is_found_with_what_it_says_of_itself(tmp_path: Path) -> None:
    """Id, raw node, properties and the controller's NUMA node come from sysfs alone."""
    device(tmp_path)
    one = _only(tmp_path)
    assert (one.id, one.numa_node) == ("0403:6001:A50285BI", 0)
    assert [(node.path, node.kind, node.major, node.minor) for node in one.nodes] == [
        ("/dev/bus/usb/001/005", "char", 189, 4)
    ]
    assert one.properties["port"] == PORT
    assert one.properties["speed"] == "12 Mbit/s"
    assert one.properties["sysfs"] == "/sys/devices/pci0000:00/0000:00:14.0/usb1/1-4"


def test_what_a_device_is_for_stands_in_its_interfaces(tmp_path: Path) -> None:
    """Their classes, each once, whatever else lies in the directory; none while the device is not set up."""
    real = device(tmp_path)
    assert "interfaces" not in _only(tmp_path).properties
    classes = {"1-4:1.0": "03", "1-4:1.1": "08", "1-4:1.2": "03", "1-4:1.3": "banana", "1-4.2:1.0": "09", "ep_00": "0a"}
    grow(real, {f"{name}/bInterfaceClass": found for name, found in classes.items()})
    assert _only(tmp_path).properties["interfaces"] == "03,08,09"


def test_no_usb_at_all_is_an_empty_list(tmp_path: Path) -> None:
    """A machine without USB has no devices, and no problem."""
    found = UsbDriver(FTDI, root=tmp_path).discover()
    assert (found.devices, found.problems) == ((), ())


def test_a_replug_keeps_the_id(tmp_path: Path) -> None:
    """With a serial the id goes with the device to another port; the node's number is new."""
    device(tmp_path)
    before = _only(tmp_path)
    unplug(tmp_path, "1-4")
    assert _found(tmp_path, **FTDI) == ()
    device(tmp_path, "1-7", number=6)
    after = _only(tmp_path)
    assert before.id == after.id
    assert after.nodes[0].path == "/dev/bus/usb/001/006"


def test_without_a_serial_the_port_is_the_id(tmp_path: Path) -> None:
    """The port outlives a reboot that numbers the buses anew; another port is another device."""
    device(tmp_path / "before", "1-4.2", serial=None)
    device(tmp_path / "after", "3-4.2", serial=None)
    device(tmp_path / "moved", "1-4.3", serial="")
    before, after, moved = (_only(tmp_path / name).id for name in ("before", "after", "moved"))
    assert before == after == "0403:6001-0000:00-14.0-usb2-4.2"
    assert moved == "0403:6001-0000:00-14.0-usb2-4.3"


def test_both_buses_of_a_controller_are_told_apart(tmp_path: Path) -> None:
    """One socket is a port of the USB 2 and of the USB 3 bus; a controller that is not on PCI is known by its name."""
    device(tmp_path, serial=None)
    device(tmp_path, "2-4", serial=None, version=" 3.10")
    device(tmp_path, "3-4", serial=None, controller="sys/devices/platform/soc/fe980000.usb")
    assert [one.properties["port"] for one in _found(tmp_path)] == [
        PORT,
        "0000:00-14.0-usb3-4",
        "fe980000.usb-usb2-4",
    ]


def test_twins_are_told_apart_by_port_for_both(tmp_path: Path) -> None:
    """Two devices with one serial both have their port in the id, also when only one of them is selected."""
    device(tmp_path)
    device(tmp_path, "1-7", number=6)
    found = UsbDriver(FTDI, root=tmp_path).discover()
    assert [one.id for one in found.devices] == [
        f"0403:6001:A50285BI-{PORT}",
        "0403:6001:A50285BI-0000:00-14.0-usb2-7",
    ]
    assert found.problems == ("2 devices say they are 0403:6001:A50285BI: told apart by their ports",)
    assert _only(tmp_path, name="1-4").id == found.devices[0].id


def test_a_twin_that_leaves_changes_neither_id_nor_path_of_the_other(tmp_path: Path) -> None:
    """Unplugged or back, behind one driver or the next: the one that stays is the same device by the same path."""
    tty(tmp_path, device(tmp_path))
    tty(tmp_path, device(tmp_path, "1-7", number=6), "ttyUSB1", 1)
    for number in (0, 1):
        grow(tmp_path, {f"dev/serial/by-path/pci-usb-{number}": f"-> ../../ttyUSB{number}"})
    grow(tmp_path, {"dev/serial/by-id/usb-FTDI": "-> ../../ttyUSB1"})
    discovery = UsbDriver(FTDI | {"nodes": "ttyUSB*"}, root=tmp_path)
    first, second = discovery.discover().devices
    unplug(tmp_path, "1-4")
    assert discovery.discover().devices == (second,)
    later = UsbDriver(FTDI | {"nodes": "ttyUSB*"}, root=tmp_path)
    later.twins.baseline = discovery.twins.baseline
    assert later.discover().devices == (second,)
    replug(tmp_path, "1-4")
    assert later.discover().devices == (first, second)
    assert [one.nodes[0].path for one in (first, second)] == [
        "/dev/serial/by-path/pci-usb-0",
        "/dev/serial/by-path/pci-usb-1",
    ]


def test_a_twin_that_appears_does_not_rename_the_first(tmp_path: Path) -> None:
    """Who was there keeps the serial as its id, also when it is plugged into its port again; the twin has its port."""
    device(tmp_path)
    driver = UsbDriver(FTDI, root=tmp_path)
    (one,) = driver.discover().devices
    device(tmp_path, "1-3", number=6)
    twin = "0403:6001:A50285BI-0000:00-14.0-usb2-3"
    assert [each.id for each in driver.discover().devices] == [twin, one.id]
    unplug(tmp_path, "1-4")
    assert [each.id for each in driver.discover().devices] == [twin]
    replug(tmp_path, "1-4")
    assert [each.id for each in driver.discover().devices] == [twin, one.id]


def test_the_port_is_the_id_of_all_if_wanted(tmp_path: Path) -> None:
    """``identity: port`` is for sockets with a meaning of their own, and for sticks that share a serial."""
    device(tmp_path)
    assert _only(tmp_path, **FTDI, identity="port").id == f"0403:6001-{PORT}"


def test_a_serial_line_is_given_by_its_stable_name(tmp_path: Path) -> None:
    """By id where the device is known by its serial, by path for twins and the nameless, else as the kernel has it."""
    tty(tmp_path, device(tmp_path))
    assert _only(tmp_path, **FTDI, nodes="ttyUSB*").nodes[0].path == "/dev/ttyUSB0"
    grow(
        tmp_path,
        {
            "dev/serial/by-id/another": "-> ../../ttyUSB1",
            "dev/serial/by-id/usb-FTDI": "-> ../../ttyUSB0",
            "dev/serial/by-path/pci-usb-4": "-> ../../ttyUSB0",
        },
    )
    (node,) = _only(tmp_path, **FTDI, nodes="ttyUSB*").nodes
    assert (node.path, node.kind, node.major, node.minor) == ("/dev/serial/by-id/usb-FTDI", "char", 188, 0)
    by_port = _only(tmp_path, **FTDI, nodes="ttyUSB*", identity="port")
    assert by_port.nodes[0].path == "/dev/serial/by-path/pci-usb-4"


def test_a_device_without_its_nodes_is_not_offered_yet(tmp_path: Path) -> None:
    """Before its driver has made the node there is nothing to give, and the problem names it; then it is offered."""
    real = device(tmp_path)
    driver = UsbDriver(FTDI | {"nodes": "ttyUSB*"}, root=tmp_path)
    assert driver.discover().problems == ("1-4 (0403:6001:A50285BI) has none of the nodes ttyUSB*: not offered",)
    tty(tmp_path, real)
    assert [one.id for one in driver.discover().devices] == ["0403:6001:A50285BI"]


def test_hubs_are_taken_on_purpose_only(tmp_path: Path) -> None:
    """A hub of the vendor is left out; by its class it is offered, and what is plugged into it stays apart."""
    device(tmp_path, serial=None, files={"bDeviceClass": "09"})
    device(tmp_path, "1-4.2", number=6)
    assert _only(tmp_path).properties["name"] == "1-4.2"
    hub = _only(tmp_path, **{"class": "09"})
    assert (hub.properties["name"], [one.path for one in hub.nodes]) == ("1-4", ["/dev/bus/usb/001/005"])


def test_a_selection_is_needed_and_understood() -> None:
    """No selector would offer every keyboard; a misspelt one too."""
    for match in ({}, {"nodes": "ttyUSB*"}):
        with pytest.raises(SpecError, match="nothing selects"):
            UsbDriver(match)
    with pytest.raises(SpecError, match=r"match\.vid: unknown"):
        UsbDriver({"vid": "0403"})


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_in_sysfs_is_no_crash(tmp_path: Path, garbage: bytes) -> None:
    """Whatever a device says of itself: it has a legal id, and its signals answer."""
    names = ("serial", "manufacturer", "product", "bDeviceClass", "speed", "authorized", "power/runtime_status")
    real = device(tmp_path, files=dict.fromkeys(names, garbage))
    grow(real.parent, {"version": garbage, "1-0:1.0/usb1-port4/over_current_count": garbage})
    one = _only(tmp_path)
    assert 0 < len(one.id) <= 56
    assert set(one.id) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:-")
    assert "::" not in one.id
    assert _bad(UsbSignals(one, root=tmp_path, status=_alive)) == {}
    grow(real, dict.fromkeys(("dev", "busnum"), garbage))
    assert _found(tmp_path) == ()
    grow(real, {"idVendor": garbage})
    assert UsbDriver({"product": "*"}, root=tmp_path).discover().problems == ()


# ---- signals ----------------------------------------------------------------------------------------------------


def test_a_healthy_device_offers_what_it_has(tmp_path: Path) -> None:
    """All signals of a serial adapter are offered and well; the tty is not opened unless it is asked for."""
    tty(tmp_path, device(tmp_path))
    opened: list[Path] = []

    def lines(path: Path) -> int:
        opened.append(path)
        return 0

    signals = UsbSignals(_only(tmp_path), root=tmp_path, status=_alive, modem_lines=lines)
    assert signals.offered == tuple(one.name for one in SIGNALS)
    for one in SIGNALS:
        if one.default and one.name != "node":
            assert signals.check(one.name) == ""
    assert opened == []
    assert signals.check("tty") == ""
    assert opened == [tmp_path / "dev/ttyUSB0"]


def test_a_bare_device_offers_little_and_is_well(tmp_path: Path) -> None:
    """An old kernel without these attributes, no port counter: not offered, and no fault."""
    real = device(tmp_path, files=dict.fromkeys(("authorized", "bConfigurationValue"), "absent"))
    (real / "port").unlink()
    signals = _signals(tmp_path)
    assert signals.offered == ("present", "identity", "node", "answers")
    assert [signals.check(name) for name in ("authorized", "configured", "over-current", "tty")] == [""] * 4
    with pytest.raises(SpecError, match="'alive' is unknown"):
        signals.check("alive")


def test_an_unplugged_device_is_gone(tmp_path: Path) -> None:
    """Its port is named; the other signals are no reasons of their own."""
    device(tmp_path)
    signals = _signals(tmp_path)
    unplug(tmp_path, "1-4")
    assert _bad(signals) == {"present": "nothing is plugged in at 1-4"}


def test_another_device_in_the_port_shows(tmp_path: Path) -> None:
    """Another product, or another serial, is named with what was there."""
    real = device(tmp_path)
    signals = _signals(tmp_path)
    grow(real, {"serial": "B1"})
    assert signals.check("identity") == '1-4 is 0403:6001 serial "B1" now, was 0403:6001 serial "A50285BI"'
    grow(real, {"serial": "A50285BI", "idProduct": "6015"})
    assert "is 0403:6015" in signals.check("identity")


def test_what_the_host_says_of_the_device(tmp_path: Path) -> None:
    """Not authorized and not configured are faults of their own."""
    real = device(tmp_path)
    signals = _signals(tmp_path)
    grow(real, {"authorized": "0", "bConfigurationValue": ""})
    assert _bad(signals) == {"authorized": "1-4 is not authorized", "configured": "1-4 has no configuration"}


def test_over_current_counts_from_the_baseline(tmp_path: Path) -> None:
    """What was counted before is no fault; one more is, until a reset has cured it."""
    real = device(tmp_path)
    count = real.parent / "1-0:1.0/usb1-port4"
    grow(count, {"over_current_count": "3"})
    signals = _signals(tmp_path)
    assert signals.check("over-current") == ""
    grow(count, {"over_current_count": "4"})
    assert signals.check("over-current") == "1-4 over-current events grew by 1 (3 -> 4)"
    kept = UsbSignals(_only(tmp_path), root=tmp_path, baseline=signals.baseline)
    assert kept.check("over-current")
    kept.cured()
    assert kept.check("over-current") == ""


@pytest.mark.parametrize(
    ("number", "reason"),
    [(errno.ETIMEDOUT, "ETIMEDOUT"), (errno.EPROTO, "EPROTO"), (errno.ENODEV, "ENODEV"), (errno.EPIPE, "")],
)
def test_a_device_that_does_not_answer(tmp_path: Path, number: int, reason: str) -> None:
    """A time-out, a broken transfer and a lost device are faults; a stall is an answer."""
    device(tmp_path)
    signals = UsbSignals(_only(tmp_path), root=tmp_path, status=_refuse(number))
    found = signals.check("answers")
    assert found.startswith(f"status request /dev/bus/usb/001/005: {reason}") if reason else found == ""


def test_a_device_that_may_not_be_asked_is_no_fault(tmp_path: Path) -> None:
    """Without the right to open the node the signal says so in a note; without a node it is silent."""
    device(tmp_path)
    signals = UsbSignals(_only(tmp_path), root=tmp_path, status=_refuse(errno.EACCES))
    assert signals.check("answers") == ""
    assert signals.notes["answers"].startswith("not asked: status request /dev/bus/usb/001/005: EACCES")
    assert UsbSignals(_only(tmp_path), root=tmp_path, status=_refuse(errno.ENOENT)).check("answers") == ""


def test_a_sleeping_device_is_not_woken(tmp_path: Path) -> None:
    """Opening its node would wake it: it is not asked."""
    real = device(tmp_path, files={"power/runtime_status": "suspended"})
    signals = UsbSignals(_only(tmp_path), root=tmp_path, status=_refuse(errno.ETIMEDOUT))
    assert (signals.check("answers"), signals.notes["answers"]) == ("", "asleep, not asked")
    grow(real, {"power/runtime_status": "active"})
    assert "ETIMEDOUT" in signals.check("answers")
    assert "answers" not in signals.notes


def test_a_serial_line_in_use_is_not_opened(tmp_path: Path) -> None:
    """Somebody has it: told, and left alone; a line that is gone is a fault; an exclusive one is in use."""
    tty(tmp_path, device(tmp_path))
    signals = UsbSignals(_only(tmp_path), root=tmp_path, status=_alive, modem_lines=_refuse(errno.EIO))
    assert signals.check("tty").startswith("open /dev/ttyUSB0: EIO")
    process(tmp_path, 7, "minicom", "/dev/ttyUSB0")
    assert signals.check("tty") == ""
    assert signals.notes["tty"] == "not opened: pid 7 (minicom) has /dev/ttyUSB0 open"
    (tmp_path / "proc/7/fd/3").unlink()
    busy = UsbSignals(_only(tmp_path), root=tmp_path, status=_alive, modem_lines=lambda _path: None)
    assert (busy.check("tty"), busy.notes["tty"]) == ("", "in use (EBUSY)")


def test_the_calls_on_a_file_that_is_no_device(tmp_path: Path) -> None:
    """Each call is made and refused by the kernel as unknown to a plain file, and leaves nothing open."""
    path = tmp_path / "plain"
    path.touch()
    before = sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are compared
    calls: tuple[Callable[[], object], ...] = (
        lambda: usb_calls.status(path, 1.0),
        lambda: usb_calls.reset(path),
        lambda: usb_calls.modem_lines(path),
    )
    for one in calls:
        with pytest.raises(OSError, match="Inappropriate ioctl"):
            one()
    assert sorted(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - names are compared


def test_the_calls_numbers_are_the_headers() -> None:
    """USBDEVFS_CONTROL carries the size of its structure, which is 24 bytes where pointers have 8."""
    if ctypes.sizeof(ctypes.c_void_p) != 8:
        pytest.skip("the number is another on 32 bits")
    assert usb_calls.USBDEVFS_CONTROL == 0xC0185500


def test_a_real_serial_line_tells_its_wires() -> None:
    """A pseudo-terminal answers EINVAL or its wires: the call reaches a tty driver."""
    leader, follower = os.openpty()
    try:
        try:
            assert usb_calls.modem_lines(Path(os.ttyname(follower))) is not None
        except OSError as error:
            assert error.errno in (errno.EINVAL, errno.ENOTTY)  # noqa: PT017 - both outcomes are fine
    finally:
        os.close(leader)
        os.close(follower)


# ---- resets -------------------------------------------------------------------------------------------------------


def test_a_port_is_reset_when_the_device_is_free(tmp_path: Path) -> None:
    """The raw node as it is now gets the call; ENODEV means that the device came back under another number."""
    real = device(tmp_path)
    one = _only(tmp_path)
    asked: list[Path] = []
    PortReset(one, root=tmp_path, reset=asked.append).run(call())
    grow(real, {"devnum": "9"})
    PortReset(one, root=tmp_path, reset=asked.append).run(call())
    assert asked == [tmp_path / "dev/bus/usb/001/005", tmp_path / "dev/bus/usb/001/009"]
    PortReset(one, root=tmp_path, reset=_refuse(errno.ENODEV)).run(call())
    with pytest.raises(ResetError, match="USBDEVFS_RESET /dev/bus/usb/001/009: EIO"):
        PortReset(one, root=tmp_path, reset=_refuse(errno.EIO)).run(call())


def test_leave_is_taken_and_given_back(tmp_path: Path) -> None:
    """The device is authorized again at the end."""
    real = device(tmp_path, files={"authorized": b"1"})
    AuthorizedReset(_only(tmp_path), root=tmp_path).run(call())
    assert (real / "authorized").read_bytes() == b"1"


def test_leave_is_given_back_also_after_a_failure(tmp_path: Path) -> None:
    """A write that fails is told with its file, and the device is not left shut out by a second one left undone."""
    real = device(tmp_path)
    (real / "authorized").unlink()
    (real / "authorized").mkdir()
    with pytest.raises(ResetError, match=r"write /sys/devices/.*/1-4/authorized: EISDIR"):
        AuthorizedReset(_only(tmp_path), root=tmp_path).run(call())


@pytest.mark.parametrize("reset", [PortReset, AuthorizedReset])
def test_users_are_in_the_way(tmp_path: Path, reset: Callable[..., PortReset]) -> None:
    """Whoever has the raw node or a node of any driver open, and a hub's other devices with theirs."""
    device(tmp_path, serial=None, files={"bDeviceClass": "09"})
    tty(tmp_path, device(tmp_path, "1-4.2", number=6))
    hub = reset(_only(tmp_path, **{"class": "09"}), root=tmp_path)
    assert hub.blast_radius() == ("1-4", "1-4.2")
    process(tmp_path, 7, "minicom", "/dev/ttyUSB0")
    with pytest.raises(ResetError, match=r"refused, 1-4, 1-4\.2 would be reset: pid 7 \(minicom\)"):
        hub.run(call())
    (tmp_path / "proc/7/fd/3").unlink()
    process(tmp_path, 8, "libusb", "/dev/bus/usb/001/006")
    with pytest.raises(ResetError, match=r"pid 8 \(libusb\) has /dev/bus/usb/001/006 open"):
        reset(_only(tmp_path), root=tmp_path).run(call())


@pytest.mark.parametrize("change", [{"idProduct": "6015"}, {"bConfigurationValue": ""}, {"serial": "X"}])
def test_a_device_that_does_not_come_back_failed(tmp_path: Path, change: dict[str, str]) -> None:
    """Another device, or one that is not set up, is not what was reset."""
    real = device(tmp_path)

    def reset(_path: Path) -> None:
        grow(real, change)

    with pytest.raises(ResetError, match="1-4 is not back as 0403:6001 after the reset"):
        PortReset(_only(tmp_path), root=tmp_path, reset=reset).run(call())


def test_an_unplugged_device_is_not_reset(tmp_path: Path) -> None:
    """There is nothing to reset, and the refusal says so."""
    device(tmp_path)
    one = _only(tmp_path)
    unplug(tmp_path, "1-4")
    with pytest.raises(ResetError, match="nothing is plugged in at 1-4"):
        PortReset(one, root=tmp_path).run(call())


def test_what_a_worker_needs_is_listed(tmp_path: Path) -> None:
    """The device's and its hub's directories are read; its bus's raw nodes and the ttys are opened."""
    tty(tmp_path, device(tmp_path))
    one = _only(tmp_path)
    assert "/sys/devices/pci0000:00/0000:00:14.0/usb1" in allowed(one).read
    assert allowed(one).ioctl == ("/dev/bus/usb/001", "/dev/ttyUSB0")
    assert allowed_resets(one).write == ("/sys/bus/usb/devices/1-4",)
