"""Who speaks: admits connections by the kernel's word (SO_PEERCRED) and gives each its identity.

libzmq asks a ZAP handler (RFC 27) about each connection to a socket that has a ZAP domain, and writes the peer's
credentials into the request's address: ``localhost:UID:GID:PID``. The identity answered stands as ``User-Id`` on every
frame of that connection: it is the front's own word, whatever the frames say.

What is enforced:

- A pid that was not admitted gets 400. A pid outside this process's pid namespace is seen as 0, and gets 400.
- A domain may name the one identity it is for: ``command:gpu-1`` takes nobody but ``gpu-1``.
- The control socket's domain takes whoever the socket file's mode lets through, as often as he likes, but no worker and
  no program a worker runs; the identity is the caller's credentials (``Caller``).
- One connection a domain for each ``admit``. libzmq tells of handshakes but never of ends, so "still connected" cannot
  be known here. A worker never has to connect twice: only the front ends connections, of peers that broke the
  protocol, and those are better killed and started again.

A process's pid is recycled only after it was reaped: revoke it when that is known.
"""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields

import zmq

from devd.ipc.errors import EndpointError
from devd.ipc.sockets import Context

HANDLE_LIMIT = 1024
"""Handshakes answered in one go: all workers of a large node at once. More wait for the loop's next turn."""
REFUSALS = (
    "unknown process",
    "no process credentials",
    "another's channel",
    "second connection",
    "a worker at the control socket",
    "not a request this handler knows",
    "gone before the answer",
)
"""Why a connection is refused; a metric's labels."""

CONTROL_DOMAIN = b"control"

_ENDPOINT = "inproc://zeromq.zap.01"
_VERSION = b"1.0"
_REQUEST_FRAMES = 6
"""Version, request id, domain, address, routing id, mechanism; the NULL mechanism has no credentials."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks on the control socket, by the kernel's word. ``pid`` is 0 for one outside this pid namespace."""

    uid: int
    gid: int
    pid: int

    def __str__(self) -> str:
        """Return the identity that stands for it on the wire."""
        return f"{self.uid}:{self.gid}:{self.pid}"

    @classmethod
    def parse(cls, identity: str) -> "Caller | None":
        """Return the caller an identity stands for, or None."""
        parts = identity.split(":")
        if len(parts) != len(fields(cls)) or not all(part.isdecimal() for part in parts):
            return None
        return cls(*(int(part) for part in parts))


class PeerAuthenticator:
    """The ZAP handler of one context, run on the front's loop: call ``handle`` when ``fd`` is readable.

    Make it before the first socket with a ZAP domain is bound. No thread, and no answer ever waits: until ``handle``
    runs, peers wait in their handshake.
    """

    def __init__(self, context: Context) -> None:
        """Bind. Raises EndpointError when the context has an authenticator already, or is out of descriptors."""
        try:
            self._socket = context.socket(zmq.REP)
        except zmq.ZMQError as error:
            raise EndpointError(f"no socket to be had for authentication: {error.strerror}") from error
        self._socket.linger = 0
        self._socket.sndtimeo = 0
        try:
            self._socket.bind(_ENDPOINT)
        except zmq.ZMQError as error:
            self._socket.close(linger=0)
            raise EndpointError(f"{error.strerror}: one authenticator a context") from error
        self._identities: dict[int, str] = {}
        self._connected: dict[int, set[bytes]] = {}
        self._refused: Counter[str] = Counter()
        self._offenders: dict[str, str] = {}
        self.fd = int(self._socket.getsockopt(zmq.FD))

    @property
    def refused(self) -> Mapping[str, int]:
        """Return how many connections were refused, by reason."""
        return self._refused

    def offenders(self) -> dict[str, str]:
        """Return who of those admitted was refused something since the last call, and what: each is worth ending."""
        found, self._offenders = self._offenders, {}
        return found

    def admit(self, pid: int, identity: str) -> None:
        """Let a process connect, once a domain, under ``identity``. Call it before the process may connect.

        Raises ValueError for a pid below 1 or an empty identity: a bug of ours.
        """
        if pid < 1 or not identity:
            raise ValueError(f"cannot admit pid {pid} as {identity!r}")
        self._identities[pid] = identity
        self._connected[pid] = set()

    def revoke(self, pid: int) -> None:
        """Let a process connect no more; connections it has keep their identity until they end."""
        self._identities.pop(pid, None)
        self._connected.pop(pid, None)

    def handle(self) -> None:
        """Answer the handshakes that wait, HANDLE_LIMIT at most; then ask ``pending``. Never waits."""
        for _ in range(HANDLE_LIMIT):
            try:
                request = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._answer(request)

    def pending(self) -> bool:
        """Return whether handshakes wait; the descriptor tells only once."""
        return bool(int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN)

    def close(self) -> None:
        """Stop answering: from now on nobody gets in. Safe to call twice."""
        if not self._socket.closed:
            # Closing alone frees the name some time later, in libzmq's own thread.
            self._socket.unbind(_ENDPOINT)
            self._socket.close(linger=0)

    def _answer(self, request: list[bytes]) -> None:
        request_id = request[1] if len(request) > 1 else b""
        identity, refusal = self._judge(request)
        if refusal:
            self._refused[refusal] += 1
            if identity:
                self._offenders[identity] = refusal
            reply = [_VERSION, request_id, b"400", refusal.encode(), b"", b""]
        else:
            reply = [_VERSION, request_id, b"200", b"", identity.encode(), b""]
        try:
            self._socket.send_multipart(reply, zmq.NOBLOCK)
        except zmq.Again:
            # The handshake gave up in between; its peer gets no answer and no connection.
            self._refused["gone before the answer"] += 1

    def _judge(self, request: list[bytes]) -> tuple[str, str]:
        """Return (identity, "") or (identity or "", why not).

        The reasons are few and fixed, they become metric labels.
        """
        if len(request) != _REQUEST_FRAMES or request[0] != _VERSION or request[5] != b"NULL":
            return "", "not a request this handler knows"
        domain = request[2]
        caller = _caller_in(request[3])
        if caller is None:
            return "", "no process credentials"
        pid = caller.pid
        if domain == CONTROL_DOMAIN:
            worker = self._worker_of(pid)
            return (worker, "a worker at the control socket") if worker else (str(caller), "")
        return self._judge_worker(domain, pid)

    def _judge_worker(self, domain: bytes, pid: int) -> tuple[str, str]:
        identity = self._identities.get(pid)
        if identity is None:
            return "", "unknown process"
        owner = domain.partition(b":")[2]
        if owner and owner != identity.encode():
            return identity, "another's channel"
        if domain in self._connected[pid]:
            return identity, "second connection"
        self._connected[pid].add(domain)
        return identity, ""

    def _worker_of(self, pid: int) -> str:
        """Return the identity of the worker that a process is, or was started by; "" for none."""
        if pid in self._identities:
            return self._identities[pid]
        try:
            # A worker leads a session of its own; a command it runs is in it.
            return self._identities.get(os.getsid(pid), "") if pid > 0 else ""
        except OSError:
            return ""


def _caller_in(address: bytes) -> Caller | None:
    """Return who is in ``localhost:UID:GID:PID``; None for any other address."""
    host, _, rest = address.decode("ascii", "replace").partition(":")
    return Caller.parse(rest) if host else None
