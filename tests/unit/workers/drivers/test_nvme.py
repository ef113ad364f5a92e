"""The nvme driver against trees of fixtures: who is found under which id, what each signal says, what resets refuse."""

import os
import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from devd.ipc.messages import Device
from devd.workers.drivers.nvme import (
    SIGNALS,
    ControllerReset,
    NvmeDriver,
    NvmeSignals,
    SubsystemReset,
    allowed,
)
from devd.workers.errors import ResetError, SpecError
from devd.workers.hw import nvme_smart
from devd.workers.probes.base import Call
from tests.unit.workers.drivers.nvme_tree import BOOT, ONE, disk
from tests.unit.workers.drivers.tree import GARBAGE, grow, link


def _found(root: Path, **match: object) -> list[Device]:
    return list(NvmeDriver(match, root=root).discover().devices)


def _only(root: Path, **match: object) -> Device:
    (device,) = _found(root, **match)
    return device


def _page(*, warnings: int = 0, used: int = 3, media: int = 0) -> bytes:
    page = bytearray(512)
    page[0:6] = struct.pack("<BHBBB", warnings, 310, 7, 10, used)
    page[160:176] = media.to_bytes(16, "little")
    return bytes(page)


def _answer(page: bytes) -> Callable[[Path, float], bytes]:
    return lambda _path, _timeout_s: page


def _refuse(number: int) -> Callable[[Path, float], bytes]:
    def refuse(path: Path, _timeout_s: float) -> bytes:
        raise OSError(number, os.strerror(number), str(path))

    return refuse


def _call(allowed_s: float = 5.0) -> Call:
    return Call(lambda _activity: None, time.monotonic(), allowed_s)


# ---- discovery --------------------------------------------------------------------------------------------------


def test_a_disk_is_found_with_what_it_says_of_itself(tmp_path: Path) -> None:
    """Id, node, NUMA node and properties come from sysfs alone."""
    disk(tmp_path)
    device = _only(tmp_path)
    assert device.id == ONE
    assert [(node.path, node.kind, node.major, node.minor) for node in device.nodes] == [
        ("/dev/nvme0n1", "block", 259, 0)
    ]
    assert device.numa_node == 1
    assert device.properties["model"] == "Model A"
    assert device.properties["sysfs"] == "/sys/devices/pci0000:00/0000:01:00.0/nvme/nvme0/nvme0n1"


def test_no_nvme_at_all_is_an_empty_list(tmp_path: Path) -> None:
    """A machine without the class directory has no devices, and no problem."""
    found = NvmeDriver({}, root=tmp_path).discover()
    assert (found.devices, found.problems) == ((), ())


def test_a_replug_and_a_renumbering_keep_the_id(tmp_path: Path) -> None:
    """The same disk behind another number and another slot is the same device."""
    disk(tmp_path / "before")
    disk(tmp_path / "after", "nvme7", address="0000:09:00.0")
    before, after = _only(tmp_path / "before"), _only(tmp_path / "after")
    assert before.id == after.id
    assert before.nodes[0].path != after.nodes[0].path


def test_a_disk_that_is_plugged_in_appears(tmp_path: Path) -> None:
    """A second scan sees what came and not what went."""
    disk(tmp_path)
    driver = NvmeDriver({}, root=tmp_path)
    assert len(driver.discover().devices) == 1
    disk(tmp_path, "nvme1", address="0000:02:00.0", serial="S2", wwid="eui.02")
    assert [one.id for one in driver.discover().devices] == [ONE, "eui.02"]
    (tmp_path / "sys/class/nvme/nvme0").unlink()
    assert [one.id for one in driver.discover().devices] == ["eui.02"]


def test_twins_are_told_apart_by_slot_for_both(tmp_path: Path) -> None:
    """Two disks with one wwid both carry their address; numbering does not matter."""
    disk(tmp_path, "nvme0", address="0000:01:00.0")
    disk(tmp_path, "nvme1", address="0000:02:00.0")
    found = NvmeDriver({"address": "0000:02:00.0"}, root=tmp_path).discover()
    assert [one.id for one in found.devices] == [f"{ONE}-0000:02:00.0-n1"]
    assert found.problems == (f"2 devices say they are {ONE}: told apart by their ports",)


