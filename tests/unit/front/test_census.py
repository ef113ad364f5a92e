"""The front's look at who has devices open: real processes, and a /proc of files for what may not be seen."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from devd.daemon import census

HOLD = "import os, sys; os.open(sys.argv[1], os.O_RDONLY | os.O_NONBLOCK); print('open', flush=True); sys.stdin.read()"


def process(proc: Path, pid: int, program: str, *targets: str) -> Path:
    """Make a process of files, with these open."""
    folder = proc / str(pid)
    (folder / "fd").mkdir(parents=True)
    (folder / "comm").write_text(f"{program}\n")
    for number, target in enumerate(targets):
        (folder / "fd" / str(number)).symlink_to(target)
    return folder


@pytest.mark.parametrize("node", ["/dev/fuse", "/dev/net/tun", "/dev/kvm"])
def test_process_that_has_a_node_open_is_named(node: str) -> None:
    """Its pid, program and the node, and once it has ended nobody."""
    if not os.access(node, os.R_OK):
        pytest.skip(f"{node} may not be opened here")
    holder = subprocess.Popen([sys.executable, "-c", HOLD, node], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == b"open\n"
        seen = [one for one in census.look().open_files if one.pid == holder.pid]
        if not seen and "give devd the host's pid namespace" in census.look().unseen:
            pytest.skip("a pid namespace of its own hides the others")
        [one] = seen
        assert one.path == node
        assert one.program.startswith("python")
    finally:
        holder.communicate()
    assert not [one for one in census.look().open_files if one.pid == holder.pid]


def test_ordinary_nodes_count_for_nothing(tmp_path: Path) -> None:
    """Terminals and /dev/null are everybody's; a device, and a PCI function's memory, are told once a process."""
    region = "/sys/devices/pci0000:00/0000:00:04.0/resource0"
    process(tmp_path, 7, "fio", "/dev/null", "/dev/pts/3", "/dev/nvme0n1", "/dev/nvme0n1", region, "/etc/passwd")
    found = census.look(tmp_path).open_files
    assert [(one.pid, one.program, one.path) for one in found] == [(7, "fio", "/dev/nvme0n1"), (7, "fio", region)]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every directory")
def test_process_that_may_not_be_looked_at_is_named(tmp_path: Path) -> None:
    """What devd could not see is no "nobody": it is said, with the first few by name."""
    shut = [process(tmp_path, pid, f"p{pid}", "/dev/nvme0n1") / "fd" for pid in range(11, 17)]
    for folder in shut:
        folder.chmod(0)
    try:
        unseen = census.look(tmp_path).unseen
    finally:
        for folder in shut:
            folder.chmod(0o700)
    assert unseen.startswith("what pid 11 (p11), 12 (p12), 13 (p13), 14 (p14) and 2 more has open may not be looked at")
