"""The front's end of every channel: a bound socket with a private file, bounded queues and reads that never wait.

The listening socket is made here and handed to libzmq (ZMQ_USE_FD) instead of being made by it. So the file has its
mode from birth without touching the process's umask, a live peer's file is never taken away (libzmq unlinks whatever
lies at the path), and closing removes the file at once (libzmq does it some time later, in its own thread).

libzmq's file descriptor is edge-triggered: it becomes readable once when something arrives and stays silent until the
socket has been read to its end. Three rules follow, for every class of this package that has ``fd``:

1. When the descriptor is readable, drain, even if nothing seems to be expected: libzmq uses the same call to take in
   new connections, and a bus that is not drained does not even tell a new publisher that it listens.
2. After each drain ask ``pending``; while it says True, drain again soon: no further wake-up will come.
3. Any other use of the socket (a send) may swallow the wake-up: ask ``pending`` after it as well.

What libzmq 4.3.5 does not let us bound, both measured:

- The frames of one message. A peer that writes the wire protocol by hand can send a message of frames without end, each
  below ``Limits.message_bytes``; libzmq keeps them all until the last one. Peers that use libzmq keep such a message on
  their own side. Only the process's own memory limit stops it.
- Descriptors. A connection that arrives while the process has none left makes libzmq abort the whole process (its
  accept knows no EMFILE). The daemon has to keep well below RLIMIT_NOFILE: three for each channel and its connection,
  beside what it holds for each worker otherwise. A socket that more than the workers may connect to has a ``Door``.
"""

import errno
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import zmq

from devd.ipc.door import Door
from devd.ipc.endpoints import GROUP_SOCKET_MODE, SOCKET_MODE, check_socket_path, ipc_address, remove_stale_socket
from devd.ipc.errors import EndpointError

Context: TypeAlias = "zmq.Context[zmq.Socket[bytes]]"

