"""Where a scout's word may lead a worker, whatever it says: tried with what each driver makes of a lie."""

from pathlib import Path

import pytest

from devd.ipc.messages import Device, Node
from devd.workers.drivers import kind_of
from devd.workers.errors import OutOfReachError
from devd.workers.hw.allowance import Allowance, needs_of
from devd.workers.sandbox import reach
from devd.workers.sandbox.needs import PathNeed, SandboxNeeds
from devd.workers.sandbox.requests import Request

ANY = (Request(0xAE00),)

SYSFS = {"sysfs": "/sys/devices/virtual/mem/null", "minor": "0"}
LIES = [
    ("nvme", {"sysfs": "/etc"}, {"controllers": [{"name": "nvme0", "sysfs": "/sys/x", "serial": ""}]}),
    ("nvme", SYSFS, {"controllers": [{"name": "../etc/shadow", "sysfs": "/sys/x", "serial": ""}]}),
    ("nvme", SYSFS, {"controllers": [{"name": "nvme0", "sysfs": "/etc/x", "serial": ""}]}),
    ("usb", {"sysfs": "/etc/x"}, {"name": "1-1", "ttys": []}),
    ("usb", SYSFS, {"name": "1-1", "ttys": ["/etc/shadow"]}),
    ("vfio", SYSFS, {"functions": [{"address": "0000:00:00.0", "ids": "1:2"}], "group": "../../etc/shadow"}),
    ("pci", SYSFS, {"functions": [{"address": "../../../../etc", "ids": "1:2"}]}),
    ("infiniband", {"sysfs": "/root", "address": ""}, {}),
    ("nvidia", {**SYSFS, "minor": "/../../etc/shadow"}, {"address": "0000:00:00.0"}),
]


@pytest.mark.parametrize(("driver", "properties", "params"), LIES)
def test_no_driver_takes_its_worker_elsewhere(
    driver: str, properties: dict[str, str], params: dict[str, object]
) -> None:
    """Whatever path a driver makes of a lie, it is refused by name before it becomes a rule."""
    device = Device("x", properties=properties, params=params)
    kind = kind_of(driver)
    with pytest.raises(OutOfReachError, match="no device lies there, it is not opened"):
        reach.check(needs_of(kind.allowed(device), device, kind.places), {})


@pytest.mark.parametrize(
    ("allowed", "refused"),
    [
        (Allowance(read=("/sys/class",), write=("/sys/bus/pci/rescan",), ioctl=("/dev/null",), requests=ANY), ""),
        (Allowance(write=("/dev/null",)), "/dev/null"),
        (Allowance(ioctl=("/sys/class",), requests=ANY), "/sys/class"),
        (Allowance(read=("/proc/1/environ",)), "/proc/1/environ"),
        (Allowance(read=("/proc/sys/kernel/random/boot_id",)), ""),
        (Allowance(read=("/sys/../etc/hostname",)), "/etc/hostname"),
    ],
)
def test_each_right_has_its_places(allowed: Allowance, refused: str) -> None:
    """Attributes are written below /sys, ioctls are made below /dev, and what is read is neither a process nor /etc."""
    device = Device("x")
    if not refused:
        reach.check(needs_of(allowed, device), {})
        return
    with pytest.raises(OutOfReachError, match=refused):
        reach.check(needs_of(allowed, device), {})


def test_links_are_followed(tmp_path: Path) -> None:
    """A link of sysfs leads to sysfs and is fine; one that leads out of a driver's place is told with its end."""
    assert Path("/sys/class/mem/null").is_symlink()
    device = Device("x")
    reach.check(needs_of(Allowance(write=("/sys/class/mem/null",)), device), {})
    (tmp_path / "link").symlink_to("/etc")
    needs = needs_of(Allowance(read=(f"{tmp_path}/link",)), device, (str(tmp_path),))
    with pytest.raises(OutOfReachError, match=f"{tmp_path}/link, which leads to /etc"):
        reach.check(needs, {})


def test_operator_goes_beyond(tmp_path: Path) -> None:
    """What the operator opened is open, to write only where he said so; what no scout chose is not looked at."""
    device = Device("x")
    reading = needs_of(Allowance(read=(f"{tmp_path}/a",)), device)
    writing = needs_of(Allowance(write=(f"{tmp_path}/a",)), device)
    reach.check(reading, {"read": str(tmp_path)})
    reach.check(writing, {"write": [str(tmp_path)]})
    with pytest.raises(OutOfReachError):
        reach.check(writing, {"read": str(tmp_path)})
    reach.check(needs_of(Allowance(read=("/etc",))), {})


@pytest.mark.parametrize(
    ("target", "fits"), [("/dev/null", True), ("/etc/shadow", False), ("/proc/1/mem", False), ("{own}", True)]
)
def test_node_that_is_a_link(target: str, *, fits: bool, tmp_path: Path) -> None:
    """The operator's own folder may hold files and links to nodes; one that leads to the system's files opens none."""
    (tmp_path / "file").touch()
    path = tmp_path / "node"
    path.symlink_to(target.format(own=tmp_path / "file"))
    needs = SandboxNeeds((PathNeed(str(path), "r", Node(str(path), "other", 1, 1)),))
    if fits:
        reach.check(needs, {})
        return
    with pytest.raises(OutOfReachError, match=f"which leads to {target}"):
        reach.check(needs, {})


def test_node_below_dev_stays_there(tmp_path: Path) -> None:
    """What is named below /dev lies below /dev: /dev/fd leads to a process's files."""
    del tmp_path
    needs = SandboxNeeds((PathNeed("/dev/core", "r", Node("/dev/core", "other", 1, 1)),))
    if not Path("/dev/core").is_symlink():
        needs = SandboxNeeds((PathNeed("/dev/fd", "r", Node("/dev/fd", "other", 1, 1)),))
    with pytest.raises(OutOfReachError, match="which leads to /proc/"):
        reach.check(needs, {})
