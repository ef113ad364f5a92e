"""The health bus between real processes."""

from __future__ import annotations

import os
import stat
import time
from typing import TYPE_CHECKING

import pytest
import zmq

from devd.ipc import codec, health
from devd.ipc.endpoints import ipc_address
from devd.ipc.health import HealthPublisher, Received, topic_of
from devd.ipc.messages import Health, Stop

if TYPE_CHECKING:
    from tests.unit.ipc.conftest import Front


def report(device: str = "gpu-1", seq: int = 1, reason: str = "") -> Health:
    return Health(device, 1, seq, "pass", reason, seq, "open", 1.5, 0.25, "", 0.0)


def rss_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123 - one line of a kernel file
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_reports_arrive_whole_in_order_and_with_the_kernels_word(front: Front) -> None:
    """500 reports of an admitted process arrive complete, in order, each with the identity the front gave it."""
    bus = front.bus()
    front.peer("publish", front.layout.health, "gpu-1", "500", admit="gpu-1")
    got = front.collect(bus, lambda got: len(got) >= 500)
    assert [one.message.seq for one in got if one.message] == list(range(500))
    assert {(one.identity, one.error) for one in got} == {("gpu-1", "")}


def test_identity_is_the_fronts_word_not_the_messages(front: Front) -> None:
    """A worker that speaks for another device still arrives under its own identity, with the message as it is."""
    bus = front.bus()
    front.peer("publish", front.layout.health, "gpu-2", "1", admit="gpu-1")
    [got] = front.collect(bus, lambda got: len(got) >= 1)
    assert got.identity == "gpu-1"
    assert got.message is not None
    assert got.message.device == "gpu-2"


def test_first_report_is_never_lost(front: Front) -> None:
    """Of 100 fresh connections that send one report each, 100 reports arrive."""
    bus = front.bus(zap_domain=b"")
    front.peer("first", front.layout.health, "gpu-1", "100")
    got = front.collect(bus, lambda got: len(got) >= 100)
    assert sorted(one.message.seq for one in got if one.message) == list(range(100))
    assert {one.identity for one in got} == {""}


def test_worker_waits_no_longer_than_told_for_a_front_that_is_not_there(front: Front) -> None:
    """Without a front wait_subscribed gives up at its deadline and publish says that nobody listens."""
    publisher = front.owned(HealthPublisher(front.context, ipc_address(front.layout.health)))
    begun_s = time.monotonic()
    assert not publisher.wait_subscribed(0.2)
    assert 0.15 < time.monotonic() - begun_s < 2
    assert not publisher.publish(report())


def test_publish_says_when_the_front_went_away(front: Front) -> None:
    """After the front closed its end a publish is refused instead of vanishing."""
    bus = front.bus(zap_domain=b"")
    publisher = front.owned(HealthPublisher(front.context, ipc_address(front.layout.health)))
    front.pump(lambda: publisher.wait_subscribed(0.01))
    assert publisher.publish(report())
    front.forget(bus)
    bus.close()
    front.pump(lambda: not publisher.publish(report()))


def test_oversized_report_is_refused_at_home(front: Front) -> None:
    """A report over the bus's limit is not sent, for it would cost its sender the connection."""
    bus = front.bus(zap_domain=b"")
    publisher = front.owned(HealthPublisher(front.context, ipc_address(front.layout.health)))
    front.pump(lambda: publisher.wait_subscribed(0.01))
    assert not publisher.publish(report(reason="x" * health.MAX_HEALTH_BYTES))
    assert publisher.publish(report(seq=2))
    [got] = front.collect(bus, lambda got: len(got) >= 1)
    assert got.message == report(seq=2)


VALID = codec.encode(report())
ODDITIES = {
    "empty payload": ([topic_of("gpu-1"), b""], "not msgpack"),
    "garbage": ([topic_of("gpu-1"), b"\xc1" * 100], "not msgpack"),
    "truncated": ([topic_of("gpu-1"), VALID[:-3]], "not msgpack"),
    "another version": ([topic_of("gpu-1"), b"\x93\x02" + VALID[2:]], "protocol version 2: this side speaks 1"),
    "another message": ([topic_of("gpu-1"), codec.encode(Stop())], "message 'Stop': expected Health"),
    "one frame": ([VALID], "message of 1 frames: 2 are needed"),
    "three frames": ([topic_of("gpu-1"), VALID, b""], "message of 3 frames: 2 are needed"),
    "a thousand frames": ([b"x"] * 1000, "message of 1000 frames: 2 are needed"),
    "topic without its end": ([b"gpu-1", VALID], "topic b'gpu-1' is not that of device 'gpu-1'"),
    "another's topic": ([topic_of("gpu-10"), VALID], "is not that of device 'gpu-1'"),
}


def test_whatever_a_worker_sends_is_an_error_with_a_name(front: Front) -> None:
    """Each kind of odd message arrives as an error under its sender's identity, and a good one after all of them."""
    bus = front.bus()
    peer = front.peer("raw", front.layout.health, "xpub", admit="gpu-1")
    assert front.hear(peer)["subscribed"]
    for frames, _ in ODDITIES.values():
        peer.order([frame.hex() for frame in frames])
    peer.order([topic_of("gpu-1").hex(), VALID.hex()])
    got = front.collect(bus, lambda got: len(got) > len(ODDITIES))
    for (name, (_, wanted)), one in zip(ODDITIES.items(), got, strict=False):
        assert one.message is None, name
        assert wanted in one.error, name
        assert one.identity == "gpu-1", name
    assert got[-1] == Received("gpu-1", report(), "")


