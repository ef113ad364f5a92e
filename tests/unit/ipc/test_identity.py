"""Who gets in, by the kernel's word: real processes with real pids.

A refused peer whose libzmq sees the connection end before it has read the refusal tries again, and each try counts:
so a peer that was refused is known by its reason alone, and counts are compared where the test itself does the asking.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import zmq

from devd.ipc import codec
from devd.ipc.endpoints import ipc_address
from devd.ipc.errors import EndpointError
from devd.ipc.health import HealthPublisher, HealthSubscriber
from devd.ipc.identity import Caller, PeerAuthenticator
from devd.ipc.messages import ControlRequest

if TYPE_CHECKING:
    from pathlib import Path

    from devd.ipc.control import Asked
    from tests.unit.ipc.conftest import Front


def test_stranger_is_refused_with_400_and_counted(front: Front) -> None:
    """A process that was not admitted gets 400, is counted under its reason, and no frame of it arrives."""
    bus = front.bus()
    stranger = front.peer("refused", front.layout.health, "xpub")
    assert front.hear(stranger) == {"event": "HANDSHAKE_FAILED_AUTH", "value": 400}
    assert set(front.auth.refused) == {"unknown process"}
    assert bus.drain() == []


def test_revoked_process_cannot_come_back(front: Front) -> None:
    """A pid whose process ended is a stranger again: whoever gets the number next inherits nothing."""
    front.bus()
    front.auth.admit(1, "gpu-1")
    front.auth.revoke(1)
    front.auth.revoke(1)
    peer = front.peer("refused", front.layout.health, "xpub")
    front.auth.admit(peer.pid, "gpu-2")
    front.auth.revoke(peer.pid)
    assert front.hear(peer)["value"] == 400


def test_second_connection_of_a_process_is_refused(front: Front) -> None:
    """A process that is connected gets no second connection to the same bus; its first one goes on working."""
    bus = front.bus()
    peer = front.peer("twice", front.layout.health, "gpu-1", admit="gpu-1")
    assert front.hear(peer) == {"subscribed": True}
    assert front.hear(peer) == {"subscribed": False}
    assert set(front.auth.refused) == {"second connection"}
    got = front.collect(bus, lambda got: len(got) >= 1)
    assert [one.identity for one in got] == ["gpu-1"]


def test_admitting_a_pid_again_gives_it_a_connection_again(front: Front) -> None:
    """A recycled pid, admitted for another device, connects under the new identity and not the old one."""
    bus = front.bus()
    peer = front.peer("publish", front.layout.health, "gpu-2", "1")
    front.auth.admit(peer.pid, "gpu-1")
    front.auth.revoke(peer.pid)
    front.auth.admit(peer.pid, "gpu-2")
    [got] = front.collect(bus, lambda got: len(got) >= 1)
    assert got.identity == "gpu-2"


def test_channel_of_another_device_is_closed_to_a_worker(front: Front) -> None:
    """An admitted worker that connects to another device's command channel is refused, and its owner gets in."""
    channel = front.channel(1, b"command:gpu-1")
    thief = front.peer("refused", front.layout.command(1), "pair", admit="gpu-2")
    assert front.hear(thief)["value"] == 400
    assert set(front.auth.refused) == {"another's channel"}
    front.peer("command", front.layout.command(1), "gpu-1", admit="gpu-1")
    [got] = front.collect(channel, lambda got: len(got) >= 1)
    assert got.identity == "gpu-1"


def test_control_socket_takes_callers_as_often_as_they_come(front: Front) -> None:
    """Who is no worker gets in again and again, and is known by the kernel's word: uid, gid and pid."""
    server = front.control()
    with front.context.socket(zmq.DEALER) as first, front.context.socket(zmq.DEALER) as second:
        for client in (first, second):
            client.linger = 0
            client.connect(ipc_address(front.layout.control))
            client.send(codec.encode(ControlRequest("status")))
        found: list[Asked] = []

        def both() -> bool:
            found.extend(server.drain())
            return len(found) == 2

        front.pump(both)
    assert [one.caller for one in found] == [Caller(os.geteuid(), os.getegid(), os.getpid())] * 2


@pytest.mark.parametrize("role", ["the worker", "a program it runs"])
def test_control_socket_is_closed_to_workers(front: Front, role: str) -> None:
    """A worker, or what it started, is refused the control socket, and is one to be ended."""
    front.control()
    thief = front.peer("refused", front.layout.control, "dealer", admit="gpu-1", leader=role == "a program it runs")
    assert front.hear(thief)["value"] == 400
    assert set(front.auth.refused) == {"a worker at the control socket"}
    assert front.auth.offenders() == {"gpu-1": "a worker at the control socket"}


