"""The runtime directory: what is made, what is removed, and what is left alone."""

from __future__ import annotations

import os
import socket
import stat
from typing import TYPE_CHECKING

import pytest

from devd.ipc.endpoints import MAX_SOCKET_PATH_BYTES, RuntimeLayout, check_socket_path, ipc_address
from devd.ipc.errors import EndpointError

if TYPE_CHECKING:
    from pathlib import Path


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def stale_socket(path: Path) -> None:
    """Leave a socket file nobody listens on."""
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(os.fspath(path))


def test_prepare_makes_private_directories_under_any_umask(runtime_dir: Path) -> None:
    """Root, its missing parents and cmd/ have mode 0700, whatever the umask."""
    layout = RuntimeLayout(runtime_dir / "run" / "devd")
    old = os.umask(0)
    try:
        layout.prepare()
    finally:
        os.umask(old)
    assert [mode_of(one) for one in (layout.root.parent, layout.root, layout.commands)] == [0o700] * 3


def test_remove_leaves_nothing_that_prepare_made(runtime_dir: Path) -> None:
    """After remove, sockets and all directories that prepare made are gone, and what was there before is not."""
    layout = RuntimeLayout(runtime_dir / "run" / "devd")
    layout.prepare()
    for path in (layout.health, layout.control, layout.command(1), layout.command(2)):
        stale_socket(path)
    layout.remove()
    assert list(runtime_dir.iterdir()) == []
    layout.remove()


def test_remove_keeps_a_directory_that_was_there(runtime_dir: Path) -> None:
    """A directory somebody else made (systemd, a volume) stays, empty."""
    (runtime_dir / "run").mkdir()
    layout = RuntimeLayout(runtime_dir / "run")
    layout.prepare()
    layout.remove()
    assert (runtime_dir / "run").is_dir()
    assert list((runtime_dir / "run").iterdir()) == []


def test_remove_keeps_files_that_are_not_its_own(runtime_dir: Path) -> None:
    """Other files, even under a socket's name, and the directory that holds them, stay."""
    layout = RuntimeLayout(runtime_dir / "run")
    layout.prepare()
    layout.health.write_text("not a socket")
    layout.lock.touch()
    layout.remove()
    assert layout.health.read_text() == "not a socket"
    assert layout.lock.exists()


def test_prepare_removes_what_a_killed_daemon_left(runtime_dir: Path) -> None:
    """Sockets nobody listens on are removed, the lock file is not."""
    layout = RuntimeLayout(runtime_dir / "run")
    layout.prepare()
    left = (layout.health, layout.control, layout.command(1), layout.command(4711))
    for path in left:
        stale_socket(path)
    layout.lock.touch()
    RuntimeLayout(runtime_dir / "run").prepare()
    assert not any(os.path.lexists(path) for path in left)
    assert layout.lock.exists()


@pytest.mark.parametrize("name", ["health.sock", "control.sock", "cmd/3.sock"])
def test_prepare_leaves_a_live_daemon_alone(runtime_dir: Path, name: str) -> None:
    """A socket somebody listens on is an error that says so, and the socket stays, even when its queue is full."""
    layout = RuntimeLayout(runtime_dir / "run")
    layout.prepare()
    path = layout.root / name
    with socket.socket(socket.AF_UNIX) as live, socket.socket(socket.AF_UNIX) as waiting:
        live.bind(os.fspath(path))
        live.listen(0)
        waiting.connect(os.fspath(path))
        with pytest.raises(EndpointError, match=rf"{name} is in use: another devd runs there"):
            layout.prepare()
    assert path.is_socket()


@pytest.mark.parametrize("name", ["health.sock", "control.sock", "cmd/notes.txt", "cmd"])
def test_prepare_leaves_what_is_no_socket_alone(runtime_dir: Path, name: str) -> None:
    """A regular file where a socket or directory is to be made is an error that names it, and it stays."""
    root = runtime_dir / "run"
    (root / name).parent.mkdir(parents=True)
    root.chmod(0o700)
    (root / name).write_text("precious")
    with pytest.raises(EndpointError, match=rf"{name} is a regular file"):
        RuntimeLayout(root).prepare()
    assert (root / name).read_text() == "precious"


