"""Who uses a device: mounts, holders, swap and open files, in fixtures and in this machine's real /proc."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from devd.workers.hw import holders
from tests.unit.workers.drivers.tree import grow

DISK = "sys/class/block/nvme0n1"


def _disk(root: Path) -> Path:
    return grow(root, {f"{DISK}/dev": "259:0", f"{DISK}/nvme0n1p1/dev": "259:1", f"{DISK}/nvme0n1p1/partition": "1"})


def test_a_free_disk_has_no_users(tmp_path: Path) -> None:
    """No holder, mount or swap: nobody is in the way, also where /proc has no such files."""
    assert holders.of_block(_disk(tmp_path), "nvme0n1").words() == ""


def test_holders_mounts_and_swap_of_partitions_count(tmp_path: Path) -> None:
    """What uses a partition uses the disk; each user is named."""
    grow(
        _disk(tmp_path),
        {
            f"{DISK}/holders/dm-0": None,
            f"{DISK}/nvme0n1p1/holders/md127": None,
            "proc/1/mountinfo": "30 1 259:1 / /data rw - ext4 /dev/nvme0n1p1 rw\n31 1 8:1 / / rw - ext4 /dev/sda1 rw",
            "proc/self/mountinfo": "garbage\n\n30 1 259:1",
            "proc/swaps": "Filename Type Size Used Priority\n/dev/nvme0n1p1 partition 1 0 -2",
        },
    )
    assert holders.of_block(tmp_path, "nvme0n1").found == (
        "nvme0n1 is held by dm-0",
        "nvme0n1p1 is held by md127",
        "nvme0n1p1 is mounted on /data",
        "nvme0n1p1 is swap space",
    )


def test_open_nodes_are_found_by_name(tmp_path: Path) -> None:
    """A process is named with its command; others are left out."""
    grow(
        tmp_path,
        {
            "proc/7/comm": "fio",
            "proc/7/fd/3": "-> /dev/nvme0n1",
            "proc/8/comm": "sh",
            "proc/8/fd/0": "-> /dev/null",
            "proc/9": None,
            "proc/driver/fd/0": "-> /dev/nvme0n1",
        },
    )
    users = holders.of_nodes(tmp_path, ["/dev/nvme0n1", "/dev/nvme0"])
    assert users.words() == "pid 7 (fio) has /dev/nvme0n1 open"


def test_a_container_that_sees_only_itself_says_so(tmp_path: Path) -> None:
    """In a pid namespace of its own devd cannot say that nobody has the device open."""
    grow(tmp_path, {"proc/self/ns/pid": "-> pid:[4026532000]"})
    assert "pid namespace" in holders.of_nodes(tmp_path, ["/dev/nvme0"]).words()


def test_many_users_are_counted(tmp_path: Path) -> None:
    """A reason names some users and counts the rest."""
    grow(tmp_path, {f"proc/{pid}/fd/0": "-> /dev/nvme0" for pid in range(100, 120)})
    assert holders.of_nodes(tmp_path, ["/dev/nvme0"]).words().endswith(" and 12 more")


def test_a_real_process_is_seen_with_its_open_file(tmp_path: Path) -> None:
    """In this machine's /proc a child that holds a file is named with its pid."""
    if str(Path("/proc/self/ns/pid").readlink()) != "pid:[4026531836]":
        pytest.skip("this process is in a pid namespace of its own")
    path = tmp_path / "held"
    path.touch()
    code = f"file = open({str(path)!r}); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        child.stdout.readline()
        try:
            assert f"pid {child.pid} (" in holders.of_nodes(Path("/"), [str(path)]).words()
        finally:
            child.stdin.close()
            child.wait()


@pytest.mark.root
def test_a_real_mounted_disk_refuses_an_exclusive_open() -> None:
    """What is mounted anywhere on this machine is claimed, and the claim is seen without looking at mounts."""
    if os.geteuid() != 0:
        pytest.skip("needs root to open a disk")
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        numbers, source = line.split(" ")[2], line.partition(" - ")[2].split(" ")[1]
        path = Path(source)
        if source.startswith("/dev/") and path.is_block_device():
            assert f"{os.major(path.stat().st_rdev)}:{os.minor(path.stat().st_rdev)}" == numbers
            try:
                users = holders.of_exclusive(path)
            except PermissionError:
                pytest.skip(f"this container may not open {path}")
            assert "EBUSY" in users.words()
            return
    pytest.skip("nothing here is mounted from a disk that /dev shows")


def test_a_free_file_lets_itself_be_opened(tmp_path: Path) -> None:
    """Without a claim there are no users, and the error of a missing device is raised."""
    (tmp_path / "free").touch()
    assert holders.of_exclusive(tmp_path / "free").found == ()
    with pytest.raises(FileNotFoundError):
        holders.of_exclusive(tmp_path / "nothing")
