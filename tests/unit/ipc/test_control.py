"""The control channel: quick answers, and plain words when there is none."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest
import zmq
from zmq.utils.monitor import recv_monitor_message

from devd.ipc import codec, control
from devd.ipc.control import ControlServer, control_call
from devd.ipc.endpoints import ipc_address
from devd.ipc.errors import EndpointError, PeerSilentError, PeerUnavailableError, ProtocolError
from devd.ipc.messages import ControlReply, ControlRequest, Stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.unit.ipc.conftest import Front

STATUS = ControlRequest("status", {"wide": True})
PROMPT_S = 4.0
"""Less than any call here may take: whoever waits for its timeout takes longer. Usual are milliseconds."""

DAEMON = """
import sys, time, zmq
from pathlib import Path
from devd.ipc.control import ControlServer
context = zmq.Context()
server = ControlServer(context, Path(sys.argv[1]), b"")
print("listening", flush=True)
sys.stdin.read()
"""


@contextmanager
def answering(server: ControlServer, answer: Callable[[ControlRequest | None, str], ControlReply]) -> Iterator[None]:
    """Let a thread play the daemon's loop."""
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            for asked in server.drain():
                server.reply(asked.route, answer(asked.request, asked.error))
            if not server.pending():
                over.wait(0.002)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def echo(request: ControlRequest | None, error: str) -> ControlReply:
    return ControlReply(ok=request is not None, error=error, data={"verb": request.verb if request else None})


def test_a_question_gets_its_answer(front: Front) -> None:
    """A request reaches the daemon whole and its answer comes back, again and again."""
    server = front.owned(ControlServer(front.context, front.layout.control, b""))
    assert front.layout.control.stat().st_mode & 0o777 == 0o600
    with answering(server, echo):
        for _ in range(5):
            begun_s = time.monotonic()
            assert control_call(front.layout.control, STATUS, 5) == ControlReply(
                ok=True, error="", data={"verb": "status"}
            )
            assert time.monotonic() - begun_s < PROMPT_S


def test_no_daemon_no_socket(front: Front) -> None:
    """Without a socket, or without the directory, the answer is that no daemon runs there, at once."""
    for path in (front.layout.control, front.layout.root / "gone" / "control.sock", front.layout.lock / "control.sock"):
        begun_s = time.monotonic()
        with pytest.raises(PeerUnavailableError, match="no daemon runs there"):
            control_call(path, STATUS, 5)
        assert time.monotonic() - begun_s < PROMPT_S