def test_huge_frame_costs_its_sender_the_connection_and_nobody_else_anything(front: Front) -> None:
    """A frame of 100 MB is not taken in: the front's memory stays, and another worker's reports go on arriving."""
    bus = front.bus()
    bad = front.peer("raw", front.layout.health, "xpub", admit="bad")
    assert front.hear(bad)["subscribed"]
    before = rss_bytes()
    bad.order(100_000_000)
    front.pump(lambda: front.auth.refused.get("second connection", 0) >= 1)
    front.peer("publish", front.layout.health, "gpu-1", "50", admit="gpu-1")
    got = front.collect(bus, lambda got: len(got) >= 50)
    assert {one.identity for one in got} == {"gpu-1"}
    assert rss_bytes() - before < 32 * 1024 * 1024


def test_flood_is_bounded_and_leaves_room_for_others(front: Front) -> None:
    """A worker that floods with the largest reports fills its own queue only; another's reports come between."""
    bus = front.bus()
    before = rss_bytes()
    bad = front.peer("flood", front.layout.health, "bad", admit="bad")
    fitted = front.hear(bad)["fitted"]
    # Its own queue, the front's queue for it, and what the kernel's socket buffer and libzmq's batches hold.
    assert fitted <= health.PUBLISH_QUEUE + health.RECEIVE_QUEUE + 32
    assert rss_bytes() - before < 32 * 1024 * 1024
    front.peer("publish", front.layout.health, "gpu-1", "100", admit="gpu-1")

    def of(identity: str, got: list[Received]) -> int:
        return sum(one.identity == identity for one in got)

    got: list[Received] = []

    def enough() -> bool:
        got.extend(bus.drain(32))
        return of("gpu-1", got) >= 100

    front.pump(enough)
    assert of("bad", got) > 0
    assert rss_bytes() - before < 64 * 1024 * 1024


def test_drain_keeps_to_its_limit_and_pending_tells_of_the_rest(front: Front) -> None:
    """A drain that stops at its limit leaves the rest for the next; pending says so though the descriptor is silent."""
    bus = front.bus(zap_domain=b"")
    front.peer("publish", front.layout.health, "gpu-1", "40")
    front.pump(bus.pending)
    sizes = []
    total: list[Received] = []

    def all_there() -> bool:
        part = bus.drain(1)
        sizes.append(len(part))
        total.extend(part)
        return len(total) >= 40

    front.pump(all_there)
    assert max(sizes) == 1
    assert not bus.pending()
    assert bus.drain() == []


def test_a_long_message_is_thrown_away_in_slices(front: Front) -> None:
    """A message of 5,000 frames never makes one drain read more than four frames for each message asked for."""
    bus = front.bus(zap_domain=b"")
    peer = front.peer("raw", front.layout.health, "xpub")
    assert front.hear(peer)["subscribed"]
    peer.order(["00"] * 5000)
    front.pump(bus.pending)
    drains = 0
    got: list[Received] = []
    while not got:
        assert bus.pending()
        got = bus.drain(100)
        drains += 1
        assert len(bus._bound._partial) <= 2, "frames beyond a message's own are kept"
    assert got == [Received("", None, "message of 5000 frames: 2 are needed")]
    assert drains == 5000 // 400 + 1


def test_topics_of_similar_names_do_not_match_each_other(front: Front) -> None:
    """A plain subscription to gpu-1's topic gets gpu-1's reports and none of gpu-10's."""
    path = front.layout.health
    subscriber = front.owned(front.context.socket(zmq.SUB))
    subscriber.subscribe(topic_of("gpu-1"))
    subscriber.bind(ipc_address(path))
    publisher = front.owned(HealthPublisher(front.context, ipc_address(path)))
    # Asking for its events lets the plain socket take the connection in.
    front.pump(lambda: (subscriber.getsockopt(zmq.EVENTS), publisher.wait_subscribed(0.01))[1])
    for device in ("gpu-10", "gpu-1", "gpu-11"):
        publisher.publish(report(device))
    # The last one shows that the others had their turn.
    publisher.publish(report("gpu-1", seq=2))
    got = [codec.decode(subscriber.recv_multipart()[1], Health) for _ in range(2)]
    assert got == [report("gpu-1"), report("gpu-1", seq=2)]
    path.unlink(missing_ok=True)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_socket_file_is_private_from_birth_and_gone_at_close(front: Front, umask: int) -> None:
    """The bus's file has mode 0600 under any umask, the umask stays, and close removes the file at once."""
    old = os.umask(umask)
    try:
        bus = front.bus()
        assert os.umask(umask) == umask
    finally:
        os.umask(old)
    assert stat.S_IMODE(front.layout.health.stat().st_mode) == 0o600
    bus.close()
    assert not front.layout.health.exists()
    bus.close()


def test_close_leaves_a_file_that_is_not_its_own(front: Front) -> None:
    """When another process made its own socket at the path meanwhile, close does not remove that one."""
    bus = front.bus()
    front.layout.health.unlink()
    front.layout.health.touch()
    bus.close()
    assert front.layout.health.exists()
    front.layout.health.unlink()
