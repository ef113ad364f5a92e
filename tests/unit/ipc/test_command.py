"""Command channels between real processes."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest
import zmq

from devd.ipc import codec, command
from devd.ipc.command import CommandClient
from devd.ipc.endpoints import ipc_address
from devd.ipc.errors import ProtocolError
from devd.ipc.messages import (
    Device,
    Findings,
    FromWorker,
    Health,
    Hello,
    Listing,
    ProbeNow,
    Reset,
    ResetDone,
    Role,
    Sandbox,
    Stop,
    Written,
)

if TYPE_CHECKING:
    from tests.unit.ipc.conftest import Front

LONGEST_SEND_S = 1.0
"""Far above the 0.1 ms a send takes, far below any wait of libzmq's: only a send that blocks is over it."""


HEALTH = Health("gpu-1", 1, 1, "pass", "", 1, "open", 1.0, 0.1, "", 0.0)


def test_a_worker_is_told_and_answers(front: Front) -> None:
    """Hello comes first, a reset is answered under its id, a stop ends the worker; each under the front's word."""
    channel = front.channel(1, b"command:gpu-1")
    assert not channel.send(ProbeNow()), "nobody is connected yet"
    worker = front.peer("command", front.layout.command(1), "gpu-1", admit="gpu-1")
    [got] = front.collect(channel, lambda got: len(got) >= 1)
    assert isinstance(got.message, Hello)
    assert (got.identity, got.message.pid) == ("gpu-1", worker.pid)
    assert channel.send(ProbeNow())
    assert channel.send(Reset(7, 20.0))
    [got] = front.collect(channel, lambda got: len(got) >= 1)
    assert isinstance(got.message, ResetDone)
    assert (got.message.reset_id, got.message.health.device) == (7, "gpu-1")
    assert channel.send(Stop())
    assert front.hear(worker) == {"hello": True}
    assert front.hear(worker) == {"left": "Stop"}


def test_sending_to_a_stopped_worker_never_blocks(front: Front) -> None:
    """A SIGSTOPped worker's channel takes what fits and then says False, each time at once."""
    channel = front.channel(1)
    worker = front.peer("command", front.layout.command(1), "gpu-1", admit="gpu-1")
    front.collect(channel, lambda got: len(got) >= 1)
    os.kill(worker.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, worker.pid, os.WSTOPPED | os.WNOWAIT)
    longest_s, sent = 0.0, 0
    deadline_s = time.monotonic() + 10
    full = False
    while not full:
        assert time.monotonic() < deadline_s
        begun_s = time.monotonic()
        taken = channel.send(Reset(sent, 20.0))
        longest_s = max(longest_s, time.monotonic() - begun_s)
        sent += taken
        # libzmq's own thread may still be moving messages into the kernel's buffer: full is full only when it stays.
        full = not taken and not front.later(lambda: channel.send(ProbeNow()), 0.05)
    assert longest_s < LONGEST_SEND_S
    assert command.QUEUE <= sent < 20_000
    os.kill(worker.pid, signal.SIGCONT)


def test_odd_messages_are_errors_with_a_name(front: Front) -> None:
    """Garbage, another version, wrong frame counts and the front's own messages arrive as errors, in order."""
    channel = front.channel(1)
    peer = front.peer("raw", front.layout.command(1), "pair", admit="gpu-1")
    good = Listing("devd.io/x", 1, 1, (Device("gpu-1"),))
    frame = codec.encode(good)
    oddities = {
        "not msgpack": [b""],
        "not a frame": [b"\x01"],
        "protocol version 9: this side speaks 1": [b"\x93\x09" + frame[2:]],
        "message 'Stop': expected Hello, ResetDone, Listing": [codec.encode(Stop())],
        "message of 2 frames: 1 are needed": [frame, frame],
    }
    for frames in oddities.values():
        peer.order([one.hex() for one in frames])
    peer.order([frame.hex()])
    got = front.collect(channel, lambda got: len(got) > len(oddities))
    for wanted, one in zip(oddities, got, strict=False):
        assert one.message is None
        assert wanted in one.error
    assert (got[-1].identity, got[-1].message, got[-1].error) == ("gpu-1", good, "")


SPOKEN: dict[str, FromWorker] = {
    "Hello": Hello("gpu-1", 1, 1, Sandbox("basic")),
    "ResetDone": ResetDone("gpu-1", 1, 1, ok=False, reason="", duration_s=0.0, health=HEALTH),
    "Findings": Findings("gpu-1", 1, (), (), {}, {}),
    "Listing": Listing("devd.io/x", 1, 1, ()),
    "Written": Written("gpu-1", 1, (), (), ()),
}


@pytest.mark.parametrize(
    ("role", "others"), [("worker", {"Listing", "Written"}), ("scout", {"Written"}), ("scribe", {"Listing"})]
)
def test_nobody_speaks_in_anothers_role(front: Front, role: Role, others: set[str]) -> None:
    """A list of devices is the scout's alone to send, and word of files the scribe's; the channel is the role's."""
    channel = front.channel(1, b"", role)
    client = front.owned(CommandClient(front.context, ipc_address(front.layout.command(1))))
    for message in SPOKEN.values():
        assert client.send(message)
    got = front.collect(channel, lambda got: len(got) >= len(SPOKEN))
    for name, one in zip(SPOKEN, got, strict=True):
        assert (one.message is None) == (name in others)
        assert one.error.startswith(f"message '{name}': expected Hello, ResetDone" if name in others else "")
        assert bool(one.error) == (name in others)


