"""The inotify wrapper against the real kernel."""

import os
import select
from pathlib import Path

import pytest

from devd.ipc import inotify as ino


def events_within(watcher: ino.Inotify, timeout_s: float = 2.0) -> list[ino.InotifyEvent]:
    """Wait until the descriptor is readable, then read once."""
    assert select.select([watcher.fd], [], [], timeout_s)[0], "no inotify event came"
    return watcher.read()


def test_create_and_delete_are_told_with_the_name(tmp_path: Path) -> None:
    """A file that is made and one that is removed arrive as two events carrying the watch and the file's name."""
    with ino.Inotify() as watcher:
        wd = watcher.add(tmp_path, ino.IN_CREATE | ino.IN_DELETE)
        (tmp_path / "näme.sock").touch()
        (tmp_path / "näme.sock").unlink()
        seen = [(one.wd, one.mask, one.name) for one in events_within(watcher)]
    assert seen == [(wd, ino.IN_CREATE, "näme.sock"), (wd, ino.IN_DELETE, "näme.sock")]


def test_rename_halves_share_a_cookie(tmp_path: Path) -> None:
    """A rename into place, how a file is replaced atomically, arrives as two events that can be joined."""
    (tmp_path / "a").touch()
    with ino.Inotify() as watcher:
        watcher.add(tmp_path, ino.IN_MOVED_FROM | ino.IN_MOVED_TO)
        (tmp_path / "a").rename(tmp_path / "b")
        gone, came = events_within(watcher)
    assert (gone.name, came.name) == ("a", "b")
    assert gone.cookie == came.cookie != 0


def test_removed_directory_ends_its_watch(tmp_path: Path) -> None:
    """The end of a watched directory is told (DELETE_SELF, then IGNORED), and ending the dead watch is no error."""
    place = tmp_path / "dir"
    place.mkdir()
    with ino.Inotify() as watcher:
        wd = watcher.add(place, ino.IN_CREATE | ino.IN_DELETE_SELF | ino.IN_ONLYDIR)
        place.rmdir()
        assert [one.mask for one in events_within(watcher)] == [ino.IN_DELETE_SELF, ino.IN_IGNORED]
        watcher.remove(wd)
        place.mkdir()
        again = watcher.add(place, ino.IN_CREATE)
        (place / "x").touch()
        assert [(one.wd, one.name) for one in events_within(watcher)] == [(again, "x")]


def test_read_never_blocks(tmp_path: Path) -> None:
    """With nothing to read the answer is an empty list, at once."""
    with ino.Inotify() as watcher:
        watcher.add(tmp_path, ino.IN_CREATE)
        assert watcher.read() == []


def test_removed_watch_is_silent(tmp_path: Path) -> None:
    """After remove only IGNORED comes, and no event of the directory."""
    with ino.Inotify() as watcher:
        wd = watcher.add(tmp_path, ino.IN_CREATE)
        watcher.remove(wd)
        (tmp_path / "x").touch()
        assert [one.mask for one in events_within(watcher)] == [ino.IN_IGNORED]


def test_missing_path_is_named_in_the_error(tmp_path: Path) -> None:
    """A path that is not there raises FileNotFoundError carrying that path."""
    with ino.Inotify() as watcher, pytest.raises(FileNotFoundError) as caught:
        watcher.add(tmp_path / "none", ino.IN_CREATE)
    assert caught.value.filename == str(tmp_path / "none")


def test_file_is_refused_where_a_directory_is_asked_for(tmp_path: Path) -> None:
    """IN_ONLYDIR makes a watch on a plain file an error."""
    (tmp_path / "file").touch()
    with ino.Inotify() as watcher, pytest.raises(NotADirectoryError):
        watcher.add(tmp_path / "file", ino.IN_CREATE | ino.IN_ONLYDIR)


def test_overflow_is_told_and_the_instance_lives_on(tmp_path: Path) -> None:
    """More events than the kernel queues end in IN_Q_OVERFLOW with wd -1; after draining, new events arrive."""
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 100_000:
        pytest.skip(f"max_queued_events is {limit}: filling it takes too long")
    with ino.Inotify() as watcher:
        wd = watcher.add(tmp_path, ino.IN_CREATE | ino.IN_DELETE)
        for _ in range(limit // 2 + 1):
            (tmp_path / "x").touch()
            (tmp_path / "x").unlink()
        batches = iter(watcher.read, [])
        last = [one for batch in batches for one in batch][-1]
        assert (last.wd, last.mask) == (-1, ino.IN_Q_OVERFLOW)
        (tmp_path / "after").touch()
        assert [(one.wd, one.name) for one in events_within(watcher)] == [(wd, "after")]


def test_close_gives_the_descriptor_back(tmp_path: Path) -> None:
    """Close ends the descriptor, may be called twice, and later use is a ValueError, not a call on another's fd."""
    watcher = ino.Inotify()
    fd = watcher.fd
    watcher.close()
    watcher.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    with pytest.raises(ValueError, match="closed"):
        watcher.add(tmp_path, ino.IN_CREATE)
    with pytest.raises(ValueError, match="closed"):
        watcher.read()
