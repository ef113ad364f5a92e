"""Worker journals: whole lines, bounded files, and no trouble for the writer whatever the disk does."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devd.daemon.journal import (
    FILES,
    KEPT_GONE_DEVICES,
    MAX_FILE_BYTES,
    MAX_LINE_BYTES,
    QUEUE_LINES,
    WorkerJournal,
    file_name,
)
from tests.support.hungfuse import HungFile

CLOSE_WITHIN_S = 20.0

LIMITED = """
import resource, sys
from pathlib import Path
from devd.daemon.journal import WorkerJournal
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
journal = WorkerJournal(Path(sys.argv[1]))
for number in range(20):
    journal.write("dev", "verdict", number=number, detail="x" * 60)
journal.close(20)
print(journal.lost, journal.status().error)
"""


class Hostile:
    """What no log should choke on."""

    def __repr__(self) -> str:
        """Fail."""
        raise RuntimeError("no text for you")


@contextmanager
def journal(directory: Path) -> Iterator[WorkerJournal]:
    """Return a journal; all its lines are written when the block ends."""
    made = WorkerJournal(directory)
    try:
        yield made
    finally:
        assert made.close(CLOSE_WITHIN_S)


def lines(path: Path) -> list[dict[str, Any]]:
    """Return a file's records."""
    return [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition."""
    deadline_s = time.monotonic() + CLOSE_WITHIN_S
    while not condition():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.005)


def test_each_device_has_its_file_of_json_lines(tmp_path: Path) -> None:
    """Every event is one line with time, device, event and its fields, in order, in a directory made on demand."""
    with journal(tmp_path / "log" / "devd") as made:
        made.write("a", "start", detail="worker 7")
        made.write("b", "crash", signal="SIGSEGV", stderr=["one", "two"], traceback="Traceback\n  x")
        made.write("a", "restart", delay_s=0.2)
        assert made.lost == 0
    first = lines(tmp_path / "log" / "devd" / "a.log")
    assert [(one["device"], one["event"]) for one in first] == [("a", "start"), ("a", "restart")]
    assert first[0]["detail"] == "worker 7"
    assert first[0]["ts"].endswith("Z")
    assert lines(tmp_path / "log" / "devd" / "b.log")[0]["stderr"] == ["one", "two"]


def test_files_are_rotated_and_bounded(tmp_path: Path) -> None:
    """Past 1 MiB a file is rotated, three are kept, no line is cut, and the newest line is in the newest file."""
    count = FILES * MAX_FILE_BYTES // 20_000 + 80
    with journal(tmp_path) as made:
        for number in range(count):
            made.write("dev", "verdict", number=number, detail="x" * 20_000)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["dev.log", "dev.log.1", "dev.log.2"]
    assert all(one.stat().st_size <= MAX_FILE_BYTES for one in tmp_path.iterdir())
    kept = [one["number"] for name in ("dev.log.2", "dev.log.1", "dev.log") for one in lines(tmp_path / name)]
    assert kept == list(range(kept[0], count))
    assert made.lost == 0


def test_any_value_can_be_written(tmp_path: Path) -> None:
    """Values that JSON does not know, names that clash and texts of odd bytes become a line like any other."""
    loop: list[object] = []
    loop.append(loop)
    with journal(tmp_path) as made:
        made.write("dev", "a", path=Path("/x"), raw=b"\xff", odd="\udcff\x85\u2028")
        made.write("dev", "b", self=1, device="other", event="other", ts=0)
        made.write("dev", "c", number=float("nan"), loop=loop, hostile=Hostile())
        assert made.lost == 0
    first, second, third = lines(tmp_path / "dev.log")
    assert (first["path"], first["odd"]) == ("PosixPath('/x')", "\udcff\x85\u2028")
    assert (second["device"], second["event"], second["self"]) == ("dev", "b", 1)
    assert (third["number"], third["hostile"]) == ("nan", "<Hostile: RuntimeError>")


def test_a_line_that_is_too_long_keeps_its_beginning(tmp_path: Path) -> None:
    """A line past the limit says that it was cut, and is still JSON."""
    with journal(tmp_path) as made:
        made.write("dev", "crash", detail="why", stderr='"' * MAX_LINE_BYTES)
    (only,) = lines(tmp_path / "dev.log")
    assert (only["cut"], only["event"]) == (True, "crash")
    assert '"detail":"why"' in only["beginning"]
    assert (tmp_path / "dev.log").stat().st_size <= MAX_LINE_BYTES


def test_an_unfinished_last_line_is_taken_away(tmp_path: Path) -> None:
    """Half a line left by a power loss does not spoil the next one."""
    (tmp_path / "dev.log").write_text('{"event":"whole"}\n{"event":"ha')
    with journal(tmp_path) as made:
        made.write("dev", "next")
    assert [one["event"] for one in lines(tmp_path / "dev.log")] == ["whole", "next"]


def test_a_removed_file_comes_back(tmp_path: Path) -> None:
    """An operator may remove or move a journal while the daemon runs."""
    with journal(tmp_path) as made:
        made.write("dev", "one")
        until((tmp_path / "dev.log").exists, "the first line is not written")
        (tmp_path / "dev.log").rename(tmp_path / "kept")
        made.write("dev", "two")
    assert [one["event"] for one in lines(tmp_path / "dev.log")] == ["two"]


def test_a_full_disk_costs_whole_lines_only(tmp_path: Path) -> None:
    """Where the disk takes a part of a line, the part is taken back and the line is counted as lost."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path], capture_output=True, text=True, check=True, timeout=60
    )
    kept = lines(tmp_path / "dev.log")
    lost, error = done.stdout.split(maxsplit=1)
    assert 0 < len(kept) == 20 - int(lost)
    assert [one["number"] for one in kept] == list(range(len(kept)))
    assert "ENOSPC" in error or "EFBIG" in error
    assert done.stderr.count("cannot be written") == 1