def test_socket_of_a_dead_daemon(front: Front) -> None:
    """A socket file left by a killed daemon is told apart from one that is not there, and costs no wait."""
    with subprocess.Popen(
        [sys.executable, "-c", DAEMON, str(front.layout.control)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as daemon:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == b"listening\n"
        daemon.kill()
    assert front.layout.control.is_socket()
    with pytest.raises(PeerUnavailableError, match="left from one that ended"):
        control_call(front.layout.control, STATUS, 5)
    front.owned(ControlServer(front.context, front.layout.control, b""))


def test_no_daemon_takes_anothers_place(front: Front) -> None:
    """A live daemon's socket, or a file that is none, is refused by name and stays; libzmq alone would unlink both."""
    server = front.owned(ControlServer(front.context, front.layout.control, b""))
    with pytest.raises(EndpointError, match=r"control\.sock is in use: another devd runs there"):
        ControlServer(front.context, front.layout.control, b"")
    with answering(server, echo):
        assert control_call(front.layout.control, STATUS, 5).ok
    front.layout.lock.write_text("precious")
    with pytest.raises(EndpointError, match="lock is a regular file"):
        ControlServer(front.context, front.layout.lock, b"")
    assert front.layout.lock.read_text() == "precious"
    front.layout.lock.unlink()


def test_silent_daemon(front: Front) -> None:
    """A daemon that listens and does not answer is reported within the time allowed, stopped or merely busy."""
    with subprocess.Popen(
        [sys.executable, "-c", DAEMON, str(front.layout.control)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as daemon:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == b"listening\n"
        for stopped in (False, True):
            if stopped:
                os.kill(daemon.pid, signal.SIGSTOP)
            begun_s = time.monotonic()
            with pytest.raises(PeerSilentError, match=r"did not answer within 0\.3 s"):
                control_call(front.layout.control, STATUS, 0.3)
            assert 0.25 < time.monotonic() - begun_s < PROMPT_S
        daemon.kill()


def test_daemon_that_takes_no_connection(front: Front) -> None:
    """A full accept queue counts as silence, not as absence."""
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as waiting:
        listener.bind(os.fspath(front.layout.control))
        listener.listen(0)
        waiting.connect(os.fspath(front.layout.control))
        with pytest.raises(PeerSilentError, match="took no connection"):
            control_call(front.layout.control, STATUS, 0.2)


def test_somebody_elses_socket(front: Front) -> None:
    """Permission denied is an error that says whose the socket is, not a daemon that does not run."""
    ControlServer(front.context, front.layout.control, b"")._bound._close_socket()
    owner = os.geteuid()
    if owner == 0:
        os.seteuid(65534)
    else:
        front.layout.control.chmod(0)
    try:
        with pytest.raises(EndpointError, match=rf"permission denied: /.* belongs to .*uid {owner}\)?, this is .*uid"):
            control_call(front.layout.control, STATUS, 1)
    finally:
        os.seteuid(owner)


def test_daemon_of_another_version(front: Front) -> None:
    """An answer in another version is a ProtocolError that has both versions."""
    with (
        other_daemon(front, [b"\x93\x07" + codec.encode(ControlReply(ok=True, error=""))[2:]]),
        pytest.raises(ProtocolError, match="protocol version 7: this side speaks 1"),
    ):
        control_call(front.layout.control, STATUS, 5)


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ([b"garbage"], "not msgpack"),
        ([codec.encode(Stop())], "message 'Stop': expected ControlReply"),
        ([b"", b""], "answer of 2 frames"),
    ],
)
def test_daemon_that_answers_nonsense(front: Front, answer: list[bytes], wanted: str) -> None:
    """Whatever comes back that is no reply is a ProtocolError."""
    with other_daemon(front, answer), pytest.raises(ProtocolError, match=wanted):
        control_call(front.layout.control, STATUS, 5)


@contextmanager
def other_daemon(front: Front, answer: list[bytes]) -> Iterator[None]:
    """Let a thread answer one request with the given frames."""
    with front.context.socket(zmq.ROUTER) as router:
        router.linger = 1000
        router.bind(ipc_address(front.layout.control))

        def serve() -> None:
            if router.poll(5000):
                router.send_multipart([router.recv_multipart()[0], *answer])

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            thread.join()


def test_request_of_another_version_is_told_so(front: Front) -> None:
    """The daemon hears of a wrong request with the reason and the route to answer on, and never fails."""
    server = front.owned(ControlServer(front.context, front.layout.control, b""))
    oddities = {
        "protocol version 3: this side speaks 1": [b"\x93\x03" + codec.encode(STATUS)[2:]],
        "not msgpack": [b""],
        "message of 1 frames: 2 are needed": [],
        "message of 3 frames: 2 are needed": [codec.encode(STATUS), b""],
    }
    with answering(server, echo), front.context.socket(zmq.ROUTER) as client:
        client.linger = 0
        client.router_mandatory = 1
        client.setsockopt(zmq.CONNECT_ROUTING_ID, b"daemon")
        client.connect(ipc_address(front.layout.control))
        for wanted, frames in oddities.items():
            send_when_connected(client, [b"daemon", *frames])
            if not frames:
                continue
            assert client.poll(5000)
            reply = codec.decode(client.recv_multipart()[1], ControlReply)
            assert not reply.ok
            assert wanted in reply.error


def send_when_connected(client: zmq.Socket[bytes], frames: list[bytes]) -> None:
    """Send as soon as the handshake is over."""
    until_s = time.monotonic() + 5
    while time.monotonic() < until_s:
        with suppress(zmq.error.ZMQError):
            client.send_multipart(frames)
            return
        time.sleep(0.005)
    raise AssertionError("never connected")


def test_clients_that_do_not_read_cost_nothing(front: Front) -> None:
    """Answers to a client that never reads, or left, are dropped after a few; others are answered meanwhile."""
    server = front.owned(ControlServer(front.context, front.layout.control, b""))
    with front.context.socket(zmq.DEALER) as slow:
        slow.linger = 0
        slow.rcvhwm = 1
        slow.connect(ipc_address(front.layout.control))
        slow.send(codec.encode(STATUS))
        front.pump(server.pending)
        [asked] = server.drain()
        assert (asked.request, asked.error) == (STATUS, "")
        big = ControlReply(ok=True, error="", data={"text": "x" * 1_000_000})
        longest_s, taken = 0.0, 0
        for _ in range(100):
            begun_s = time.monotonic()
            taken += server.reply(asked.route, big)
            longest_s = max(longest_s, time.monotonic() - begun_s)
        assert longest_s < PROMPT_S
        assert taken <= 3 * control.REPLY_QUEUE
        with answering(server, echo):
            assert control_call(front.layout.control, STATUS, 5).ok
    front.pump(lambda: not server.reply(asked.route, big) and not server.pending())


def test_request_too_large_is_refused_at_home_and_cut_at_the_daemon(front: Front) -> None:
    """Over 1 MiB the client refuses to send; a client that sends it all the same loses its connection."""
    huge = ControlRequest("status", {"x": "y" * control.MAX_REQUEST_BYTES})
    with pytest.raises(ProtocolError, match="at most 1048576"):
        control_call(front.layout.control, huge, 1)
    server = front.owned(ControlServer(front.context, front.layout.control, b""))
    with front.context.socket(zmq.DEALER) as client, client.get_monitor_socket() as monitor:
        client.linger = 0
        client.connect(ipc_address(front.layout.control))
        client.send(codec.encode(huge))
        seen: list[int] = []

        def cut() -> bool:
            server.pending()
            while monitor.poll(0):
                seen.append(int(recv_monitor_message(monitor)["event"]))
            return zmq.Event.DISCONNECTED in seen

        front.pump(cut)
        client.disable_monitor()
    assert server.drain() == []


def test_answer_too_large_becomes_an_error(front: Front) -> None:
    """An answer over 4 MiB reaches the client as an error that says so instead of as silence."""
    server = front.owned(ControlServer(front.context, front.layout.control, b""))
    vast = ControlReply(ok=True, error="", data={"text": "x" * control.MAX_REPLY_BYTES})
    with answering(server, lambda _request, _error: vast):
        reply = control_call(front.layout.control, STATUS, 5)
    assert not reply.ok
    assert "at most 4194304" in reply.error


def test_too_long_a_path_is_told_with_the_remedy(runtime_dir: Path) -> None:
    """The client, too, says that the path is too long instead of that no daemon runs."""
    with pytest.raises(EndpointError, match=r"at most 107; use a shorter directory \(--runtime-dir\)"):
        control_call(runtime_dir / ("x" * 120) / "control.sock", STATUS, 1)
