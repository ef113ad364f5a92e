"""KubeletWatch: the kubelet's directory with everything that happens to it."""

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from devd.daemon.kubelet_watch import KubeletWatch
from tests.kubelet.endpoint_support import LOG, descriptors, eventually


def bind(path: Path) -> None:
    """Make a socket file."""
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


def is_new(watch: KubeletWatch, changes: int) -> bool:
    """Return whether a kubelet.sock came since."""
    return watch.changes > changes and watch.kubelet is not None


def watch_count(fd: int) -> int:
    """Return how many watches the kernel holds for an inotify descriptor."""
    return Path(f"/proc/self/fdinfo/{fd}").read_text().count("inotify wd:")


class Told:
    """Counts calls."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        """Count one call."""
        self.count += 1


@asynccontextmanager
async def watching(directory: Path, poll_s: float = 30.0) -> AsyncIterator[KubeletWatch]:
    watch = KubeletWatch(directory, log=LOG, poll_s=poll_s)
    watch.start()
    try:
        yield watch
    finally:
        watch.close()


def play(directory: Path, work: Callable[[KubeletWatch], Awaitable[None]], poll_s: float = 30.0) -> None:
    async def scene() -> None:
        async with watching(directory, poll_s) as watch:
            await work(watch)

    asyncio.run(scene())


def test_new_kubelet_socket_is_seen_by_event(tmp_path: Path) -> None:
    """Made, removed, made again (20 times): each time the watch knows another one, far below the poll's period."""

    async def work(watch: KubeletWatch) -> None:
        assert watch.kubelet is None
        slowest_s = 0.0
        for _ in range(20):
            before, changes = watch.kubelet, watch.changes
            (tmp_path / "kubelet.sock").unlink(missing_ok=True)
            bind(tmp_path / "kubelet.sock")
            took_s = await eventually(partial(is_new, watch, changes), "the new kubelet.sock is seen")
            assert watch.kubelet != before
            slowest_s = max(slowest_s, took_s)
            # The change time, which tells two files with one inode number apart, moves with the kernel's tick.
            await asyncio.sleep(0.01)
        print(f"slowest of 20: {slowest_s * 1000:.1f} ms")

    play(tmp_path, work)


def test_socket_that_was_there_first_is_known_from_the_start(tmp_path: Path) -> None:
    """A kubelet.sock older than the watch is known at once, and nothing is told as new."""
    bind(tmp_path / "kubelet.sock")

    async def work(watch: KubeletWatch) -> None:
        told = Told()
        watch.subscribe("ours.sock", told)
        assert watch.kubelet is not None
        await asyncio.sleep(0.1)
        assert told.count == 0

    play(tmp_path, work)


def test_subscribers_hear_of_their_file_and_not_of_others(tmp_path: Path) -> None:
    """The loss of a socket reaches its own subscriber only; the kubelet's checkpoint files wake nobody."""

    async def work(watch: KubeletWatch) -> None:
        ours, theirs = Told(), Told()
        end = watch.subscribe("ours.sock", ours)
        watch.subscribe("theirs.sock", theirs)
        (tmp_path / "kubelet_internal_checkpoint").write_text("{}")
        bind(tmp_path / "ours.sock")
        await eventually(lambda: ours.count == 1, "ours was made")
        (tmp_path / "ours.sock").unlink()
        await eventually(lambda: ours.count == 2, "ours was lost")
        assert theirs.count == 0
        end()
        end()
        bind(tmp_path / "kubelet.sock")
        await eventually(lambda: theirs.count == 1, "the kubelet's socket concerns all")
        assert ours.count == 2

    play(tmp_path, work)


@pytest.mark.parametrize("depth", [0, 2])
def test_directory_that_is_removed_and_made_again_is_watched_again(tmp_path: Path, depth: int) -> None:
    """Also when parents go with it: the new directory's kubelet.sock is seen by event, ten times over."""
    directory = tmp_path / "kubelet" / "a" / "device-plugins"
    directory.mkdir(parents=True)
    root = directory.parents[depth - 1] if depth else directory

    async def work(watch: KubeletWatch) -> None:
        for _ in range(10):
            bind(directory / "kubelet.sock")
            await eventually(lambda: watch.kubelet is not None, "kubelet.sock came")
            shutil.rmtree(root)
            await eventually(lambda: watch.kubelet is None, "kubelet.sock went")
            directory.mkdir(parents=True)
        bind(directory / "kubelet.sock")
        await eventually(lambda: watch.kubelet is not None, "kubelet.sock came")
        assert watch._inotify is not None
        assert watch_count(watch._inotify.fd) == 1, "those of ancestors are given back"

    play(directory, work)


def test_directory_that_is_moved_away_is_not_followed(tmp_path: Path) -> None:
    """What happens in the old directory under its new name is nothing to us; what happens in a new one is."""
    directory = tmp_path / "dp"
    directory.mkdir()

    async def work(watch: KubeletWatch) -> None:
        changes = watch.changes
        directory.rename(tmp_path / "away")
        await eventually(lambda: watch.changes > changes, "the move was seen")
        bind(tmp_path / "away" / "kubelet.sock")
        directory.mkdir()
        bind(directory / "kubelet.sock")
        await eventually(lambda: watch.kubelet is not None, "the new one was seen")
        assert watch.kubelet is not None
        assert watch.kubelet.inode == (directory / "kubelet.sock").lstat().st_ino

    play(directory, work)


def test_missing_directory_is_waited_for(tmp_path: Path) -> None:
    """A directory that is not there at the start, nor its parent, is seen by event when it comes."""
    directory = tmp_path / "a" / "b"

    async def work(watch: KubeletWatch) -> None:
        directory.mkdir(parents=True)
        bind(directory / "kubelet.sock")
        await eventually(lambda: watch.kubelet is not None, "kubelet.sock was seen")

    play(directory, work)


def test_poll_sees_what_no_event_tells(tmp_path: Path) -> None:
    """With the kernel's events gone, the poll alone notices a new kubelet.sock."""

    async def work(watch: KubeletWatch) -> None:
        assert watch._inotify is not None
        watch._inotify.remove(watch._wd)
        watch._inotify.read()  # not even the end of the watch is heard of
        bind(tmp_path / "kubelet.sock")
        took_s = await eventually(lambda: watch.kubelet is not None, "the poll saw it")
        assert took_s > 0.02

    # The first poll comes so long after the start: a busy machine must get to the socket before it.
    play(tmp_path, work, poll_s=1.0)


def test_close_leaves_no_timer_and_no_descriptor(tmp_path: Path) -> None:
    """After close, which may be called twice, nothing wakes the loop and the descriptor is closed."""

    async def scene() -> None:
        watch = KubeletWatch(tmp_path, log=LOG, poll_s=0.05)
        before = descriptors()
        watch.start()
        told = Told()
        watch.subscribe("x", told)
        await eventually(lambda: told.count > 0, "the poll runs")
        watch.close()
        watch.close()
        assert descriptors() == before
        count = told.count
        bind(tmp_path / "kubelet.sock")
        await asyncio.sleep(0.2)
        assert told.count == count

    asyncio.run(scene())
