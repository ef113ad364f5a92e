"""What hangs below a device, and the stable names of nodes: in fixtures and in this machine's real sysfs."""

from pathlib import Path

import pytest

from devd.workers.hw import devlinks, subtree
from tests.unit.workers.drivers.tree import GARBAGE, grow, link

TOP = "sys/devices/top"


def _leaf(root: Path, place: str, **files: str) -> None:
    grow(root, {f"{TOP}/{place}/{name}": content for name, content in files.items()})


def test_leaves_are_found_at_any_depth_once(tmp_path: Path) -> None:
    """Nodes are named as the kernel names them; links are not followed, so that nothing is found twice."""
    _leaf(tmp_path, "b/dri/card0", dev="226:0", uevent="MAJOR=226\nDEVNAME=dri/card0")
    _leaf(tmp_path, "a/cciss!c0d0", dev="104:0")
    link(tmp_path, f"{TOP}/a/cciss!c0d0/subsystem", "sys/class/block")
    grow(tmp_path, {"sys/class/block": None})
    link(tmp_path, f"{TOP}/loop", f"{TOP}/b")
    found = subtree.leaves(tmp_path / TOP)
    assert [(one.name, one.node.kind, one.node.major) for one in found] == [
        ("cciss/c0d0", "block", 104),
        ("dri/card0", "char", 226),
    ]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_is_no_leaf(tmp_path: Path, garbage: bytes) -> None:
    """A number that is none is no node; a name that is none is the directory's."""
    grow(tmp_path, {f"{TOP}/x/dev": garbage, f"{TOP}/y/dev": "1:2", f"{TOP}/y/uevent": garbage})
    assert [one.name for one in subtree.leaves(tmp_path / TOP)] == ["y"]


def test_a_name_does_not_lead_out_of_dev(tmp_path: Path) -> None:
    """A driver that calls its node ../etc/passwd is not believed."""
    _leaf(tmp_path, "x", dev="1:2", uevent="DEVNAME=../etc/passwd")
    assert [one.node.path for one in subtree.leaves(tmp_path / TOP)] == ["/dev/x"]


def test_what_is_gone_has_nothing_below(tmp_path: Path) -> None:
    """A directory that vanished has no leaves, no interfaces and no users."""
    grow(tmp_path, {"proc/self": None})
    assert subtree.leaves(tmp_path / "gone") == []
    assert subtree.users(tmp_path, [tmp_path / "gone"]).found == ()


def test_more_than_can_be_looked_through_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A walk has an end, and what was not seen is not taken for nothing."""
    monkeypatch.setattr(subtree, "MAX_DIRECTORIES", 3)
    grow(tmp_path, {f"{TOP}/{number}/x": "" for number in range(5)})
    with pytest.raises(subtree.TooMuchError, match="more than 3 directories"):
        subtree.leaves(tmp_path / TOP)


def test_stable_names_are_found_by_what_they_lead_to(tmp_path: Path) -> None:
    """Relative and absolute links count, files and links elsewhere do not; the first in order is taken."""
    grow(
        tmp_path,
        {
            "dev/serial/by-id/b": "-> ../../ttyUSB0",
            "dev/serial/by-id/a": "-> /dev/ttyUSB0",
            "dev/serial/by-id/0": "ttyUSB0",
            "dev/serial/by-path/p": "-> ../../ttyUSB1",
            "dev/input/by-id/k": "-> ../event3",
        },
    )
    assert devlinks.stable(tmp_path, "ttyUSB0", "by-id") == "/dev/serial/by-id/a"
    assert devlinks.stable(tmp_path, "ttyUSB0", "by-path") == ""
    assert devlinks.stable(tmp_path, "ttyUSB1", "by-path") == "/dev/serial/by-path/p"
    assert devlinks.stable(tmp_path, "input/event3", "by-id") == "/dev/input/by-id/k"
    assert devlinks.stable(tmp_path, "hidraw0", "by-id") == ""


def test_real_sysfs_has_nodes_that_dev_has_too() -> None:
    """Leaves of this machine's virtual devices are those of /dev."""
    found = {one.name: one.node for one in subtree.leaves(Path("/sys/devices/virtual/mem"))}
    if "null" not in found:
        pytest.skip("this machine's sysfs does not show /dev/null")
    assert (found["null"].kind, found["null"].major, found["null"].minor) == ("char", 1, 3)
