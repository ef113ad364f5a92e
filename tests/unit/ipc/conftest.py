"""A front of the tests' own: context, authenticator and runtime directory, and the peers that talk to it."""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest
import zmq

from devd.ipc.command import CommandServer
from devd.ipc.control import ControlServer
from devd.ipc.endpoints import RuntimeLayout, ipc_address
from devd.ipc.health import HealthSubscriber
from devd.ipc.identity import PeerAuthenticator
from devd.ipc.messages import Role

PATIENCE_S = 15.0
"""How long a test waits for what must come; only a failing test waits that long."""

LEADER = "import subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:]])"
"""A worker that runs the peer as a program of its own, and ends with it."""

T = TypeVar("T")
U = TypeVar("U")


class Channel(Protocol[T]):
    """What a receiving end looks like to its reader."""

    fd: int

    def drain(self, limit: int = ..., /) -> list[T]:
        """Return what has arrived."""

    def pending(self) -> bool:
        """Return whether more waits."""


class Peer:
    """A process that runs ``peer.py``."""

    def __init__(self, *arguments: str, leader: bool = False) -> None:
        before = ["-c", LEADER] if leader else []
        self.process = subprocess.Popen(
            [sys.executable, *before, str(Path(__file__).with_name("peer.py")), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            start_new_session=leader,
        )
        self._leads = leader
        self.pid = self.process.pid
        """Of the peer, or of the leader of its session."""

    def order(self, what: object = None) -> None:
        """Open its gate, or give it its next order."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()

    def said(self) -> bool:
        """Return whether a line waits."""
        assert self.process.stdout is not None
        return bool(select.select([self.process.stdout], [], [], 0)[0])

    def hear(self) -> dict[str, Any]:
        """Return its next line."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the peer ended"
        heard: dict[str, Any] = json.loads(line)
        return heard

    def end(self) -> None:
        """Let it go, by force where needed, with whatever it started."""
        if self._leads:
            os.killpg(self.pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


class Front:
    """The daemon's side, pumped by the test instead of an event loop."""

    def __init__(self, root: Path) -> None:
        self.layout = RuntimeLayout(root)
        self.layout.prepare()
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self.auth = PeerAuthenticator(self.context)
        self._closing: list[Callable[[], None]] = []
        self._channels: list[Channel[Any]] = []

    def bus(self, zap_domain: bytes = b"health") -> HealthSubscriber:
        """Return the health bus's receiving end."""
        made = self.owned(HealthSubscriber(self.context, self.layout.health, zap_domain))
        self._channels.append(made)
        return made

    def channel(self, number: int, zap_domain: bytes = b"command", role: Role = "scout") -> CommandServer:
        """Return a command channel."""
        made = self.owned(CommandServer(self.context, self.layout.command(number), role, zap_domain))
        self._channels.append(made)
        return made

    def control(self) -> ControlServer:
        """Return the control socket."""
        made = self.owned(ControlServer(self.context, self.layout.control))
        self._channels.append(made)
        return made

    def owned(self, one: U) -> U:
        """Close something at the end of the test."""
        self._closing.append(one.close)  # type: ignore[attr-defined]  # whatever is handed in here has close()
        return one

    def forget(self, channel: Channel[Any]) -> None:
        """Leave a channel alone: the test closes it itself."""
        self._channels.remove(channel)

    def peer(self, role: str, path: Path, *arguments: str, admit: str = "", leader: bool = False) -> Peer:
        """Start a peer, by a leader where one is wanted, admit it under an identity, and open its gate."""
        peer = Peer(role, ipc_address(path), *arguments, leader=leader)
        self._closing.append(peer.end)
        assert peer.hear()["ready"]
        if admit:
            self.auth.admit(peer.pid, admit)
        peer.order()
        return peer

    def later(self, happens: Callable[[], bool], within_s: float) -> bool:
        """Return whether something happens within a time; for what is expected not to."""
        until_s = time.monotonic() + within_s
        while time.monotonic() < until_s:
            if happens():
                return True
            select.select([one.fd for one in self._channels], [], [], within_s / 10)
        return False

    def pump(self, done: Callable[[], bool]) -> None:
        """Answer handshakes and let every channel take in its connections, until ``done``."""
        until_s = time.monotonic() + PATIENCE_S
        while not done():
            assert time.monotonic() < until_s, f"nothing came in {PATIENCE_S} s; refused: {dict(self.auth.refused)}"
            select.select([self.auth.fd, *(one.fd for one in self._channels)], [], [], 0.02)
            self.auth.handle()
            while self.auth.pending():
                self.auth.handle()
            for channel in self._channels:
                channel.pending()

    def collect(self, channel: Channel[U], done: Callable[[list[U]], bool]) -> list[U]:
        """Return all that arrives until ``done`` with it."""
        got: list[U] = []

        def enough() -> bool:
            while True:
                got.extend(channel.drain())
                if not channel.pending():
                    return done(got)

        self.pump(enough)
        return got

    def hear(self, peer: Peer) -> dict[str, Any]:
        """Return a peer's next line, answering handshakes until it comes."""
        self.pump(peer.said)
        return peer.hear()

    def close(self) -> None:
        """Close everything, the last made first."""
        self._channels.clear()
        for close in reversed(self._closing):
            close()
        self.auth.close()
        self.context.term()
        self.layout.remove()


@pytest.fixture
def runtime_dir() -> Iterator[Path]:
    """Return a short directory: pytest's own may be too deep for a socket."""
    with tempfile.TemporaryDirectory(prefix="devd-") as made:
        yield Path(made)


@pytest.fixture
def front(runtime_dir: Path) -> Iterator[Front]:
    """Return a front in its own runtime directory; it must leave nothing there."""
    made = Front(runtime_dir / "run")
    yield made
    made.close()
    assert list(runtime_dir.iterdir()) == [], "the runtime directory is not clean"
