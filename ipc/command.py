"""The command channel: one PAIR of sockets for each worker, the front binds, the worker connects.

PAIR and not ROUTER, because a ROUTER's routing ids are chosen by the peers: one could take another's. Here a channel
is one worker's alone by its ZAP domain, ``command:<device>`` (see ``devd.ipc.identity``), and by its socket type, which
takes one peer.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import zmq

from devd.ipc import codec
from devd.ipc.errors import ProtocolError
from devd.ipc.messages import (
    Findings,
    FromWorker,
    Hello,
    Inject,
    Listing,
    ProbeNow,
    Reset,
    ResetDone,
    Role,
    Stirred,
    Stop,
    ToWorker,
    WriteSpecs,
    Written,
)
from devd.ipc.sockets import Arrived, BoundSocket, Context, Limits

MAX_COMMAND_BYTES = codec.MAX_FRAME_BYTES
"""4 MiB: a scout's Listing of thousands of devices is the largest message."""
QUEUE = 16
"""Messages kept each way. Commands are few and a worker answers each: more than this waiting means that one side is
gone, and its lease or deadline says so."""
LIMITS = Limits(message_bytes=MAX_COMMAND_BYTES, receive_queue=QUEUE, send_queue=QUEUE)

SAYS: Mapping[Role, tuple[type[FromWorker], ...]] = {
    "worker": (Hello, ResetDone, Findings),
    "scout": (Hello, ResetDone, Listing, Stirred, Findings),
    "scribe": (Hello, ResetDone, Written, Findings),
}
"""What each role may say. All speak of themselves; of a resource's devices its scout alone, of files the scribe alone:
a worker that was taken over must not unplug its neighbours with a list of its own."""

_FRAMES = 1


@dataclass(frozen=True, slots=True)
class Received:
    """One message from a worker. ``identity`` is the front's own word on its sender, "" when nobody vouches for it.

    ``message`` is None when it is none of them; ``error`` then says why.
    """

    identity: str
    message: FromWorker | None
    error: str


class CommandServer:
    """The front's end. See ``devd.ipc.sockets`` for how ``fd``, ``drain`` and ``pending`` go together."""

    def __init__(self, context: Context, path: Path, role: Role, zap_domain: bytes = b"command") -> None:
        """Bind; what is not for this role to say arrives as an error.

        An empty ``zap_domain`` takes anyone the file's mode lets through, without identity. Raises EndpointError when
        the path cannot be used.
        """
        self._expected = SAYS[role]
        self._bound = BoundSocket(context, zmq.PAIR, path, LIMITS, frames=_FRAMES, zap_domain=zap_domain)
        self.fd: int = self._bound.fd

    def send(self, message: ToWorker) -> bool:
        """Send a command; False when no worker is connected yet or its queue is full. Never waits.

        May swallow the descriptor's wake-up for a message that arrives at the same time: ask ``pending`` after it.
        """
        return self._bound.send(codec.encode(message))

    def drain(self, limit: int = 64) -> list[Received]:
        """Return what has arrived, at most ``limit`` messages; then ask ``pending``. Never waits, never raises."""
        return [_received(arrived, self._expected) for arrived in self._bound.read(limit)]

    def pending(self) -> bool:
        """Return whether more waits; the descriptor tells only once."""
        return self._bound.pending()

    def close(self) -> None:
        """Close and remove the socket's file. Safe to call twice."""
        self._bound.close()


class CommandClient:
    """A worker's end. Put ``socket`` into a ``zmq.Poller`` for POLLIN, then ``receive`` until it returns None."""

    def __init__(self, context: Context, endpoint: str, *, queue_early: bool = True) -> None:
        """Connect to the front's ``ipc://`` endpoint; returns at once, whether or not anyone is there.

        Without ``queue_early`` nothing is taken before the connection stands; ``wait_connected`` tells when it does.
        """
        self.socket = context.socket(zmq.PAIR)
        self.socket.linger = 0
        self.socket.sndtimeo = 0
        self.socket.sndhwm = QUEUE
        self.socket.rcvhwm = QUEUE
        self.socket.maxmsgsize = MAX_COMMAND_BYTES
        self.socket.immediate = int(not queue_early)
        self.socket.connect(endpoint)

    def wait_connected(self, timeout_s: float) -> bool:
        """Wait until the front has taken this process in; False when it did not within ``timeout_s``."""
        return bool(self.socket.poll(math.ceil(timeout_s * 1000), zmq.POLLOUT))

    def send(self, message: FromWorker) -> bool:
        """Send a message; False when the front does not read and the queue is full, or the message is too large.

        Never waits. A True means queued: before the connection stands, up to QUEUE messages are kept for it, if any.
        """
        payload = codec.encode(message)
        if len(payload) > MAX_COMMAND_BYTES:
            return False
        try:
            self.socket.send(payload, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def receive(self) -> ToWorker | None:
        """Return the next command, None when none waits. Never waits.

        Raises ProtocolError when the front sent something else; the next call goes on with the next message.
        """
        try:
            frames = self.socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None
        if len(frames) != _FRAMES:
            raise ProtocolError(f"message of {len(frames)} frames: {_FRAMES} are needed")
        return codec.decode(frames[0], ProbeNow, Reset, Inject, Stop, WriteSpecs)

    def close(self) -> None:
        """Drop what is not sent and close. Safe to call twice."""
        self.socket.close(linger=0)


def _received(arrived: Arrived, expected: tuple[type[FromWorker], ...]) -> Received:
    if arrived.error:
        return Received(arrived.identity, None, arrived.error)
    try:
        return Received(arrived.identity, codec.decode(arrived.frames[0], *expected), "")
    except ProtocolError as error:
        return Received(arrived.identity, None, str(error))