def test_a_directory_that_cannot_be_used_is_told_and_its_return_too(tmp_path: Path) -> None:
    """Losses are counted with their reason, and once the directory can be used lines are kept again."""
    directory = tmp_path / "log"
    directory.write_text("in the way")
    with journal(directory) as made:
        made.write("dev", "one")
        until(lambda: made.lost == 1, "the loss is not counted")
        until(lambda: "ENOTDIR" in made.status().error, "the reason is not told")
        directory.unlink()
        made.write("dev", "two")
        until(lambda: made.status().error == "", "the return is not told")
        assert made.lost == 1
    assert [one["event"] for one in lines(directory / "dev.log")] == ["two"]


def test_links_and_pipes_in_the_way_are_not_followed(tmp_path: Path) -> None:
    """A link's target stays untouched, a FIFO does not hold the thread."""
    target = tmp_path / "target"
    target.write_text("precious")
    (tmp_path / "link.log").symlink_to(target)
    os.mkfifo(tmp_path / "pipe.log")
    with journal(tmp_path) as made:
        made.write("link", "x")
        made.write("pipe", "x")
        made.write("dev", "x")
    assert made.lost == 2
    assert target.read_text() == "precious"
    assert len(lines(tmp_path / "dev.log")) == 1


def test_a_closed_journal_counts_what_it_gets(tmp_path: Path) -> None:
    """Late lines are lost, not errors, and closing twice is closing once."""
    with journal(tmp_path) as made:
        assert made.close(CLOSE_WITHIN_S)
        made.write("dev", "late")
        made.forget("dev")
        assert made.lost == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a filesystem")
def test_a_hung_disk_holds_up_neither_writing_nor_the_end(tmp_path: Path) -> None:
    """With the thread hung in the disk, lines beyond the queue are counted at once, and closing keeps its time."""
    hung = HungFile(tmp_path / "mount", "open")
    made = WorkerJournal(tmp_path / "mount" / "log")
    try:
        # A server that is stopped answers nothing at all, be it only the look for a name.
        hung._process.send_signal(signal.SIGSTOP)
        made.write("dev", "hangs")
        until(lambda: made.status().waiting == 0, "the thread did not take the first line")
        began_s = time.monotonic()
        for _ in range(QUEUE_LINES + 50):
            made.write("dev", "waits")
        assert made.lost == 50
        assert not made.close(0.2)
        assert time.monotonic() - began_s < CLOSE_WITHIN_S / 2
        assert made.lost == QUEUE_LINES + 51
    finally:
        hung._process.send_signal(signal.SIGCONT)
        hung.release()
        assert made.close(CLOSE_WITHIN_S)
        hung.close()