def test_prepare_takes_over_an_empty_directory_of_its_own(runtime_dir: Path) -> None:
    """A directory of an open mode that holds nothing but devd's own names is closed to others."""
    root = runtime_dir / "run"
    root.mkdir()
    root.chmod(0o777)
    (root / "lock").touch()
    RuntimeLayout(root).prepare()
    assert mode_of(root) == 0o700


def test_prepare_does_not_close_a_shared_directory(runtime_dir: Path) -> None:
    """A directory that others use (/tmp handed in by mistake) is refused and keeps its mode."""
    root = runtime_dir / "shared"
    root.mkdir()
    root.chmod(0o1777)
    (root / "somebody").touch()
    with pytest.raises(EndpointError, match=r"mode 1777 and holds other files \('somebody'\)"):
        RuntimeLayout(root).prepare()
    assert mode_of(root) == 0o1777
    assert [one.name for one in root.iterdir()] == ["somebody"]


def test_prepare_follows_no_link(runtime_dir: Path) -> None:
    """A symbolic link as the runtime directory is refused: whoever made it would choose where sockets go."""
    (runtime_dir / "real").mkdir(mode=0o755)
    (runtime_dir / "link").symlink_to(runtime_dir / "real")
    with pytest.raises(EndpointError, match="is a symbolic link: a directory is needed"):
        RuntimeLayout(runtime_dir / "link").prepare()
    assert mode_of(runtime_dir / "real") == 0o755


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="giving a directory away needs root")
def test_prepare_refuses_somebody_elses_directory(runtime_dir: Path) -> None:
    """A directory that belongs to another user is refused, naming both users."""
    root = runtime_dir / "run"
    root.mkdir()
    os.chown(root, 65534, 65534)
    with pytest.raises(EndpointError, match="belongs to uid 65534, this process is uid 0"):
        RuntimeLayout(root).prepare()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may give a directory to any group")
def test_prepare_says_why_a_group_cannot_have_the_directory(runtime_dir: Path) -> None:
    """Who is no member of the control group hears that, and nothing is opened to anybody."""
    with pytest.raises(EndpointError, match=r"given to group 0: EPERM .* member of the group \(--control-group\)"):
        RuntimeLayout(runtime_dir / "run", 0).prepare()
    assert (runtime_dir / "run").stat().st_mode & 0o777 == 0o700


def test_prepare_says_why_a_directory_cannot_be_made(runtime_dir: Path) -> None:
    """A path below a regular file gives the errno's name and the remedy."""
    (runtime_dir / "file").touch()
    with pytest.raises(EndpointError, match=r"ENOTDIR.*--runtime-dir"):
        RuntimeLayout(runtime_dir / "file" / "run").prepare()


def test_socket_path_limit_is_the_kernels(runtime_dir: Path) -> None:
    """A path of 107 bytes binds and passes; one of 108 does neither, and the text has length, limit and remedy."""
    longest = runtime_dir / ("x" * (MAX_SOCKET_PATH_BYTES - len(os.fsencode(runtime_dir)) - 1))
    stale_socket(check_socket_path(longest))
    over = longest.with_name(longest.name + "x")
    with pytest.raises(OSError, match="path too long"):
        stale_socket(over)
    with pytest.raises(EndpointError, match=r"of 108 bytes: .*at most 107; use a shorter directory \(--runtime-dir\)"):
        check_socket_path(over)


def test_prepare_checks_the_longest_path_first(runtime_dir: Path) -> None:
    """A root in which only the command channels would be too long is refused before anything is made."""
    root = runtime_dir / ("x" * (MAX_SOCKET_PATH_BYTES - len(os.fsencode(runtime_dir)) - 1 - len("/health.sock")))
    check_socket_path(RuntimeLayout(root).health)
    with pytest.raises(EndpointError, match="--runtime-dir"):
        RuntimeLayout(root).prepare()
    assert not root.exists()


def test_addresses_are_absolute(runtime_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path becomes an absolute address: the worker's working directory is another one."""
    monkeypatch.chdir(runtime_dir)
    assert ipc_address(RuntimeLayout(runtime_dir.relative_to(runtime_dir)).health) == f"ipc://{runtime_dir}/health.sock"


def test_path_that_is_not_utf8_is_refused(runtime_dir: Path) -> None:
    """A path ZeroMQ could not be told of is an EndpointError, not a crash later."""
    with pytest.raises(EndpointError, match=r"not UTF-8: .*\\xff"):
        ipc_address(runtime_dir / os.fsdecode(b"\xff.sock"))