def test_a_twin_that_comes_or_goes_changes_no_id(tmp_path: Path) -> None:
    """The disk that was there keeps its name, the twin keeps its slot in its own when it is alone."""
    disk(tmp_path, "nvme0", address="0000:01:00.0")
    driver = NvmeDriver({}, root=tmp_path)
    assert [one.id for one in driver.discover().devices] == [ONE]
    disk(tmp_path, "nvme1", address="0000:02:00.0")
    twin = f"{ONE}-0000:02:00.0-n1"
    assert [one.id for one in driver.discover().devices] == [ONE, twin]
    (tmp_path / "sys/class/nvme/nvme0").unlink()
    assert [one.id for one in driver.discover().devices] == [twin]


@pytest.mark.parametrize("wwid", ["", "eui.0000000000000000", "uuid.00000000-0000-0000-0000-000000000000"])
def test_a_disk_without_a_name_is_known_by_its_serial(tmp_path: Path, wwid: str) -> None:
    """A wwid of zeros is none; without a serial as well the slot is left."""
    disk(tmp_path / "a", wwid=wwid)
    assert _only(tmp_path / "a").id == "S1-n1"
    disk(tmp_path / "b", wwid=wwid, serial="")
    assert _only(tmp_path / "b").id == "0000:01:00.0-n1"


def test_ids_are_short_and_clean(tmp_path: Path) -> None:
    """The kernel's made-up wwid of a disk without one is far too long for an id."""
    disk(tmp_path, wwid="nvme.144d-" + "53" * 20 + "-" + "41 " * 20 + "-00000001")
    assert len(_only(tmp_path).id) <= 56
    assert "::" not in _only(tmp_path).id
    assert " " not in _only(tmp_path).id


def test_controllers_can_be_offered(tmp_path: Path) -> None:
    """``offer: controller`` gives the admin node, known by serial and controller id."""
    disk(tmp_path)
    device = _only(tmp_path, offer="controller")
    assert (device.id, device.nodes[0].path, device.nodes[0].kind) == ("S1-c1", "/dev/nvme0", "char")


def _joined(root: Path) -> None:
    """Grow one disk that two controllers of a subsystem lead to."""
    for number in (0, 1):
        real = f"sys/devices/pci0000:00/0000:0{number}:00.0/nvme/nvme{number}"
        grow(
            root,
            {
                f"{real}/state": "live",
                f"{real}/serial": "S",
                f"{real}/cntlid": str(number + 1),
                f"{real}/nvme0c{number}n1/wwid": ONE,
            },
        )
        link(root, f"sys/class/nvme/nvme{number}", real)
        link(root, f"sys/class/nvme-subsystem/nvme-subsys0/nvme{number}", real)
    head = "sys/class/nvme-subsystem/nvme-subsys0/nvme0n1"
    grow(root, {f"{head}/dev": "259:0", f"{head}/wwid": ONE, **BOOT})


def test_a_disk_with_two_paths_is_one_device(tmp_path: Path) -> None:
    """With native multipath the head is listed once and knows both controllers; one live path is enough."""
    _joined(tmp_path)
    device = _only(tmp_path)
    assert (device.id, device.nodes[0].path) == (ONE, "/dev/nvme0n1")
    signals = NvmeSignals(device, root=tmp_path)
    assert [way.name for way in NvmeSignals.controllers_of(device)] == ["nvme0", "nvme1"]
    grow(tmp_path, {"sys/class/nvme/nvme0/state": "dead"})
    assert signals.check("state") == ""
    assert signals.notes["paths"] == 'nvme0 is "dead"'
    grow(tmp_path, {"sys/class/nvme/nvme1/state": "resetting"})
    assert signals.check("state") == 'nvme0 is "dead", nvme1 is "resetting"; live is needed'
    assert SubsystemReset(device, root=tmp_path).blast_radius() == ("nvme0", "nvme1", "nvme0n1")


def test_a_selection_takes_and_leaves(tmp_path: Path) -> None:
    """Globs on properties choose; an unknown key is refused."""
    disk(tmp_path)
    assert _found(tmp_path, model="Model*", exclude={"serial": "S1"}) == []
    assert len(_found(tmp_path, model="Model*", transport="pcie")) == 1
    with pytest.raises(SpecError, match="modell"):
        NvmeDriver({"modell": "x"})


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_in_every_attribute_breaks_nothing(tmp_path: Path, garbage: bytes) -> None:
    """Whatever the files hold, a scan ends, ids are clean, and every check gives an answer."""
    real = disk(tmp_path)
    device = _only(tmp_path)
    for path in [*real.iterdir(), *(real / "nvme0n1").iterdir()]:
        if path.is_file() and path.name != "dev":
            path.write_bytes(garbage)
    for one in _found(tmp_path):
        assert len(one.id) <= 56
        assert one.id.isascii()
    signals = NvmeSignals(device, root=tmp_path, read_page=_answer(garbage))
    assert signals.check("state") != ""
    for name in signals.offered:
        assert signals.check(name).isprintable()
    (real / "nvme0n1" / "dev").write_bytes(garbage)
    found = NvmeDriver({}, root=tmp_path).discover()
    assert found.devices == ()
    assert found.problems == ("nvme0n1 has no device number: skipped",)


