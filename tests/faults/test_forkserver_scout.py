"""Scouts through a real fork server: lists, what changes them, and how soon."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from devd.ipc.messages import Listing, ProbeNow, Reset
from tests.support.forkbench import WAIT_S, ForkBench, Worker

SOON_S = 5.0
"""A node that appears or vanishes is listed within this: within a second on a machine that is not busy (benchmarks/
measure it), and by an event on any, since the next scan is ten minutes away."""
PER_S = 4
"""Most scans a second of a directory that never rests."""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[ForkBench]:
    with ForkBench(tmp_path / "run") as one:
        yield one


def _scout(bench: ForkBench, match: Mapping[str, object], driver: str = "node", period_s: float = 600.0) -> Worker:
    name = "scout:example.com/thing"
    spec = bench.spec(name, role="scout", driver=driver, match=match, period_s=period_s, probe={}, target=None)
    worker = bench.fork(spec)
    bench.until_verdict(name)
    bench.until(lambda: bool(worker.listings))
    return worker


def _names(listing: Listing) -> list[str]:
    return [Path(one.nodes[0].path).name for one in listing.devices]


def _until_listed(bench: ForkBench, worker: Worker, names: list[str]) -> float:
    """Wait until the last list has these names; return how long that took."""
    began_s = time.monotonic()
    bench.until(lambda: _names(worker.listings[-1]) == names)
    return time.monotonic() - began_s


def test_first_list_comes_with_a_passing_report(bench: ForkBench) -> None:
    """A scout says hello, lists real nodes with their numbers, and reports its scan like a probe."""
    worker = _scout(bench, {"path": ["/dev/null", "/dev/zero"]})
    listing = worker.listings[0]
    assert (listing.resource, listing.incarnation, listing.seq) == ("example.com/thing", 1, 1)
    assert [(one.id, one.nodes[0].major, one.nodes[0].minor) for one in listing.devices] == [
        ("null", 1, 3),
        ("zero", 1, 5),
    ]
    health = bench.health["scout:example.com/thing"]
    assert health[0].activity == "discover /dev/null"
    assert (health[-1].verdict, health[-1].probe_kind) == ("pass", "discover")
    assert worker.hellos[0].device == "scout:example.com/thing"
    assert Path(f"/proc/{worker.pid}/comm").read_text() == "devd-s-thing\n"


def test_what_appears_and_vanishes_is_listed_soon(bench: ForkBench, tmp_path: Path) -> None:
    """With a period of ten minutes, a file that appears, is renamed or vanishes changes the list soon."""
    match = {"path": str(tmp_path / "port*"), "type": "any"}
    worker = _scout(bench, match)
    assert _names(worker.listings[0]) == []
    (tmp_path / "port1").touch()
    assert _until_listed(bench, worker, ["port1"]) < SOON_S
    (tmp_path / "port1").rename(tmp_path / "port2")
    assert _until_listed(bench, worker, ["port2"]) < SOON_S
    (tmp_path / "port2").unlink()
    assert _until_listed(bench, worker, []) < SOON_S
    assert [one.seq for one in worker.listings] == list(range(1, len(worker.listings) + 1))


def test_directories_that_come_later_are_followed(bench: ForkBench, tmp_path: Path) -> None:
    """A glob whose directories do not exist yet, vanish and come again is followed all the way down."""
    worker = _scout(bench, {"path": str(tmp_path / "bus/*/port*"), "type": "any"})
    for _ in range(2):
        (tmp_path / "bus/001").mkdir(parents=True)
        (tmp_path / "bus/001/port7").touch()
        assert _until_listed(bench, worker, ["port7"]) < SOON_S
        (tmp_path / "bus/001/port7").unlink()
        (tmp_path / "bus/001").rmdir()
        (tmp_path / "bus").rmdir()
        assert _until_listed(bench, worker, []) < SOON_S


def test_same_list_is_not_sent_again(bench: ForkBench, tmp_path: Path) -> None:
    """A scan that finds the same sends no list, but its report goes out."""
    (tmp_path / "port1").touch()
    worker = _scout(bench, {"path": str(tmp_path / "port*"), "type": "any"})
    bench.send(worker, ProbeNow())
    bench.until_verdict("scout:example.com/thing", 2)
    (tmp_path / "unrelated").touch()
    bench.until_verdict("scout:example.com/thing", 3)
    assert len(worker.listings) == 1


def test_list_says_what_was_left_alone(bench: ForkBench, tmp_path: Path) -> None:
    """A list that was made without looking at something says so: whoever reads it late must not take it for gone."""
    for name in ("port1", "port2"):
        (tmp_path / name).touch()
    worker = _scout(bench, {"path": str(tmp_path / "port*"), "type": "any"})
    spared = (str(tmp_path / "port1"),)
    bench.send(worker, ProbeNow(spared))
    bench.until(lambda: len(worker.listings) == 2)
    bench.send(worker, ProbeNow(()))
    bench.until(lambda: len(worker.listings) == 3)
    assert [(len(one.devices), one.left_alone) for one in worker.listings] == [(2, ()), (1, spared), (2, ())]


def test_busy_directory_is_not_scanned_without_pause(bench: ForkBench, tmp_path: Path) -> None:
    """A directory where names come and go without end costs at most a few scans a second."""
    _scout(bench, {"path": str(tmp_path / "port*"), "type": "any"})
    began_s = time.monotonic()
    name = "scout:example.com/thing"
    # Longer than a second where the scout does not get its turn, or this process does not.
    while time.monotonic() < began_s + 1.0 or (len(bench.verdicts(name)) < 2 and time.monotonic() < began_s + WAIT_S):
        (tmp_path / "noise").touch()
        (tmp_path / "noise").unlink()
        bench.pump(0.001)
    took_s = time.monotonic() - began_s
    assert 2 <= len(bench.verdicts(name)) <= 3 + PER_S * took_s


def test_simulated_devices_are_listed_with_their_scripts(bench: ForkBench) -> None:
    """The driver sim lists what its selector names, script and path included, and tells of a path that is missing."""
    script = [{"do": "fail", "for": 1.5}]
    devices = [
        {"name": "a", "script": script},
        {"name": "b", "path": "/dev/null"},
        {"name": "c", "path": "/dev/nowhere"},
    ]
    listing = _scout(bench, {"devices": devices}, driver="sim").listings[0]
    assert [one.id for one in listing.devices] == ["a", "b", "c"]
    assert [len(one.nodes) for one in listing.devices] == [0, 1, 0]
    assert listing.devices[0].params == {"script": script}
    assert listing.problems == ("c: stat /dev/nowhere: ENOENT (No such file or directory): the node is gone",)


def test_scout_refuses_a_reset(bench: ForkBench) -> None:
    """A scout that is told to reset says that it has no device, and goes on."""
    worker = _scout(bench, {"count": 2, "prefix": "x"}, driver="sim")
    assert [one.id for one in worker.listings[0].devices] == ["x0", "x1"]
    bench.send(worker, Reset(5, 1.0))
    bench.until(lambda: bool(worker.resets))
    assert (worker.resets[0].reset_id, worker.resets[0].ok) == (5, False)
    assert worker.exit is None


@pytest.mark.parametrize(
    ("driver", "match", "words"),
    [
        ("node", {}, "match: either path or groups, each with a path, is needed"),
        ("node", {"path": "relative"}, "an absolute path is needed"),
        ("warp", {"path": "/dev/null"}, "driver: 'warp' is unknown, allowed are node, sim, infiniband"),
        ("sim", {"count": 1, "devices": []}, "exactly one of count, devices is needed"),
    ],
)
def test_selector_that_makes_no_sense_exits_78(
    bench: ForkBench, driver: str, match: dict[str, object], words: str
) -> None:
    """A scout whose selector cannot be carried out ends with EX_CONFIG and says what is wrong."""
    worker = bench.fork(bench.spec("scout:x", role="scout", driver=driver, match=match, probe={}, target=None))
    bench.until(lambda: worker.exit is not None)
    assert worker.exit is not None
    assert worker.exit.code == 78
    assert words in worker.words()
