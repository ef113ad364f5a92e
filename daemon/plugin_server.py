"""One gRPC server on one unix socket: made, checked that it is ours and answers, and taken away without a trace.

The server binds a hidden name, and the socket is then linked to its real one. So it shows only once it serves and has
its mode, linking never replaces another's socket, and gRPC's own unlink at the end (by name, whoever owns it by then)
cannot hit a successor's. The environment must hold GRPC_ENABLE_FORK_SUPPORT=0 before gRPC is first imported.
"""

import errno
import hashlib
import os
import re
import socket
import stat
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

import grpc

from devd.daemon.errors import AlreadyRunningError, StartupError
from devd.daemon.plugin import Plugin
from devd.ipc.endpoints import MAX_SOCKET_PATH_BYTES
from devd.proto.gen import deviceplugin_pb2 as pb
from devd.proto.gen import deviceplugin_pb2_grpc as rpc

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""Largest message either way: gRPC's default, and the kubelet's limit."""
SLUG_CHARS = 16
"""How much of the resource's name stands readable in the socket's name; the hash makes it unique."""

_SERVER_OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
)
CHANNEL_OPTIONS = (
    ("grpc.default_authority", "localhost"),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    # Channels to one address share connections and their reconnect pauses; a new attempt must be a new connection.
    ("grpc.use_local_subchannel_pool", 1),
)
_PEER_CREDENTIALS = struct.Struct("iII")

AddServicer = Callable[[grpc.aio.Server], None]


def grpc_address(path: Path) -> str:
    """Return gRPC's name of a socket path; it reads the path as part of an URI, where `%`, `?` and `#` mean more."""
    return f"unix:{quote(os.fspath(path))}"


def socket_path(directory: Path, resource: str) -> Path:
    """Return where a resource's socket lives: the same name at each start, and short.

    Raises StartupError when the path would be longer than a socket's may be.
    """
    slug = re.sub(r"[^A-Za-z0-9.]+", "-", resource)[:SLUG_CHARS].strip("-.")
    path = directory / f"devd-{slug}-{hashlib.sha256(resource.encode()).hexdigest()[:8]}.sock"
    length = len(os.fsencode(path))
    if length > MAX_SOCKET_PATH_BYTES:
        allowed = MAX_SOCKET_PATH_BYTES - (length - len(os.fsencode(directory)))
        raise StartupError(
            f"{path}: a socket's path may take {MAX_SOCKET_PATH_BYTES} bytes, this one needs {length}; "
            f"use a kubelet directory of at most {allowed} bytes"
        )
    return path


class PluginServer:
    """A plugin that serves on a path. Made by ``serve_plugin``; whoever made it calls ``stop``."""

    def __init__(self, path: Path, plugin: Plugin, server: grpc.aio.Server, inode: tuple[int, int]) -> None:
        self.path = path
        self.plugin = plugin
        self._server = server
        self._inode = inode

    @property
    def lost(self) -> bool:
        """True when the path is no longer our socket: removed (a starting kubelet does so), or another's."""
        return _inode(self.path) != self._inode

    async def check(self, timeout_s: float) -> None:
        """See that the path leads to a server that answers. Raises StartupError when it does not."""
        async with grpc.aio.insecure_channel(grpc_address(self.path), options=CHANNEL_OPTIONS) as channel:
            try:
                await rpc.DevicePluginStub(channel).GetDevicePluginOptions(pb.Empty(), timeout=timeout_s)
            except grpc.aio.AioRpcError as error:
                raise StartupError(
                    f"{self.path}: our own server does not answer there: {error.code().name} {error.details()}"
                ) from error

    async def stop(self, grace_s: float) -> None:
        """Remove the socket, end the streams, wait until the server is gone; other calls get ``grace_s`` to end."""
        if not self.lost:
            self.path.unlink(missing_ok=True)
        self.plugin.close()
        await self._server.stop(grace_s)


async def serve_plugin(path: Path, plugin: Plugin, more: Sequence[AddServicer] = ()) -> PluginServer:
    """Serve the plugin (and ``more`` services) on the path; a leftover socket there is removed.

    Raises AlreadyRunningError when a live server answers there, StartupError when the path is not ours to use, and
    FileNotFoundError when its directory is not there.
    """
    hidden = _hidden(path)
    _inode_of_directory(path.parent)
    for one in (path, hidden):
        clear_stale_socket(one)
    server = grpc.aio.server(options=_SERVER_OPTIONS)
    rpc.add_DevicePluginServicer_to_server(plugin, server)
    for add in more:
        add(server)
    try:
        server.add_insecure_port(grpc_address(hidden))
        await server.start()
        return PluginServer(path, plugin, server, _show(hidden, path))
    except BaseException as error:
        plugin.close()
        await server.stop(None)
        hidden.unlink(missing_ok=True)
        if isinstance(error, RuntimeError):  # gRPC's word for a bind that failed; the reason is on stderr
            raise StartupError(f"{path}: gRPC cannot bind it: {error}") from error
        raise


def clear_stale_socket(path: Path) -> None:
    """Remove a socket nobody listens on.

    Raises AlreadyRunningError, naming the process, when somebody does, and StartupError for anything but a socket.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise StartupError(f"{path}: a socket is to be made here, but something else is in the way; remove it")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # noqa: FBT003 - the standard library's signature
        result = probe.connect_ex(os.fspath(path))
        if result == 0:
            raise AlreadyRunningError(f"{path}: {_listener(probe)} serves there; stop it first, one devd a node")
    if result in {errno.EAGAIN, errno.EINPROGRESS}:  # a full backlog is somebody's
        raise AlreadyRunningError(f"{path}: a process that does not answer listens there; stop it first")
    if result not in {errno.ECONNREFUSED, errno.ENOENT}:
        raise StartupError(f"{path}: cannot tell whether it is in use: {os.strerror(result)}")
    path.unlink(missing_ok=True)


def _listener(connected: socket.socket) -> str:
    """Name the process that listens at the other end, by the kernel's word."""
    raw = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    pid, _, _ = _PEER_CREDENTIALS.unpack(raw)
    if pid == 0:
        return "a process of another pid namespace"
    try:
        command = Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return f"pid {pid}"
    return f"pid {pid} ({command})"


def _hidden(path: Path) -> Path:
    """Return the name a socket has before it serves: short, and with a dot, which the kubelet's watcher ignores."""
    return path.with_name(f".devd-{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:8]}")


def _show(hidden: Path, path: Path) -> tuple[int, int]:
    """Give the serving socket its real name, which must be free. Raises AlreadyRunningError when it is not."""
    hidden.chmod(0o600)
    try:
        path.hardlink_to(hidden)
    except FileExistsError:
        raise AlreadyRunningError(f"{path}: another process has just made this socket; one devd a node") from None
    hidden.unlink(missing_ok=True)
    inode = _inode(path)
    if inode is None:
        raise FileNotFoundError(errno.ENOENT, "our socket was removed at once", os.fspath(path))
    return inode


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _inode_of_directory(directory: Path) -> None:
    if not stat.S_ISDIR(directory.stat().st_mode):
        raise StartupError(f"{directory}: a directory is needed; kubelet.dir or kubelet.registry_dir must name one")