# ---- signals ----------------------------------------------------------------------------------------------------


def test_a_healthy_disk_offers_its_signals_and_passes_them(tmp_path: Path) -> None:
    """All signals but the alarm it lacks are offered and well."""
    disk(tmp_path)
    device = _only(tmp_path, offer="controller")
    signals = NvmeSignals(device, root=tmp_path, read_page=_answer(_page()))
    assert set(signals.offered) == {one.name for one in SIGNALS} - {"hot"}
    assert [signals.check(name) for name in signals.offered] == [""] * len(signals.offered)
    assert signals.notes == {}


@pytest.mark.parametrize(
    ("bit", "name", "reason"),
    [
        (0x01, "spare", "available spare 7% is below the threshold of 10%"),
        (0x02, "temperature", "temperature warning, 37 degrees Celsius"),
        (0x04, "reliability", "reliability is degraded"),
        (0x08, "read-only", "all media are read-only"),
        (0x10, "backup", "the volatile memory backup has failed"),
        (0x20, "pmr", "the persistent memory region is unreliable or read-only"),
    ],
)
def test_each_critical_warning_is_a_signal(tmp_path: Path, bit: int, name: str, reason: str) -> None:
    """One bit makes one signal bad and leaves the others alone."""
    disk(tmp_path)
    signals = NvmeSignals(_only(tmp_path), root=tmp_path, read_page=_answer(_page(warnings=bit)))
    found = {one: signals.check(one) for one in signals.offered if one != "node"}
    assert found.pop(name) == reason
    assert set(found.values()) == {""}


def test_media_errors_count_from_the_baseline_over_reboots(tmp_path: Path) -> None:
    """Old errors are no fault; new ones are, also when they came with a reboot between."""
    disk(tmp_path)
    device = _only(tmp_path)
    first = NvmeSignals(device, root=tmp_path, read_page=_answer(_page(media=7)))
    assert first.check("media-errors") == ""
    grow(tmp_path, {"proc/sys/kernel/random/boot_id": "boot-2"})
    second = NvmeSignals(device, root=tmp_path, baseline=first.baseline, read_page=_answer(_page(media=2**100)))
    assert second.check("media-errors") == f"media errors grew by {2**100 - 7} (7 -> {2**100})"


def test_each_path_has_its_own_count_of_media_errors(tmp_path: Path) -> None:
    """Two controllers count apart: one that stands at 5 and one at 0 are both well, whichever is asked."""
    _joined(tmp_path)
    device = _only(tmp_path)
    counts = {"nvme0": 5, "nvme1": 0}

    def asked(live: str, stored: Mapping[str, object]) -> NvmeSignals:
        for name in counts:
            grow(tmp_path, {f"sys/class/nvme/{name}/state": "live" if name == live else "resetting"})
        return NvmeSignals(
            device, root=tmp_path, baseline=stored, read_page=lambda path, _timeout_s: _page(media=counts[path.name])
        )

    stored: Mapping[str, object] = {}
    for live in ("nvme0", "nvme1", "nvme0"):
        signals = asked(live, stored)
        assert signals.check("media-errors") == ""
        stored = signals.baseline
    counts["nvme0"] = 7
    signals = asked("nvme0", stored)
    reason = "media errors of controller 1 grew by 2 (5 -> 7)"
    assert signals.check("media-errors") == reason
    again = asked("nvme1", signals.baseline)
    assert again.check("media-errors") == reason, "what one path has told stands while the other one is asked"


def test_wear_is_told_at_its_end(tmp_path: Path) -> None:
    """99 percent is well, 100 is not."""
    disk(tmp_path)
    assert NvmeSignals(_only(tmp_path), root=tmp_path, read_page=_answer(_page(used=99))).check("wear") == ""
    assert NvmeSignals(_only(tmp_path), root=tmp_path, read_page=_answer(_page(used=130))).check("wear")