def test_files_of_devices_long_gone_are_removed(tmp_path: Path) -> None:
    """The last 256 gone devices keep their files; one that came back keeps its own; foreign files are not touched."""
    (tmp_path / "foreign.log").write_text("mine\n")
    with journal(tmp_path) as made:
        for number in range(KEPT_GONE_DEVICES + 2):
            made.write(f"dev{number}", "start")
            made.forget(f"dev{number}")
            until(lambda: made.status().waiting < QUEUE_LINES // 2, "the journal does not keep up")
            if number == 0:
                made.write("dev0", "back")
        assert made.lost == 0
    names = {one.name for one in tmp_path.iterdir()}
    assert "dev0.log" in names
    assert "dev1.log" not in names
    assert {"dev2.log", "foreign.log"} <= names
    assert len(names) == KEPT_GONE_DEVICES + 2


def test_journals_of_an_earlier_devd_count_among_the_gone(tmp_path: Path) -> None:
    """Files of devices that left while no devd ran go first; one that is there again keeps its own."""
    with journal(tmp_path) as made:
        for number in range(KEPT_GONE_DEVICES):
            made.write(f"old{number}", "start")
            until(lambda: made.status().waiting < QUEUE_LINES // 2, "the journal does not keep up")
    (tmp_path / "foreign.log").write_text("mine\n")
    for number, name in enumerate(("foreign.log", "old7.log", "old8.log", "old9.log")):
        os.utime(tmp_path / name, (number, number))
    again = WorkerJournal(tmp_path, unseen_after_s=0.0)
    again.write("old7", "start")
    again.write("new", "start")
    again.forget("new")
    assert again.close(CLOSE_WITHIN_S)
    names = {one.name for one in tmp_path.iterdir()}
    assert {"foreign.log", "old7.log", "old9.log", "new.log"} <= names
    assert "old8.log" in names
    another = WorkerJournal(tmp_path, unseen_after_s=0.0)
    another.write("old7", "start")
    another.write("newer", "start")
    another.forget("newer")
    assert another.close(CLOSE_WITHIN_S)
    left = {one.name for one in tmp_path.iterdir()}
    assert names - left == {"old8.log"}
    assert left - names == {"newer.log"}


def test_a_short_run_takes_no_journal_for_a_gone_devices(tmp_path: Path) -> None:
    """Soon after a start devices may not have been found yet: only those that leave in this run count."""
    with journal(tmp_path) as made:
        for number in range(KEPT_GONE_DEVICES + 5):
            made.write(f"old{number}", "start")
            until(lambda: made.status().waiting < QUEUE_LINES // 2, "the journal does not keep up")
    with journal(tmp_path) as again:
        again.write("new", "start")
        again.forget("new")
    assert len(list(tmp_path.iterdir())) == KEPT_GONE_DEVICES + 6


@given(st.lists(st.text(min_size=1, max_size=300), unique=True, min_size=2, max_size=5))
def test_every_device_has_a_plain_file_name_of_its_own(devices: list[str]) -> None:
    """Whatever the ids, names are different, short, and nothing but names."""
    names = [file_name(one) for one in devices]
    assert len(set(names)) == len(names)
    for name in names:
        assert len(name) <= 110
        assert name.endswith(".log")
        assert not name.startswith(".")
        assert set(name) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-~")


def test_ordinary_ids_are_their_own_names() -> None:
    """An operator finds a device's journal by its id; odd ids stay readable."""
    assert file_name("ttyUSB0") == "ttyUSB0.log"
    assert file_name("scout:devd.io/serial").startswith("scout_devd.io_serial~")
