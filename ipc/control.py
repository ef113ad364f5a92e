"""The control channel: ``devd status`` and the operator's verbs ask, the running daemon answers.

Who may ask is decided by the socket file's mode: the daemon's own user, root, and the members of one group if the
operator names one. Who does ask is the kernel's word (``devd.ipc.identity``). The directory's path is the daemon's
name; ``control_call`` tells apart a daemon that does not run, one that does not answer, and one that speaks another
version.
"""

import os
import pwd
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import zmq

from devd.ipc import codec
from devd.ipc.door import Door
from devd.ipc.endpoints import check_socket_path, ipc_address
from devd.ipc.errors import EndpointError, PeerSilentError, PeerUnavailableError, ProtocolError
from devd.ipc.identity import CONTROL_DOMAIN, Caller
from devd.ipc.messages import ControlReply, ControlRequest
from devd.ipc.sockets import Arrived, BoundSocket, Context, Limits

MAX_REQUEST_BYTES = 1024 * 1024
"""A request is a verb and a few words; this leaves room for a long list of device ids."""
MAX_REPLY_BYTES = codec.MAX_FRAME_BYTES
"""4 MiB: the status of some 5,000 devices."""
REQUEST_QUEUE = 8
REPLY_QUEUE = 4
"""A client asks one thing and leaves: what is more than this belongs to one that does not read, and is dropped."""
BACKLOG = 64
MOST_CALLERS = 128
"""Connections at a time: a command has two, for a moment. More belong to somebody who does not let go of them."""
MOST_CALLS_A_SECOND = 1000
"""Each costs the front some 0.1 ms."""
LIMITS = Limits(
    message_bytes=MAX_REQUEST_BYTES,
    receive_queue=REQUEST_QUEUE,
    send_queue=REPLY_QUEUE,
    backlog=BACKLOG,
    connections=MOST_CALLERS,
    connections_a_second=MOST_CALLS_A_SECOND,
)

_WHO_MAY = "ask as that user or as root, or have devd started with --control-group and be a member"
_FRAMES = 2
"""The ROUTER's route and the payload."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request. ``request`` is None when it is none, and ``error`` says why.

    ``route`` is good for replies until its client leaves. ``caller`` is None where nobody vouches for who asks.
    """

    route: bytes
    request: ControlRequest | None
    error: str
    caller: Caller | None


class ControlServer:
    """The daemon's end. See ``devd.ipc.sockets`` for how ``fd``, ``drain`` and ``pending`` go together."""

    def __init__(
        self, context: Context, path: Path, zap_domain: bytes = CONTROL_DOMAIN, group: int | None = None
    ) -> None:
        """Bind; the members of ``group`` may connect as well.

        An empty ``zap_domain`` takes whoever the file's mode lets through, without telling who it is. Raises
        EndpointError when the path cannot be used or given to the group.
        """
        self._bound = BoundSocket(context, zmq.ROUTER, path, LIMITS, frames=_FRAMES, zap_domain=zap_domain, group=group)
        self.fd: int = self._bound.fd

    @property
    def door(self) -> Door:
        """Who watches the number of callers."""
        if self._bound.door is None:
            raise AssertionError("LIMITS bounds the connections")
        return self._bound.door

    def drain(self, limit: int = 64) -> list[Asked]:
        """Return what has arrived, at most ``limit`` requests; then ask ``pending``. Never waits, never raises."""
        return [_asked(arrived) for arrived in self._bound.read(limit)]

    def pending(self) -> bool:
        """Return whether more waits; the descriptor tells only once, and a ``reply`` may swallow it."""
        return self._bound.pending()

    def reply(self, route: bytes, reply: ControlReply) -> bool:
        """Answer; False when the client is gone or does not read. Never waits.

        An answer over MAX_REPLY_BYTES is replaced by one that says so.
        """
        payload = codec.encode(reply)
        if len(payload) > MAX_REPLY_BYTES:
            error = f"the answer has {len(payload)} bytes: at most {MAX_REPLY_BYTES} can be sent"
            payload = codec.encode(ControlReply(ok=False, error=error))
        return self._bound.send(route, payload)

    def close(self) -> None:
        """Close and remove the socket's file. Safe to call twice."""
        self._bound.close()


def control_call(path: Path, request: ControlRequest, timeout_s: float) -> ControlReply:
    """Ask the daemon behind a control socket and return its answer, within ``timeout_s`` in all.

    Raises PeerUnavailableError when no daemon listens, PeerSilentError when one listens but does not answer in time,
    EndpointError when the socket is another user's or its path cannot be used, and ProtocolError when the answer is
    not of this protocol's version (the text has both versions).
    """
    deadline_s = time.monotonic() + timeout_s
    payload = codec.encode(request)
    if len(payload) > MAX_REQUEST_BYTES:
        raise ProtocolError(f"request of {len(payload)} bytes: at most {MAX_REQUEST_BYTES} are taken")
    _knock(check_socket_path(path), timeout_s)
    with zmq.Context(io_threads=1) as context, context.socket(zmq.DEALER) as client:
        client.linger = 0
        client.sndtimeo = 0
        client.maxmsgsize = MAX_REPLY_BYTES
        client.connect(ipc_address(path))
        # Queued in libzmq until the connection stands: an empty queue always takes it.
        client.send(payload, zmq.NOBLOCK)
        if not client.poll(max(0, int((deadline_s - time.monotonic()) * 1000)), zmq.POLLIN):
            raise PeerSilentError(f"{path}: the daemon listens but did not answer within {timeout_s:g} s")
        frames = client.recv_multipart(zmq.NOBLOCK)
    if len(frames) != 1:
        raise ProtocolError(f"answer of {len(frames)} frames: 1 is needed")
    return codec.decode(frames[0], ControlReply)


def _knock(path: Path, timeout_s: float) -> None:
    """Make sure that somebody listens: ZeroMQ itself would try to connect for ever and not say why it cannot."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(timeout_s)
        try:
            probe.connect(os.fspath(path))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise PeerUnavailableError(f"{path}: no daemon runs there (no such socket)") from error
        except ConnectionRefusedError as error:
            raise PeerUnavailableError(
                f"{path}: no daemon runs there (the socket is left from one that ended)"
            ) from error
        except PermissionError as error:
            raise EndpointError(_forbidden(path)) from error
        except (TimeoutError, BlockingIOError) as error:
            raise PeerSilentError(f"{path}: the daemon took no connection within {timeout_s:g} s") from error
        except OSError as error:
            raise EndpointError(f"{path}: {error.strerror}") from error


def _forbidden(path: Path) -> str:
    """Say whose socket it is, or whose directory when not even that can be seen."""
    for one in (path, *path.parents):
        try:
            uid = one.stat().st_uid
        except OSError:
            continue
        whose = f"{one} belongs to {_user(uid)}, this is {_user(os.geteuid())}"
        return f"{path}: permission denied: {whose}; {_WHO_MAY}"
    return f"{path}: permission denied; {_WHO_MAY}"


def _user(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


def _asked(arrived: Arrived) -> Asked:
    route, caller = arrived.frames[0], Caller.parse(arrived.identity)
    if arrived.error:
        return Asked(route, None, arrived.error, caller)
    try:
        return Asked(route, codec.decode(arrived.frames[1], ControlRequest), "", caller)
    except ProtocolError as error:
        return Asked(route, None, str(error), caller)
