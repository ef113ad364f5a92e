"""The node driver on real files: what counts as a device, what is skipped, and what the operator hears of it."""

import os
import stat
from pathlib import Path

import pytest

from devd.ipc.patterns import matches
from devd.workers.drivers.base import MAX_ID_CHARS, device_id
from devd.workers.drivers.globs import Expansion
from devd.workers.drivers.node import NodeDriver


def _any(*paths: object, **more: object) -> NodeDriver:
    return NodeDriver({"path": [str(path) for path in paths], "type": "any", **more})


def _paths(driver: NodeDriver) -> list[str]:
    return [one.nodes[0].path for one in driver.discover().devices]


def test_nodes_are_found_with_kind_numbers_and_sysfs() -> None:
    """A real node is listed with what stat and sysfs say of it, and without a NUMA node it does not have."""
    (device,) = NodeDriver({"path": "/dev/nul?"}).discover().devices
    assert (device.id, device.numa_node) == ("null", None)
    assert (device.nodes[0].path, device.nodes[0].kind) == ("/dev/null", "char")
    assert (device.nodes[0].major, device.nodes[0].minor) == (1, 3)
    if Path("/sys/dev/char/1:3").exists():
        assert device.properties["subsystem"] == "mem"
        assert device.properties["sysfs"].endswith("/mem/null")


def test_order_is_that_of_patterns_then_of_names(tmp_path: Path) -> None:
    """Patterns keep their order, names are sorted within one, and a path matched twice is listed once."""
    for name in ("b2", "b10", "a1"):
        (tmp_path / name).touch()
    found = _any(tmp_path / "b*", tmp_path / "*").discover()
    assert [Path(one.nodes[0].path).name for one in found.devices] == ["b10", "b2", "a1"]
    assert found.problems == ()


def test_two_paths_to_one_node_are_one_device(tmp_path: Path) -> None:
    """A link and its target are one device, under the first pattern's path, and the problem names both."""
    link = tmp_path / "by-id"
    link.symlink_to("/dev/null")
    found = NodeDriver({"path": [str(link), "/dev/null"]}).discover()
    assert [one.nodes[0].path for one in found.devices] == [str(link)]
    assert (found.devices[0].nodes[0].major, found.devices[0].nodes[0].minor) == (1, 3)
    assert found.problems == (f"/dev/null is the same device as {link}: offered once, as {link}",)


def test_excluded_paths_are_left_out(tmp_path: Path) -> None:
    """Exclude patterns take paths out, whole components at a time."""
    for name in ("port1", "port2", "port10"):
        (tmp_path / name).touch()
    assert _paths(_any(tmp_path / "port*", exclude=str(tmp_path / "port?"))) == [str(tmp_path / "port10")]
    assert len(_paths(_any(tmp_path / "port*", exclude=[str(tmp_path)]))) == 3


def test_only_nodes_count_unless_any_is_asked_for(tmp_path: Path) -> None:
    """A regular file is skipped with a remark, a directory without one, a dangling link in silence."""
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    found = NodeDriver({"path": str(tmp_path / "*")}).discover()
    assert [one.nodes[0].path for one in found.devices] == [str(tmp_path / "null")]
    assert found.problems == (
        f"{tmp_path}/file is a regular file, no device node: skipped ('type: any' would take it)",
        f"{tmp_path}/pipe is a pipe, no device node: skipped ('type: any' would take it)",
    )
    assert _paths(_any(tmp_path / "*")) == [str(tmp_path / name) for name in ("file", "null", "pipe")]


def test_other_files_are_identified_by_inode(tmp_path: Path) -> None:
    """With ``type: any`` a plain file is kind other, told apart by device and inode."""
    (tmp_path / "file").touch()
    (device,) = _any(tmp_path / "file").discover().devices
    status = (tmp_path / "file").stat()
    assert (device.nodes[0].kind, device.nodes[0].minor) == ("other", status.st_ino)
    assert (device.properties, device.numa_node) == ({}, None)