def test_second_peer_of_an_unguarded_channel_gets_nothing(front: Front) -> None:
    """A PAIR takes one peer: a second process that connects can neither hear nor speak."""
    channel = front.channel(1, b"")
    owner = front.peer("command", front.layout.command(1), "gpu-1")
    front.collect(channel, lambda got: len(got) >= 1)
    thief = front.peer("command", front.layout.command(1), "gpu-1")
    assert front.hear(thief) == {"hello": True}
    assert channel.send(Reset(1, 1.0))
    [got] = front.collect(channel, lambda got: len(got) >= 1)
    assert isinstance(got.message, ResetDone)
    assert channel.send(Stop())
    assert front.hear(owner) == {"hello": True}
    assert front.hear(owner) == {"left": "Stop"}
    assert not thief.said()


def test_worker_gets_a_protocol_error_for_garbage_and_goes_on(front: Front) -> None:
    """The worker's end raises ProtocolError for a wrong message, returns the next good one, then None."""
    path = front.layout.command(1)
    front_end = front.owned(front.context.socket(zmq.PAIR))
    front_end.bind(ipc_address(path))
    client = front.owned(CommandClient(front.context, ipc_address(path)))
    assert client.receive() is None
    front_end.send(b"garbage")
    front_end.send_multipart([codec.encode(Stop()), b""])
    front_end.send(codec.encode(Health("gpu-1", 1, 1, "pass", "", 1, "open", 1.0, 0.1, "", 0.0)))
    front_end.send(codec.encode(Reset(3, 1.0)))
    for wanted in ("not msgpack|not a frame", "message of 2 frames", "message 'Health'"):
        assert client.socket.poll(5000)
        with pytest.raises(ProtocolError, match=wanted):
            client.receive()
    assert client.socket.poll(5000)
    assert client.receive() == Reset(3, 1.0)
    assert client.receive() is None
    path.unlink(missing_ok=True)


def test_worker_never_blocks_on_a_front_that_is_not_there(front: Front) -> None:
    """Without a front a worker's sends are kept up to the queue's length and then refused, none of them waiting."""
    client = front.owned(CommandClient(front.context, ipc_address(front.layout.command(1))))
    listing = Listing("devd.io/x", 1, 1, ())
    begun_s = time.monotonic()
    taken = [client.send(listing) for _ in range(command.QUEUE + 5)]
    assert time.monotonic() - begun_s < LONGEST_SEND_S
    assert taken == [True] * command.QUEUE + [False] * 5


def test_oversized_listing_is_refused_at_home(front: Front) -> None:
    """A listing over 4 MiB is not sent, for it would cost the scout its connection; one below arrives."""
    channel = front.channel(1, b"")
    client = front.owned(CommandClient(front.context, ipc_address(front.layout.command(1))))
    assert not client.send(Listing("devd.io/x", 1, 1, (), ("x" * command.MAX_COMMAND_BYTES,)))
    near = Listing("devd.io/x", 1, 2, (), ("x" * (command.MAX_COMMAND_BYTES - 1000),))
    assert client.send(near)
    [got] = front.collect(channel, lambda got: len(got) >= 1)
    assert got.message == near


def test_a_drain_of_the_largest_messages_ends_early(front: Front) -> None:
    """Twelve listings of 1 MB come in slices of little more than 4 MiB each, so that no drain holds the loop."""
    channel = front.channel(1, b"")
    client = front.owned(CommandClient(front.context, ipc_address(front.layout.command(1))))
    frames = [Listing("devd.io/x", 1, seq, (), ("x" * 1_000_000,)) for seq in range(12)]
    for one in frames:
        assert client.send(one)
    sizes: list[int] = []

    def all_there() -> bool:
        sizes.append(len(channel.drain(64)))
        return sum(sizes) == len(frames)

    # Time for all of them to reach the front's side, where one drain could take them all; without it less is tested.
    front.later(lambda: False, 0.5)
    front.pump(all_there)
    assert max(sizes) <= 5


def test_pending_finds_what_a_send_hid(front: Front) -> None:
    """After a send swallowed the wake-up, pending still tells that an answer waits."""
    channel = front.channel(1)
    front.peer("command", front.layout.command(1), "gpu-1", admit="gpu-1")
    front.collect(channel, lambda got: len(got) >= 1)
    assert channel.send(Reset(1, 1.0))

    def waits() -> bool:
        channel.send(ProbeNow())
        return channel.pending()

    front.pump(waits)
    assert isinstance(channel.drain()[0].message, ResetDone)


def test_socket_file_is_gone_at_close(front: Front) -> None:
    """Closing a channel removes its file at once, so that the number can be used again."""
    for _ in range(3):
        channel = front.channel(1)
        assert front.layout.command(1).stat().st_mode & 0o777 == 0o600
        front.forget(channel)
        channel.close()
        assert not front.layout.command(1).exists()
