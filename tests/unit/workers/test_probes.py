"""The probes that touch nodes and sysfs, each on real files of this machine."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from devd.ipc.messages import Device, Node, WorkerSpec
from devd.workers.errors import ProbeError, SpecError
from devd.workers.probes.base import Call, Probe, identity
from devd.workers.probes.exists import ExistsProbe
from devd.workers.probes.open import OpenProbe
from devd.workers.probes.read import ReadProbe
from devd.workers.probes.sysfs import SysfsProbe
from tests.support.unprivileged import unprivileged

ROOT = Path(__file__).parents[3]


def _spec(probe: dict[str, object], *nodes: Node, **properties: str) -> WorkerSpec:
    target = Device("thing", nodes, properties)
    return WorkerSpec("worker", "thing", "r", "node", 1, "", "", 5.0, 2.0, probe, target=target)


def _node(path: Path | str) -> Node:
    return Node(str(path), *identity(Path(path).stat()))


def _run(probe: Probe, allowed_s: float = 2.0) -> str:
    said: list[str] = []
    return probe.run(Call(said.append, time.monotonic(), allowed_s))


def test_exists_passes_on_the_same_node_only(tmp_path: Path) -> None:
    """The probe passes on the node discovery saw and says what stands there instead of it."""
    link = tmp_path / "node"
    link.symlink_to("/dev/null")
    probe = ExistsProbe(_spec({}, _node(link), _node("/dev/zero")))
    assert _run(probe) == ""
    link.unlink()
    link.symlink_to("/dev/zero")
    with pytest.raises(ProbeError, match=f"{link} is char device 1:5 now, was char device 1:3"):
        _run(probe)
    link.unlink()
    link.touch()
    with pytest.raises(ProbeError, match=f"{link} is a file that is no device node"):
        _run(probe)
    link.unlink()
    with pytest.raises(ProbeError, match=f"lstat {link}: ENOENT .*: the node is gone"):
        _run(probe)
    link.symlink_to(tmp_path / "nothing")
    with pytest.raises(ProbeError, match=f"^stat {link}: ENOENT"):
        _run(probe)


def test_open_tells_its_error_and_what_to_do(tmp_path: Path) -> None:
    """A node that cannot be opened fails with call, path, errno and advice; a swapped one is noticed."""
    path = tmp_path / "socket-like"
    os.mkfifo(path)
    probe = OpenProbe(_spec({"mode": "w"}, _node(path)))
    with pytest.raises(ProbeError, match=f"open {path}: ENXIO .*: no driver or no hardware stands behind the node"):
        _run(probe)
    assert _run(OpenProbe(_spec({"mode": "r"}, _node(path)))) == ""
    node = _node("/dev/null")
    with pytest.raises(ProbeError, match="/dev/zero is char device 1:5 now, was char device 1:3"):
        _run(OpenProbe(_spec({}, Node("/dev/zero", node.kind, node.major, node.minor))))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open every file")
def test_open_refused_names_the_user(tmp_path: Path) -> None:
    """EACCES comes with the worker's uid and a remedy."""
    path = tmp_path / "shut"
    path.touch(mode=0)
    with pytest.raises(ProbeError, match=f"EACCES .*: the worker runs as uid {os.geteuid()}; run devd as root"):
        _run(OpenProbe(_spec({}, _node(path))))


def test_open_leaves_nothing_open() -> None:
    """Passing and failing probes alike leave the process with the descriptors it had."""
    good, bad = OpenProbe(_spec({}, _node("/dev/null"))), OpenProbe(_spec({}, Node("/dev/zero", "char", 9, 9)))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        _run(good)
        with pytest.raises(ProbeError):
            _run(bad)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_device_without_a_node_says_so() -> None:
    """A device without nodes fails a node's probe with a reason instead of passing unseen."""
    with pytest.raises(ProbeError, match="thing has no node to look at"):
        _run(OpenProbe(_spec({})))


def test_read_takes_what_it_asked_for(tmp_path: Path) -> None:
    """The probe reads its bytes, at its offset, from every node, and fails at an early end of file."""
    path = tmp_path / "data"
    path.write_bytes(b"12345")
    assert _run(ReadProbe(_spec({"bytes": 4096}, _node("/dev/zero")))) == ""
    assert _run(ReadProbe(_spec({"bytes": 2, "offset": 3}, _node(path)))) == ""
    with pytest.raises(ProbeError, match=f"read {path}: end of file after 1 of 2 bytes"):
        _run(ReadProbe(_spec({"bytes": 2, "offset": 4}, _node(path))))
    with pytest.raises(ProbeError, match="read /dev/null: end of file after 0 of 1 bytes"):
        _run(ReadProbe(_spec({}, _node("/dev/zero"), _node("/dev/null"))))