BACKLOG = 1024
"""Connections waiting to be accepted: as many workers as start at once, with room. A full backlog would make a worker
wait 100 ms for its next try."""
ZAP_DOMAIN_BYTES = 255
"""Longest ZAP domain libzmq takes."""
DRAIN_BYTES = 4 * 1024 * 1024
"""A drain ends early once it has read this much, so that a run of the largest messages cannot hold the loop."""
FRAMES_PER_MESSAGE = 4
"""Frames a drain may read for each message asked for; a message of a million frames is thrown away in slices."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one connection may make libzmq keep."""

    message_bytes: int
    """Largest frame; libzmq ends the connection of a peer that announces a larger one, before it allocates."""
    receive_queue: int
    """Messages kept for the front; a full queue stops the peer."""
    send_queue: int
    """Messages kept for the peer; a full queue makes ``send`` return False."""
    backlog: int = BACKLOG
    """Connections that wait to be accepted."""
    connections: int = 0
    """Connections at a time before all are ended; 0 is any number, where nobody but the workers may connect."""
    connections_a_second: int = 0
    """Connections a second before all are ended; counts where ``connections`` does."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """One message off the wire. ``identity`` is the kernel's word on its sender; ``error`` tells of a wrong shape.

    A wrong message keeps at most as many frames as a right one has.
    """

    identity: str
    frames: tuple[bytes, ...]
    error: str


class BoundSocket:
    """Owner of one bound socket and its file."""

    def __init__(
        self,
        context: Context,
        kind: zmq.SocketType,
        path: Path,
        limits: Limits,
        *,
        frames: int,
        zap_domain: bytes = b"",
        group: int | None = None,
    ) -> None:
        """Bind; messages are ``frames`` frames each. The file is open to ``group`` (a gid) as well, if one is given.

        With a ``zap_domain`` only peers that a PeerAuthenticator of the same context admits get in, and nobody while
        there is none. Raises EndpointError when the path cannot be used or the process is out of descriptors.
        """
        self._path = check_socket_path(path)
        self._frames = frames
        self._partial: list[bytes] = []
        self._count = 0
        self._identity = ""
        self.door: Door | None = None
        """Watches the connections, where ``limits`` bounds them."""
        if len(zap_domain) > ZAP_DOMAIN_BYTES:
            raise EndpointError(f"{path}: ZAP domain of {len(zap_domain)} bytes: at most {ZAP_DOMAIN_BYTES} are taken")
        remove_stale_socket(self._path)
        try:
            self._socket = context.socket(kind)
        except zmq.ZMQError as error:
            raise EndpointError(f"{path}: no socket to be had: {_zmq_text(error)}") from error
        try:
            self._configure(limits, zap_domain)
            if limits.connections:
                self.door = Door(self._socket, self._path, limits.connections, limits.connections_a_second)
            self._inode = self._bind(group, limits.backlog)
        except (OSError, zmq.ZMQError) as error:
            self._close_socket()
            text = _zmq_text(error) if isinstance(error, zmq.ZMQError) else f"{_name(error.errno)} ({error.strerror})"
            raise EndpointError(f"{path}: cannot listen: {text}") from error
        self.fd = int(self._socket.getsockopt(zmq.FD))

    def _configure(self, limits: Limits, zap_domain: bytes) -> None:
        self._socket.linger = 0
        self._socket.sndtimeo = 0
        self._socket.rcvtimeo = 0
        self._socket.maxmsgsize = limits.message_bytes
        self._socket.rcvhwm = limits.receive_queue
        self._socket.sndhwm = limits.send_queue
        if zap_domain:
            self._socket.zap_domain = zap_domain
            # Without it libzmq lets everybody in while no authenticator is there to ask.
            self._socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        if self._socket.type == zmq.SUB:
            self._socket.subscribe(b"")
        if self._socket.type == zmq.ROUTER:
            self._socket.router_mandatory = 1

    def _bind(self, group: int | None, backlog: int) -> tuple[int, int]:
        """Make the file, listen, hand the descriptor over; return the file's identity (st_dev, st_ino)."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            # The mode of an unbound socket is the mode its file is born with (Linux).
            os.fchmod(listener.fileno(), SOCKET_MODE)
            listener.bind(os.fspath(self._path))
            try:
                if group is not None:
                    # First whose, then what they may: nobody else may connect in between.
                    os.chown(self._path, -1, group, follow_symlinks=False)
                    self._path.chmod(GROUP_SOCKET_MODE)
                listener.listen(backlog)
                if self.door is not None:
                    self.door.keep(listener.fileno())
                listener.setblocking(False)  # noqa: FBT003 - the standard library's own signature
                self._socket.setsockopt(zmq.USE_FD, listener.fileno())
                self._socket.bind(ipc_address(self._path))
            except (OSError, zmq.ZMQError):
                self._path.unlink(missing_ok=True)
                raise
            listener.detach()
        made = self._path.lstat()
        return made.st_dev, made.st_ino

    def read(self, limit: int) -> list[Arrived]:
        """Return at most ``limit`` messages that have arrived; never waits, never raises for what a peer sent.

        May end before ``limit`` with more waiting (very large or many-framed messages): ``pending`` tells.
        """
        arrived: list[Arrived] = []
        taken_bytes = 0
        for _ in range(limit * FRAMES_PER_MESSAGE):
            try:
                frame = self._socket.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                break
            taken_bytes += len(frame)
            message = self._take(frame)
            if message is not None:
                arrived.append(message)
            if len(arrived) >= limit or taken_bytes >= DRAIN_BYTES:
                break
        return arrived

    def _take(self, frame: zmq.Frame) -> Arrived | None:
        """Add a frame; return the message it completes."""
        self._count += 1
        if self._count == 1:
            self._identity = _identity_of(frame)
        if self._count <= self._frames:
            self._partial.append(frame.bytes)
        if frame.more:
            return None
        error = "" if self._count == self._frames else f"message of {self._count} frames: {self._frames} are needed"
        message = Arrived(self._identity, tuple(self._partial), error)
        self._count = 0
        self._partial = []
        return message

    def send(self, *frames: bytes) -> bool:
        """Send a message; False when nobody is connected or the peer's queue is full. Never waits."""
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno == errno.EHOSTUNREACH:
                return False
            raise
        return True

    def pending(self) -> bool:
        """Return whether something waits to be read; also looks for what the descriptor does not tell any more."""
        return bool(int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN)

    def close(self) -> None:
        """Close the socket and remove its file, unless somebody else's lies there by now. Safe to call twice."""
        if self._socket.closed:
            return
        self._close_socket()
        try:
            now = self._path.lstat()
        except OSError:
            return
        if (now.st_dev, now.st_ino) == self._inode:
            self._path.unlink(missing_ok=True)

    def _close_socket(self) -> None:
        if self.door is not None:
            self.door.close()
        self._socket.close(linger=0)


def _identity_of(frame: zmq.Frame) -> str:
    """Return the User-Id that ZAP gave the frame's connection, or nothing."""
    try:
        return str(frame.get("User-Id"))
    except zmq.ZMQError:
        return ""


def _name(number: int | None) -> str:
    return errno.errorcode.get(number or 0, "error")


def _zmq_text(error: zmq.ZMQError) -> str:
    return f"{_name(error.errno)} ({error.strerror})"
