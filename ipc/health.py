"""The health bus: workers publish their state, the front receives all of it. Lossy on purpose, never blocking.

A message is two frames: topic and payload. The topic is the device id and a NUL, because ZeroMQ matches topics by
prefix: without an end mark a subscription to ``gpu-1`` would also get ``gpu-10``.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import zmq

from devd.ipc import codec
from devd.ipc.errors import ProtocolError
from devd.ipc.messages import Health
from devd.ipc.sockets import Arrived, BoundSocket, Context, Limits

MAX_HEALTH_BYTES = 64 * 1024
"""A health message is some 300 bytes; what is larger than this holds a reason that no one will read."""
PUBLISH_QUEUE = 16
"""Messages a worker keeps for a front that does not read: each is the full state, so old ones are worth nothing. The
kernel's socket buffer holds some 200 more."""
RECEIVE_QUEUE = 64
"""Messages kept for each worker: at two a probe and the shortest period of 50 ms, 1.6 s of a front that is away. Bounds
what one worker can make the front keep to 4 MiB (64 times 64 KiB)."""
LIMITS = Limits(message_bytes=MAX_HEALTH_BYTES, receive_queue=RECEIVE_QUEUE, send_queue=1)

_FRAMES = 2
_SUBSCRIBED = 1


def topic_of(device: str) -> bytes:
    """Return a device's topic frame."""
    return device.encode() + b"\0"


@dataclass(frozen=True, slots=True)
class Received:
    """One message off the bus. ``identity`` is the front's own word on its sender, "" when nobody vouches for it.

    ``message`` is None when it is no valid Health; ``error`` then says why. Whether the message speaks of the device
    its sender may speak for is the receiver's question: both are here.
    """

    identity: str
    message: Health | None
    error: str


class HealthPublisher:
    """A worker's end. XPUB, because it can wait for the front's subscription: what PUB sends before that is lost."""

    def __init__(self, context: Context, endpoint: str) -> None:
        """Connect to the front's ``ipc://`` endpoint; returns at once, whether or not anyone is there."""
        self._subscriptions = 0
        self._socket = context.socket(zmq.XPUB)
        self._socket.linger = 0
        self._socket.sndtimeo = 0
        self._socket.sndhwm = PUBLISH_QUEUE
        self._socket.maxmsgsize = MAX_HEALTH_BYTES
        # A full queue shows as a refused send instead of a silent drop.
        self._socket.setsockopt(zmq.XPUB_NODROP, 1)
        self._socket.connect(endpoint)

    def wait_subscribed(self, timeout_s: float) -> bool:
        """Wait until the front listens; False when it did not within ``timeout_s`` (or refused this process)."""
        deadline_s = time.monotonic() + timeout_s
        while not self._subscribed():
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                return False
            self._socket.poll(max(1, int(left_s * 1000)), zmq.POLLIN)
        return True

    def publish(self, health: Health) -> bool:
        """Send the state. False when it was dropped: nobody listens, the queue is full, or it is too large.

        Never waits. The next message holds the full state again.
        """
        payload = codec.encode(health)
        if len(payload) > MAX_HEALTH_BYTES or not self._subscribed():
            return False
        try:
            self._socket.send_multipart([topic_of(health.device), payload], zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def send_raw(self, frames: Sequence[bytes]) -> None:
        """Send frames as they are, if the queue takes them: what a worker that was taken over could do."""
        with suppress(zmq.Again):
            self._socket.send_multipart(list(frames), zmq.NOBLOCK)

    def close(self) -> None:
        """Drop what is not sent and close. Safe to call twice."""
        self._socket.close(linger=0)

    def _subscribed(self) -> bool:
        """Take in subscriptions and their ends; return whether one is left."""
        while True:
            try:
                note = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return self._subscriptions > 0
            self._subscriptions += 1 if note[:1] == bytes([_SUBSCRIBED]) else -1


class HealthSubscriber:
    """The front's end. See ``devd.ipc.sockets`` for how ``fd``, ``drain`` and ``pending`` go together."""

    def __init__(self, context: Context, path: Path, zap_domain: bytes = b"health") -> None:
        """Bind. An empty ``zap_domain`` takes anyone the file's mode lets through, without identity.

        Raises EndpointError when the path cannot be used.
        """
        self._bound = BoundSocket(context, zmq.SUB, path, LIMITS, frames=_FRAMES, zap_domain=zap_domain)
        self.fd: int = self._bound.fd

    def drain(self, limit: int = 256) -> list[Received]:
        """Return what has arrived, at most ``limit`` messages; then ask ``pending``. Never waits, never raises."""
        return [_received(arrived) for arrived in self._bound.read(limit)]

    def pending(self) -> bool:
        """Return whether more waits; the descriptor tells only once."""
        return self._bound.pending()

    def close(self) -> None:
        """Close and remove the socket's file. Safe to call twice."""
        self._bound.close()


def _received(arrived: Arrived) -> Received:
    if arrived.error:
        return Received(arrived.identity, None, arrived.error)
    topic, payload = arrived.frames
    try:
        message = codec.decode(payload, Health)
    except ProtocolError as error:
        return Received(arrived.identity, None, str(error))
    if topic != topic_of(message.device):
        return Received(arrived.identity, None, f"topic {topic!r:.80} is not that of device {message.device!r:.80}")
    return Received(arrived.identity, message, "")