@pytest.mark.parametrize("state", ["new", "resetting", "connecting", "deleting", "deleting (no IO)", "dead"])
def test_a_controller_that_is_not_live_is_bad_and_not_asked(tmp_path: Path, state: str) -> None:
    """The state is told, and no command is sent, which would block."""
    real = disk(tmp_path)
    device = _only(tmp_path)
    (real / "state").write_text(state + "\n")

    def never(_path: Path, _timeout_s: float) -> bytes:
        raise AssertionError("a command was sent")

    signals = NvmeSignals(device, root=tmp_path, read_page=never)
    assert signals.check("state") == f'nvme0 is "{state}"; live is needed'
    assert signals.check("spare") == "SMART is not asked: no controller is live"
    assert "spare" not in signals.offered


def test_a_pulled_disk_is_gone(tmp_path: Path) -> None:
    """With the directory away the state says so instead of failing."""
    disk(tmp_path)
    signals = NvmeSignals(_only(tmp_path), root=tmp_path)
    (tmp_path / "sys/devices/pci0000:00").rename(tmp_path / "away")
    assert signals.check("state") == "nvme0 is gone; live is needed"
    assert signals.check("identity") == ""


def test_another_disk_in_the_same_place_is_noticed(tmp_path: Path) -> None:
    """A serial or wwid that changed is another device."""
    real = disk(tmp_path)
    signals = NvmeSignals(_only(tmp_path), root=tmp_path)
    (real / "nvme0n1/wwid").write_text("eui.99\n")
    assert signals.check("identity") == f'the namespace says it is "eui.99" now, was "{ONE}"'
    (real / "serial").write_text("S9\n")
    assert signals.check("identity") == 'nvme0 says it is "S9" now, was "S1"'


def test_a_wrong_or_missing_node_is_noticed(tmp_path: Path) -> None:
    """The node must be there and be the device sysfs names."""
    disk(tmp_path)
    signals = NvmeSignals(_only(tmp_path), root=tmp_path)
    assert "is a file that is no device node" in signals.check("node")
    (tmp_path / "dev/nvme0n1").unlink()
    assert signals.check("node").startswith("stat /dev/nvme0n1: ENOENT")


@pytest.mark.parametrize("number", [1, 13, 22, 25, 95])
def test_smart_that_is_refused_is_not_offered(tmp_path: Path, number: int) -> None:
    """Without the capability or the command there is no signal, and a note says why."""
    disk(tmp_path)
    signals = NvmeSignals(_only(tmp_path), root=tmp_path, read_page=_refuse(number))
    assert signals.offered == ("state", "identity", "node")
    assert signals.check("spare") == ""
    assert signals.notes["smart"].startswith("not offered: health log page /dev/nvme0: ")


def test_smart_that_fails_in_the_hardware_is_raised(tmp_path: Path) -> None:
    """An I/O error is the device's own word."""
    disk(tmp_path)
    signals = NvmeSignals(_only(tmp_path), root=tmp_path, read_page=_refuse(5))
    with pytest.raises(OSError, match="Input/output error"):
        signals.check("spare")


def test_the_ioctl_of_a_device_that_is_no_nvme_is_not_offered(tmp_path: Path) -> None:
    """The real ioctl on a real character device that has none: ENOTTY, no signal."""
    disk(tmp_path)
    assert NvmeSignals(_only(tmp_path), root=tmp_path).offered == ("state", "identity", "node")


@pytest.mark.parametrize("place", ["hwmon3", "hwmon/hwmon3"])
def test_the_kernels_temperature_alarm(tmp_path: Path, place: str) -> None:
    """The alarm is found where newer and older kernels have it."""
    real = disk(tmp_path)
    grow(real, {f"{place}/temp1_alarm": "0", f"{place}/temp1_input": "84850"})
    signals = NvmeSignals(_only(tmp_path), root=tmp_path)
    assert "hot" in signals.offered
    assert signals.check("hot") == ""
    grow(real, {f"{place}/temp1_alarm": "1"})
    assert signals.check("hot") == "temperature alarm, 85 degrees Celsius"


def test_an_unknown_signal_is_refused(tmp_path: Path) -> None:
    """A misspelt signal would be well for ever."""
    disk(tmp_path)
    with pytest.raises(SpecError, match="sparee"):
        NvmeSignals(_only(tmp_path), root=tmp_path).check("sparee")


def test_the_command_is_the_one_of_the_specification() -> None:
    """72 bytes: Get Log Page 02h, all namespaces, 128 dwords less one, the time-out in its place."""
    raw = bytes(nvme_smart.command(0x1122334455667788, 1500))
    assert len(raw) == 72
    assert len(raw) == nvme_smart.ADMIN_COMMAND >> 16 & 0x3FFF
    opcode, nsid, address, length = struct.unpack_from("<B3xI16xQ4xI", raw)
    assert (opcode, nsid, address, length) == (2, 0xFFFFFFFF, 0x1122334455667788, 512)
    assert struct.unpack_from("<I", raw, 40) == (0x007F0002,)
    assert struct.unpack_from("<I", raw, 64) == (1500,)