def test_nobody_gets_in_while_no_authenticator_is_there(runtime_dir: Path) -> None:
    """With a ZAP domain and no authenticator a socket takes nobody, instead of everybody as libzmq would."""
    with zmq.Context() as context:
        bus = HealthSubscriber(context, runtime_dir / "health.sock")
        publisher = HealthPublisher(context, ipc_address(runtime_dir / "health.sock"))
        for _ in range(50):
            bus.drain()
            assert not publisher.wait_subscribed(0.01)
        bus.close()
        open_bus = HealthSubscriber(context, runtime_dir / "health.sock", b"")
        assert any((open_bus.drain(), publisher.wait_subscribed(0.05))[1] for _ in range(200))
        publisher.close()
        open_bus.close()


@pytest.mark.parametrize(
    ("request_frames", "reason"),
    [
        ([b"1.0", b"7", b"health", b"localhost:0:0:77", b"", b"NULL"], "unknown process"),
        ([b"1.0", b"7", b"health", b"localhost:0:0:0", b"", b"NULL"], "unknown process"),
        ([b"1.0", b"7", b"health", b"127.0.0.1:4242", b"", b"NULL"], "no process credentials"),
        ([b"1.0", b"7", b"health", b"localhost:0:0:-1", b"", b"NULL"], "no process credentials"),
        ([b"1.0", b"7", b"health", b"", b"", b"NULL"], "no process credentials"),
        ([b"1.0", b"7", b"health", b"localhost:0:0:42", b"", b"PLAIN", b"u", b"p"], "not a request this handler knows"),
        ([b"2.0", b"7", b"health", b"localhost:0:0:42", b"", b"NULL"], "not a request this handler knows"),
        ([b"1.0"], "not a request this handler knows"),
        ([b""], "not a request this handler knows"),
    ],
)
def test_odd_requests_are_refused(request_frames: list[bytes], reason: str) -> None:
    """Whatever asks, the answer is 400 with a reason: no credentials, another namespace's pid, another mechanism."""
    with zmq.Context() as context:
        auth = PeerAuthenticator(context)
        auth.admit(42, "gpu-1")
        with context.socket(zmq.REQ) as asking:
            asking.linger = 0
            asking.connect("inproc://zeromq.zap.01")
            asking.send_multipart(request_frames)
            auth.handle()
            assert asking.poll(1000)
            version, _, status, text, user, _ = asking.recv_multipart()
        assert (version, status, text, user) == (b"1.0", b"400", reason.encode(), b"")
        assert auth.refused == {reason: 1}
        auth.close()


def test_one_connection_a_domain_for_each_admission() -> None:
    """A pid connects once to each domain; admitting it again, with no revoke between, lets it connect once more."""
    with zmq.Context() as context:
        auth = PeerAuthenticator(context)
        with context.socket(zmq.REQ) as asking:
            asking.linger = 0
            asking.connect("inproc://zeromq.zap.01")

            def ask(domain: bytes) -> tuple[bytes, bytes]:
                asking.send_multipart([b"1.0", b"7", domain, b"localhost:0:0:42", b"", b"NULL"])
                auth.handle()
                assert asking.poll(1000)
                reply = asking.recv_multipart()
                return reply[2], reply[4]

            auth.admit(42, "gpu-1")
            assert [ask(b"health"), ask(b"command:gpu-1"), ask(b"health")] == [
                (b"200", b"gpu-1"),
                (b"200", b"gpu-1"),
                (b"400", b""),
            ]
            auth.admit(42, "gpu-2")
            assert [ask(b"health"), ask(b"health")] == [(b"200", b"gpu-2"), (b"400", b"")]
            assert auth.refused == {"second connection": 2}
        auth.close()


def test_one_authenticator_a_context() -> None:
    """A second authenticator of a context is refused by name, and a closed one makes room."""
    with zmq.Context() as context:
        first = PeerAuthenticator(context)
        with pytest.raises(EndpointError, match="one authenticator a context"):
            PeerAuthenticator(context)
        first.close()
        first.close()
        # Each at once: the name must be free when close returns, not some time later.
        for _ in range(100):
            PeerAuthenticator(context).close()


@pytest.mark.parametrize(("pid", "identity"), [(0, "gpu-1"), (-1, "gpu-1"), (5, "")])
def test_nonsense_cannot_be_admitted(front: Front, pid: int, identity: str) -> None:
    """Pid 0, which is how every process of another namespace looks, and the empty identity are never admitted."""
    with pytest.raises(ValueError, match="cannot admit"):
        front.auth.admit(pid, identity)


def test_too_long_domain_is_refused_by_name(front: Front, runtime_dir: Path) -> None:
    """A domain longer than libzmq takes gives an error with both lengths, and leaves no file."""
    with pytest.raises(EndpointError, match="ZAP domain of 300 bytes: at most 255"):
        HealthSubscriber(front.context, runtime_dir / "x.sock", b"d" * 300)
    assert not (runtime_dir / "x.sock").exists()