def test_read_waits_for_data_until_its_timeout(tmp_path: Path) -> None:
    """A node with nothing to say fails at the timeout; one that speaks up in between passes."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR | os.O_NONBLOCK)  # both ways, so that it opens without a reader
    try:
        probe = ReadProbe(_spec({"bytes": 4}, _node(path)))
        began_s = time.monotonic()
        with pytest.raises(ProbeError, match=f"read {path}: nothing more to read within the timeout, after 0 of 4"):
            _run(probe, 0.1)
        assert time.monotonic() - began_s >= 0.1
        threading.Timer(0.05, os.write, (writer, b"1234")).start()
        assert _run(probe, 10.0) == ""
    finally:
        os.close(writer)


@pytest.mark.parametrize(
    ("probe", "reason"),
    [
        ({"attribute": "dev", "equals": "1:3"}, ""),
        ({"attribute": "/sys/dev/{name}/{major}:{minor}/dev", "matches": "^1:[0-9]$"}, ""),
        ({"attribute": "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size", "range": [0, 1e12]}, ""),
        ({"attribute": "dev", "equals": "1:4"}, '/sys/dev/char/1:3/dev is "1:3", must be "1:4"'),
        ({"attribute": "dev", "matches": "^2"}, "/sys/dev/char/1:3/dev is \"1:3\", must match '^2'"),
        ({"attribute": "dev", "range": [1, 2]}, "must be a number between 1 and 2"),
        ({"attribute": "gone", "equals": "x"}, "read /sys/dev/char/1:3/gone: ENOENT"),
    ],
)
def test_sysfs_compares_the_attribute(probe: dict[str, object], reason: str) -> None:
    """An attribute passes by text, pattern or range; otherwise the reason has path, value and what is wanted."""
    if not Path("/sys/dev/char/1:3/dev").exists():
        pytest.skip("sysfs is not mounted here")
    if str(probe["attribute"]).startswith("/sys/kernel") and not Path(str(probe["attribute"])).exists():
        pytest.skip("this kernel has no such attribute")
    made = SysfsProbe(_spec(probe, _node("/dev/null"), sysfs="/sys/devices/virtual/mem/char"))
    if not reason:
        assert _run(made) == ""
        return
    with pytest.raises(ProbeError) as caught:
        _run(made)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("probe", "words"),
    [
        ({"equals": "x"}, "probe.attribute: nothing found, text is needed"),
        ({"attribute": "dev"}, "exactly one of equals, matches, range"),
        ({"attribute": "dev", "equals": "x", "matches": "y"}, "exactly one of equals, matches, range"),
        ({"attribute": "dev", "matches": "("}, "is no regular expression"),
        ({"attribute": "dev", "range": [2, 1]}, r"\[min, max\] is needed"),
        ({"attribute": "/etc/passwd", "equals": "x"}, "only attributes below /sys are allowed"),
        ({"attribute": "{path}/x", "equals": "x"}, r"\{path\} is unknown, allowed are \{name\}, \{major\}, \{minor\}"),
    ],
)
def test_sysfs_parameters_that_make_no_sense_are_refused(probe: dict[str, object], words: str) -> None:
    """A wrong parameter is a SpecError that names it, not a verdict about the device."""
    with pytest.raises(SpecError, match=words):
        _run(SysfsProbe(_spec(probe, _node("/dev/null"))))


def test_open_counts_a_busy_node_as_alive() -> None:
    """EBUSY (here a terminal taken with TIOCEXCL) means that somebody works with the device: the probe passes."""
    code = """
import fcntl, os, termios
from tests.unit.workers import test_probes as t
_master, slave = os.openpty()
fcntl.ioctl(slave, termios.TIOCEXCL)
print(t._run(t.OpenProbe(t._spec({"mode": "rw"}, t._node(os.ttyname(slave))))))
"""
    done = subprocess.run(
        [*unprivileged(), sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.stdout, done.stderr) == ("in use (EBUSY)\n", "")
