"""What a worker that was taken over might send. Simulated devices do it on order, so that the front can be tried.

Each is sent on the worker's own connection, past everything that keeps an honest worker from sending it.
"""

import os
import resource
import select
import stat
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NoReturn

from devd.ipc import codec
from devd.ipc.health import topic_of
from devd.ipc.messages import Device, Findings, Health, Listing, Written
from devd.workers.channel import Channel

HUGE_BYTES = 100 * 1024 * 1024
HOARD_BYTES = 1024 * 1024
CHATTER = 100_000
SOMEBODY_ELSE = "somebody-else"
FAR = 2**62
"""A sequence number no honest worker reaches."""
GARBAGE = b"\xc1\xff\x00 this is no message"

MORE_SHORT, MORE_LONG = b"\x01", b"\x03"
"""ZMTP 3's flags of a frame that another one follows; its length comes in one byte or in eight."""
LARGE_BYTES = 60_000
"""As large as a frame on the health bus may be, nearly."""
CHUNK_BYTES = 128 * 1024
SENT_WITHIN_S = 0.2
COMMAND_CONNECTION, HEALTH_CONNECTION = 0, 1

Frames = Sequence[bytes]


class Misdeed(Exception):  # noqa: N818 - it is an order, not a fault of the code
    """Raised by a simulated probe to have its worker break the protocol."""

    def __init__(self, how: str, whom: str) -> None:
        super().__init__(how)
        self.how = how
        self.whom = whom


def commit(misdeed: Misdeed, channel: Channel, state: Health) -> None:
    """Send what a misdeed says; ``state`` is the worker's true one, ``whom`` the device it is to be told of."""
    if misdeed.how in _ON_THE_COMMAND_CHANNEL:
        _ON_THE_COMMAND_CHANNEL[misdeed.how](state, channel)
    else:
        channel.send_raw(_DEEDS[misdeed.how](state, misdeed.whom or SOMEBODY_ELSE))


def _chatter(state: Health, channel: Channel) -> None:
    """Say one thing after the other, as fast as they are taken."""
    for number in range(CHATTER):
        channel.send(Findings(state.device, state.incarnation, (), (), {"count": str(number)}, {}))
        while not channel.flush():
            time.sleep(0.001)


def _hoard(state: Health, channel: Channel) -> None:
    """Leave the next worker more than is kept."""
    channel.send(Findings(state.device, state.incarnation, (), (), {}, {"hoard": "x" * HOARD_BYTES}))


def _unplug(state: Health, channel: Channel) -> None:
    """List the resource's devices as if it were its scout: its neighbours are gone, and there is one that is not."""
    devices = (Device(state.device), Device(SOMEBODY_ELSE))
    channel.send(Listing(channel.resource, state.incarnation, 1, devices))


def _write(state: Health, channel: Channel) -> None:
    """Say that all specifications stand as they should, as if it were the scribe."""
    channel.send(Written(state.device, state.incarnation, (), (), ()))


def _endless(frame: bytes, number: int) -> Callable[[Health, Channel], NoReturn]:
    """Return the deed of sending one message without end, past libzmq: it keeps all frames until the last one comes.

    ``number`` says on which of the worker's connections, in the order they were made.
    """

    def deed(_state: Health, _channel: Channel) -> NoReturn:
        fd = _sockets()[number]
        # What libzmq's own thread has yet to send would come in between, and end the message.
        time.sleep(SENT_WITHIN_S)
        # Whole frames: half of one, and the next would be taken for its rest.
        stream = memoryview(frame * (CHUNK_BYTES // len(frame) + 1))
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        sent = 0
        while True:
            poll.poll()
            with suppress(BlockingIOError):
                sent = (sent + os.write(fd, stream[sent:])) % len(stream)

    return deed


def _sockets() -> list[int]:
    """Return this process's sockets: a worker has its connections to the front, and no others."""
    found = []
    for fd in range(resource.getrlimit(resource.RLIMIT_NOFILE)[0]):
        with suppress(OSError):
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                found.append(fd)
    return found


def _framed(health: Health) -> Frames:
    return topic_of(health.device), codec.encode(health)


def _garbage(state: Health, _whom: str) -> Frames:
    return topic_of(state.device), GARBAGE


def _truncated(state: Health, _whom: str) -> Frames:
    topic, payload = _framed(state)
    return topic, payload[: len(payload) // 2]


def _huge(state: Health, _whom: str) -> Frames:
    return topic_of(state.device), bytes(HUGE_BYTES)


def _wrong_version(state: Health, _whom: str) -> Frames:
    topic, payload = _framed(state)
    # The frame is a list of three that begins with the version, a small number of one byte.
    return topic, payload[:1] + bytes([payload[1] + 1]) + payload[2:]


def _extra_frames(state: Health, _whom: str) -> Frames:
    return (*_framed(state), b"more", b"and more")


def _spoof(state: Health, whom: str) -> Frames:
    return _framed(replace(state, device=whom, verdict="fail", reason="a lie", seq=FAR))


def _stale(state: Health, _whom: str) -> Frames:
    return _framed(replace(state, incarnation=max(0, state.incarnation - 1), verdict="fail", reason="a lie", seq=FAR))


def _next(state: Health, _whom: str) -> Frames:
    return _framed(replace(state, incarnation=state.incarnation + 1, verdict="fail", reason="a lie"))


def _future(state: Health, _whom: str) -> Frames:
    return _framed(replace(state, seq=FAR))


_DEEDS: dict[str, Callable[[Health, str], Frames]] = {
    "garbage": _garbage,
    "truncated": _truncated,
    "huge": _huge,
    "wrong-version": _wrong_version,
    "extra-frames": _extra_frames,
    "spoof": _spoof,
    "stale": _stale,
    "next": _next,
    "future": _future,
}
_ON_THE_COMMAND_CHANNEL: dict[str, Callable[[Health, Channel], None]] = {
    "chatter": _chatter,
    "hoard": _hoard,
    "unplug": _unplug,
    "write": _write,
    "endless": _endless(MORE_LONG + LARGE_BYTES.to_bytes(8, "big") + bytes(LARGE_BYTES), HEALTH_CONNECTION),
    "endless-small": _endless(MORE_SHORT + b"\0", COMMAND_CONNECTION),
}
HOWS = (*_DEEDS, *_ON_THE_COMMAND_CHANNEL)
