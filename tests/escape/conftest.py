"""The scene of an attempt, and who makes it."""

import fcntl
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.escape.by_file import FITHAW
from tests.escape.servers import Inside
from tests.support.unprivileged import unprivileged

MOUNT_BYTES = 8 << 20


@pytest.fixture(scope="session")
def inside() -> Iterator[Inside]:
    """Return who tries as this user."""
    with Inside() as one:
        yield one


@pytest.fixture(scope="session")
def inside_as_nobody() -> Iterator[Inside]:
    """Return who tries as an ordinary user."""
    with Inside(unprivileged()) as one:
        yield one


@pytest.fixture(scope="session")
def own_mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Mount a file system of the tests' own, to be frozen; return "" where that cannot be done."""
    folder = tmp_path_factory.mktemp("mount")
    image, mount = folder / "image", folder / "mount"
    mount.mkdir()
    if os.geteuid() != 0 or not all(shutil.which(one) for one in ("mkfs.ext4", "mount", "umount")):
        yield ""
        return
    image.touch()
    os.truncate(image, MOUNT_BYTES)
    commands = (["mkfs.ext4", "-q", "-F", str(image)], ["mount", "-o", "loop", str(image), str(mount)])
    if any(subprocess.run(one, capture_output=True, timeout=60, check=False).returncode for one in commands):
        yield ""
        return
    try:
        yield str(mount)
    finally:
        fd = os.open(mount, os.O_RDONLY)
        with suppress(OSError):  # it is not frozen, unless an attempt was ended half-way
            fcntl.ioctl(fd, FITHAW, 0)
        os.close(fd)
        subprocess.run(["umount", "--lazy", str(mount)], timeout=60, check=True)


@pytest.fixture
def scene(tmp_path: Path, own_mount: str) -> Iterator[dict[str, str]]:
    """Make what the attempts reach for: files, sockets that listen, a link to the worker's own node."""
    paths = {name: tmp_path / name for name in ("new", "node", "own", "disk", "setuid", "folder", "socket")}
    tmp_path.chmod(0o711)
    private = tmp_path / "private"
    for folder in (paths["folder"], private):
        folder.mkdir(mode=0o700)
    paths |= {name: private / name for name in ("secret", "hidden")}
    paths["hidden"].symlink_to("/dev/null")
    paths["own"].symlink_to("/dev/null")
    for name in ("disk", "setuid", "secret"):
        paths[name].write_text("x")
        paths[name].chmod(0o600 if name == "secret" else 0o644)
    abstract = f"devd-test-{os.getpid()}"
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as path_socket,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as abstract_socket,
    ):
        udp.bind(("127.0.0.1", 0))
        path_socket.bind(str(paths["socket"]))
        paths["socket"].chmod(0o600)
        abstract_socket.bind("\0" + abstract)
        for one in (path_socket, abstract_socket):
            one.listen(16)
        yield {
            **{name: str(path) for name, path in paths.items()},
            "tcp": str(tcp.getsockname()[1]),
            "udp": str(udp.getsockname()[1]),
            "abstract": abstract,
            "mount": own_mount,
        }