# ---- resets -----------------------------------------------------------------------------------------------------


def test_a_free_controller_is_reset(tmp_path: Path) -> None:
    """The attribute is written, and the reset ends when the controller is live."""
    real = disk(tmp_path)
    ControllerReset(_only(tmp_path), root=tmp_path).run(_call())
    assert (real / "reset_controller").read_text() == "1"


def test_a_reset_takes_every_disk_of_the_controller_into_account(tmp_path: Path) -> None:
    """A second disk on the same controller that is mounted is in the way, and named."""
    real = disk(tmp_path)
    grow(real, {"nvme0n2/dev": "259:9", "nvme0n2/wwid": "eui.22"})
    link(tmp_path, "sys/class/block/nvme0n2", str((real / "nvme0n2").relative_to(tmp_path)))
    grow(tmp_path, {"proc/1/mountinfo": "30 1 259:9 / /data rw - ext4 /dev/nvme0n2 rw"})
    reset = ControllerReset(_only(tmp_path, wwid=ONE), root=tmp_path)
    assert reset.blast_radius() == ("nvme0", "nvme0n1", "nvme0n2")
    with pytest.raises(ResetError, match=r"^refused, nvme0 and nvme0n1 and nvme0n2 .* nvme0n2 is mounted on /data$"):
        reset.run(_call())
    assert (real / "reset_controller").read_text() == "\n"


def test_a_process_with_the_disk_or_a_partition_open_is_in_the_way(tmp_path: Path) -> None:
    """Also the admin node counts."""
    real = disk(tmp_path)
    grow(real, {"nvme0n1/nvme0n1p1/partition": "1", "nvme0n1/nvme0n1p1/dev": "259:5"})
    reset = ControllerReset(_only(tmp_path), root=tmp_path)
    for number, path in enumerate(("/dev/nvme0", "/dev/nvme0n1", "/dev/nvme0n1p1")):
        grow(tmp_path, {f"proc/{number + 100}/comm": "fio", f"proc/{number + 100}/fd/3": f"-> {path}"})
    with pytest.raises(ResetError) as caught:
        reset.run(_call())
    assert str(caught.value).count("(fio)") == 3


def test_a_controller_that_dies_of_its_reset_is_told(tmp_path: Path) -> None:
    """A controller that is not live again in time, or dead, fails the reset."""
    real = disk(tmp_path)
    reset = ControllerReset(_only(tmp_path), root=tmp_path)
    (real / "state").write_text("resetting\n")
    with pytest.raises(ResetError, match='nvme0 is "resetting" after the reset'):
        reset.run(_call(0.2))
    (real / "state").write_text("dead\n")
    with pytest.raises(ResetError, match='nvme0 is "dead" after the reset'):
        reset.run(_call(60.0))


def test_a_reset_that_the_kernel_refuses_is_told(tmp_path: Path) -> None:
    """Without the attribute the reason names it; a subsystem reset of no NVMe device is refused by the ioctl."""
    real = disk(tmp_path)
    device = _only(tmp_path)
    (real / "reset_controller").unlink()
    with pytest.raises(ResetError, match=r"write .*/reset_controller: ENOENT"):
        ControllerReset(device, root=tmp_path).run(_call())
    with pytest.raises(ResetError, match=r"subsystem reset .*/dev/nvme0: ENOTTY"):
        SubsystemReset(device, root=tmp_path).run(_call())


def test_the_sandbox_is_told_what_a_probe_needs(tmp_path: Path) -> None:
    """The admin node, the sysfs directories and the capability."""
    disk(tmp_path)
    needs = allowed(_only(tmp_path))
    assert needs.ioctl == ("/dev/nvme0",)
    assert "/sys/devices/pci0000:00/0000:01:00.0/nvme/nvme0" in needs.read
    assert needs.capabilities == ("CAP_SYS_ADMIN",)


def test_this_machines_own_devices_are_listed() -> None:
    """Whatever is in the real /sys, a scan ends with clean ids, and twice the same."""
    first, second = NvmeDriver({}).discover(), NvmeDriver({}).discover()
    assert [one.id for one in first.devices] == [one.id for one in second.devices]
    for device in first.devices:
        assert len(device.id) <= 56
        assert device.nodes
