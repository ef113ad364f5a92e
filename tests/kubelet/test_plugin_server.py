"""The socket of a plugin: its name, who may take its place, and that its end leaves nothing."""

import asyncio
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from devd.daemon.errors import AlreadyRunningError, StartupError
from devd.daemon.plugin import Detached, Plugin
from devd.daemon.plugin_server import _hidden, clear_stale_socket, serve_plugin, socket_path
from devd.proto.gen import deviceplugin_pb2 as pb
from tests.kubelet.endpoint_support import LOG, MemoryView, descriptors, eventually, served

LISTENER = (
    "import signal, socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); "
    "print(flush=True); signal.pause()"
)


def stale(path: Path) -> None:
    """Leave a socket file behind that nobody listens on, as a killed process does."""
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


def test_socket_name_is_fixed_short_and_its_own() -> None:
    """The same resource gets the same name each time; names that differ only where the slug is cut stay apart."""
    where = Path("/var/lib/kubelet/device-plugins")
    path = socket_path(where, "devd.io/serial")
    assert path == socket_path(where, "devd.io/serial")
    assert path.name.startswith("devd-devd.io-serial-")
    long = "a-very-long-vendor.example.com/" + "x" * 62
    assert socket_path(where, long + "1") != socket_path(where, long + "2")
    assert len(os.fsencode(socket_path(where, long + "1"))) <= 107


def test_path_over_107_bytes_is_refused_with_the_remedy(tmp_path: Path) -> None:
    """A directory too long for a socket's path is a StartupError saying how long it may be; that long it works."""
    with pytest.raises(StartupError, match="use a kubelet directory of at most") as caught:
        socket_path(Path("/" + "d" * 90), "devd.io/serial")
    allowed = int(str(caught.value).rsplit(" ", 2)[1])
    fits = tmp_path / ("d" * (allowed - len(os.fsencode(tmp_path)) - 1))
    fits.mkdir()

    async def scene() -> None:
        async with served(MemoryView(), socket_path(fits, "devd.io/serial")) as (_, stub):
            await stub.GetDevicePluginOptions(pb.Empty())

    asyncio.run(scene())


@pytest.mark.parametrize("name", ["plain", "a b", "100%25", "what?", "c#", "ü"])
def test_any_directory_name_works(tmp_path: Path, name: str) -> None:
    """The path is not read as an URI: names with %, ? and # lead where they say."""
    directory = tmp_path / name
    directory.mkdir()

    async def scene() -> None:
        async with served(MemoryView(), directory / "p.sock") as (server, stub):
            await server.check(2.0)
            await stub.GetDevicePluginOptions(pb.Empty())
            mode = (directory / "p.sock").lstat().st_mode
            assert (stat.S_ISSOCK(mode), stat.S_IMODE(mode)) == (True, 0o600)
            assert [one.name for one in directory.iterdir()] == ["p.sock"]
        assert list(directory.iterdir()) == []

    asyncio.run(scene())


def test_leftover_sockets_are_replaced(tmp_path: Path) -> None:
    """Files of a killed predecessor, under the real and the hidden name, do not keep the server from its path."""
    path = tmp_path / "p.sock"
    stale(path)
    stale(_hidden(path))

    async def scene() -> None:
        async with served(MemoryView(), path) as (_, stub):
            await stub.GetDevicePluginOptions(pb.Empty())

    asyncio.run(scene())
    assert list(tmp_path.iterdir()) == []


def test_live_foreign_server_is_named_and_left_alone(tmp_path: Path) -> None:
    """When another process listens on the path, the error names its pid, and its socket is not touched."""
    path = tmp_path / "p.sock"
    with subprocess.Popen(
        [sys.executable, "-c", LISTENER, str(path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as other:
        try:
            assert other.stdout is not None
            other.stdout.readline()
            inode = path.lstat().st_ino
            view = MemoryView()

            async def scene() -> None:
                await serve_plugin(path, Plugin(view, Detached(LOG), LOG, lambda: None))

            with pytest.raises(AlreadyRunningError, match=f"pid {other.pid} "):
                asyncio.run(scene())
            assert path.lstat().st_ino == inode
            assert [one.name for one in tmp_path.iterdir()] == ["p.sock"]
        finally:
            other.kill()


def test_listener_with_a_full_backlog_counts_as_live(tmp_path: Path) -> None:
    """A listener that accepts nobody is still somebody's: its socket is not taken away."""
    path = tmp_path / "p.sock"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(str(path))
        listener.listen(0)
        first.connect(str(path))
        with pytest.raises(AlreadyRunningError, match="does not answer"):
            clear_stale_socket(path)
    assert path.exists()


def test_anything_but_a_socket_stays(tmp_path: Path) -> None:
    """A plain file or a symlink on the path is a StartupError naming it, and is still there afterwards."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link"):
        with pytest.raises(StartupError, match="something else is in the way"):
            clear_stale_socket(tmp_path / name)
    assert (tmp_path / "link").read_text() == "mine"


def test_missing_directory_is_its_own_error(tmp_path: Path) -> None:
    """A directory that is not there (yet) is FileNotFoundError, one that is a file a StartupError."""
    (tmp_path / "file").touch()

    async def scene() -> None:
        with pytest.raises(FileNotFoundError):
            await serve_plugin(tmp_path / "none" / "p.sock", Plugin(MemoryView(), Detached(LOG), LOG, lambda: None))
        with pytest.raises(StartupError, match="a directory is needed"):
            await serve_plugin(tmp_path / "file" / "p.sock", Plugin(MemoryView(), Detached(LOG), LOG, lambda: None))

    asyncio.run(scene())


def test_lost_socket_is_seen_and_a_successor_survives_our_end(tmp_path: Path) -> None:
    """After a wipe the server knows; its stop leaves alone what another has made under the same name meanwhile."""
    path = tmp_path / "p.sock"

    async def scene() -> None:
        async with served(MemoryView(), path) as (server, _):
            assert not server.lost
            path.unlink()
            assert server.lost
            with pytest.raises(StartupError, match="does not answer"):
                await server.check(2.0)
            stale(path)
            successor = path.lstat().st_ino
            assert server.lost
        assert path.lstat().st_ino == successor

    asyncio.run(scene())


def test_restarting_many_times_leaks_nothing(tmp_path: Path) -> None:
    """Sixty servers one after the other on one path leave the number of descriptors and tasks where it was."""
    path = tmp_path / "p.sock"

    async def once() -> None:
        async with served(MemoryView(), path) as (_, stub):
            call = stub.ListAndWatch(pb.Empty())
            await call.read()

    async def scene() -> None:
        for _ in range(3):
            await once()
        before = len(descriptors())
        for _ in range(60):
            await once()
        await eventually(lambda: len(descriptors()) <= before + 3, "no descriptor is left, but a few gRPC keeps")
        await eventually(lambda: len(asyncio.all_tasks()) == 1, "no task is left")

    asyncio.run(scene())