def test_folder_that_does_not_answer_hides_no_other(tmp_path: Path) -> None:
    """A folder on the way that cannot even be looked at is told with its errno; what lies elsewhere is listed.

    A name that no file system takes stands for a mount whose server is gone.
    """
    (tmp_path / "good").touch()
    dead = tmp_path / ("x" * (os.pathconf(tmp_path, "PC_NAME_MAX") + 1))
    driver = _any(tmp_path / "good", dead / "dev/port")
    found = driver.discover()
    assert [one.nodes[0].path for one in found.devices] == [str(tmp_path / "good")]
    assert found.problems == (f"lstat {dead}: ENAMETOOLONG (File name too long)",)
    assert str(tmp_path) in {need.path for need in driver.needs.paths}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every directory")
def test_refused_directory_is_a_problem(tmp_path: Path) -> None:
    """A directory that may not be read is told with its errno; the rest is listed."""
    (tmp_path / "open").mkdir()
    (tmp_path / "open/port").touch()
    (tmp_path / "shut").mkdir(mode=stat.S_IWUSR)
    found = _any(tmp_path / "*/port*").discover()
    assert len(found.devices) == 1
    assert found.problems[0].startswith(f"read directory {tmp_path}/shut: EACCES (Permission denied)")


def test_directories_that_decide_are_told(tmp_path: Path) -> None:
    """Every directory whose entries decide is reported, down to the deepest that exists."""
    (tmp_path / "a/b").mkdir(parents=True)
    found = _any(tmp_path / "a/b/port*", tmp_path / "missing/deep/port*", tmp_path / "*/b/fixed").discover()
    assert set(found.directories) == {tmp_path / "a/b", tmp_path}


def test_double_star_matches_any_depth(tmp_path: Path) -> None:
    """``**`` finds files at every depth and does not follow links in circles."""
    (tmp_path / "x/y").mkdir(parents=True)
    for name in ("port0", "x/port1", "x/y/port2", "x/.port3"):
        (tmp_path / name).touch()
    (tmp_path / "x/y/loop").symlink_to(tmp_path)
    expansion = Expansion()
    expansion.add(str(tmp_path / "**/port*"))
    assert [Path(one).name for one in expansion.paths] == ["port0", "port1", "port2"]


@pytest.mark.parametrize(
    ("path", "pattern", "expected"),
    [
        ("/dev/tty1", "/dev/tty?", True),
        ("/dev/tty10", "/dev/tty?", False),
        ("/dev/a/b", "/dev/*", False),
        ("/dev/a/b", "/dev/**", True),
        ("/dev/a/b/c", "/dev/**/c", True),
        ("/dev/c", "/dev/**/c", True),
        ("/dev/sda", "/dev/sd[ab]", True),
        ("/dev/SDA", "/dev/sda", False),
    ],
)
def test_pattern_matches_whole_components(path: str, pattern: str, *, expected: bool) -> None:
    """A pattern fits a path as a whole: a star never reaches over a slash, two of them do."""
    assert matches(path, pattern) is expected


def test_clean_names_are_ids() -> None:
    """A path below /dev with nothing odd in it is the id itself."""
    assert device_id("/dev/fuse") == "fuse"
    assert device_id("/dev/ttyUSB0") == "ttyUSB0"


def test_other_names_become_slug_and_hash() -> None:
    """Any other path becomes a readable, bounded id of clean characters, different for different paths."""
    paths = ["/dev/net/tun", "/dev/net-tun", "/srv/a b", "/dev/a::1", f"/dev/{'x' * 57}", "/dev/é", "/dev/net/tun/"]
    ids = [device_id(path) for path in paths]
    assert ids[0] == "net-tun-" + ids[0][-8:]
    assert ids[1] == "net-tun"
    assert len(set(ids)) == len(paths)
    assert all(len(one) <= MAX_ID_CHARS and "::" not in one and one.isascii() for one in ids)
    assert ids == [device_id(path) for path in paths]
