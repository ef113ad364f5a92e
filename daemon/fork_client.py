"""The front's side of the fork server: starts it, orders workers from it, and starts it anew when it dies.

The fork server is a child made by posix_spawn (no fork of this process, which runs gRPC's threads). Orders that were
not sent yet survive its death; orders it had taken fail, since the worker they may have made waits at a gate that is
closed now and leaves untouched.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from asyncio import AbstractEventLoop, TimerHandle
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from devd.daemon.fork_watch import ForkWatch
from devd.daemon.turns import Turns
from devd.ipc import codec
from devd.ipc.environment import for_workers
from devd.ipc.errors import ProtocolError
from devd.ipc.messages import ChildExit, Fork, Forked, ForkFailed, Ping, Pong, WorkerSpec

MAX_PACKET_BYTES = 256 * 1024
"""Largest packet either side sends: a WorkerSpec with a long script is some kilobytes."""
RESTART_FIRST_S = 0.1
RESTART_MAX_S = 10.0
"""Pause before the fork server is started again; doubles from the first to the maximum while it keeps dying."""
STABLE_AFTER_S = 30.0
"""A fork server that lived this long starts the pauses from the first again."""

_CHILD_FD = 3

log = logging.getLogger("devd.fork")


@dataclass(frozen=True, slots=True)
class Order:
    """One worker to be made. The descriptors are the order's until it is sent, then closed here."""

    request_id: int
    spec: WorkerSpec
    gate_fd: int
    stderr_fd: int


@dataclass(frozen=True, slots=True)
class ForkEvents:
    """What the client tells its owner; ``forked`` hands over the pidfd."""

    forked: Callable[[int, int, int], None]
    failed: Callable[[int, str], None]
    exited: Callable[[ChildExit], None]
    lost: Callable[[str], None]


class ForkClient:
    """One fork server at a time."""

    def __init__(self, loop: AbstractEventLoop, events: ForkEvents, turns: Turns) -> None:
        self._loop = loop
        self._turns = turns
        self._events = events
        self._socket: socket.socket | None = None
        self._waiting: deque[Order] = deque()
        self._taken: set[int] = set()
        self._pause_s = RESTART_FIRST_S
        self._started_at_s = 0.0
        self._timer: TimerHandle | None = None
        self._closed = False
        self._writing = False
        self._next_id = 0
        self._watch = ForkWatch(loop, self._ask, self._lost)
        self.pid: int | None = None
        self.restarts = -1

    @property
    def alive(self) -> bool:
        """True while a fork server is connected: then it, and not the front, waits for the workers' ends."""
        return self._socket is not None

    def start(self) -> None:
        """Start a fork server. Failing is not an error here: it is tried again after a pause."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                self.pid = _spawn(theirs.fileno())
        except OSError as error:
            ours.close()
            self._retry(f"the fork server could not be started: {error}")
            return
        ours.setblocking(False)  # noqa: FBT003 - the standard library's own signature
        self._socket = ours
        self._started_at_s = self._loop.time()
        self.restarts += 1
        self._watch.begin(self.pid)
        self._loop.add_reader(ours.fileno(), self._readable)
        self._flush()

    def order(self, spec: WorkerSpec, gate_fd: int, stderr_fd: int) -> int:
        """Order a worker and return the request's id; takes both descriptors over."""
        self._next_id += 1
        self._waiting.append(Order(self._next_id, spec, gate_fd, stderr_fd))
        self._flush()
        return self._next_id

    def await_end(self, pid: int) -> None:
        """Take note that a worker has ended: the fork server is to tell how."""
        self._watch.awaits(("end", pid))

    def note_exit(self, status: int) -> None:
        """Take note that the fork server's process ended; the front's reaper calls this."""
        self._lost(f"the fork server ended: {describe_status(status)}")

    def close(self) -> None:
        """End the fork server (it ends what children it still has) and drop what was not sent."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._disconnect()
        while self._waiting:
            _close_order(self._waiting.popleft())

    async def ended(self, timeout_s: float) -> None:
        """After ``close``: wait for the fork server's end, and make it end past ``timeout_s``."""
        if self.pid is None:
            return
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        gone = asyncio.Event()
        self._loop.add_reader(pidfd, gone.set)
        try:
            await asyncio.wait_for(gone.wait(), timeout_s)
        except TimeoutError:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            self._loop.remove_reader(pidfd)
            os.close(pidfd)

    # ---- sending ----

    def _flush(self) -> None:
        while self._socket is not None and self._waiting:
            order = self._waiting[0]
            try:
                packet = codec.encode(Fork(order.request_id, order.spec))
                socket.send_fds(self._socket, [packet], [order.gate_fd, order.stderr_fd])
            except BlockingIOError:
                self._watch_writable(on=True)
                return
            except OSError as error:
                self._lost(f"the fork server does not listen: {error}")
                return
            self._waiting.popleft()
            self._taken.add(order.request_id)
            self._watch.awaits(("order", order.request_id))
            _close_order(order)
        self._watch_writable(on=False)

    def _ask(self) -> None:
        """Have the fork server say something. One whose socket is full is asked by that."""
        if self._socket is not None and not self._writing:
            with suppress(OSError):
                self._socket.send(codec.encode(Ping()))

    def _watch_writable(self, *, on: bool) -> None:
        if self._socket is None or on == self._writing:
            return
        self._writing = on
        if on:
            self._loop.add_writer(self._socket.fileno(), self._flush)
        else:
            self._loop.remove_writer(self._socket.fileno())

    # ---- receiving ----

    def _readable(self) -> None:
        self._turns.put(self, self._take_one)

    def _take_one(self) -> bool:
        """Take in one packet; return whether there may be more."""
        if self._socket is None:
            return False
        try:
            data, fds, _flags, _address = socket.recv_fds(self._socket, MAX_PACKET_BYTES, 1)
        except BlockingIOError:
            return False
        except OSError as error:
            self._lost(f"the fork server is gone: {error}")
            return False
        if not data:
            self._lost("the fork server closed its socket")
            return False
        self._handle(data, fds)
        return True

    def _handle(self, data: bytes, fds: list[int]) -> None:
        try:
            message: Forked | ForkFailed | ChildExit | Pong = codec.decode(data, Forked, ForkFailed, ChildExit, Pong)
        except ProtocolError as error:
            for fd in fds:
                os.close(fd)
            self._lost(f"the fork server talks nonsense: {error}")
            return
        if isinstance(message, Forked) and len(fds) == 1:
            self._taken.discard(message.request_id)
            self._watch.heard(("order", message.request_id))
            self._events.forked(message.request_id, message.pid, fds[0])
            return
        for fd in fds:
            os.close(fd)
        if isinstance(message, ForkFailed):
            self._taken.discard(message.request_id)
            self._watch.heard(("order", message.request_id))
            self._events.failed(message.request_id, message.reason)
        elif isinstance(message, ChildExit):
            self._watch.heard(("end", message.pid))
            self._events.exited(message)
        else:
            self._watch.heard()

    # ---- its death ----

    def _disconnect(self) -> None:
        self._watch.end()
        if self._socket is None:
            return
        self._watch_writable(on=False)
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        self._socket = None

    def _lost(self, reason: str) -> None:
        if self._socket is None or self._closed:
            return
        self._disconnect()
        if self.pid is not None:
            # It may merely talk nonsense: two fork servers at once must not be.
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self.pid = None
        log.error("%s; workers that run go on, a new one is started", reason)
        self._events.lost(reason)
        taken, self._taken = self._taken, set()
        for request_id in sorted(taken):
            self._events.failed(request_id, reason)
        self._retry(reason)

    def _retry(self, reason: str) -> None:
        if self._closed:
            return
        if self._loop.time() - self._started_at_s > STABLE_AFTER_S:
            self._pause_s = RESTART_FIRST_S
        log.info("fork server starts again in %.1f s (%s)", self._pause_s, reason)
        self._timer = self._loop.call_later(self._pause_s, self.start)
        self._pause_s = min(RESTART_MAX_S, self._pause_s * 2)


def describe_status(status: int) -> str:
    """Return a wait status (os.waitpid) in words."""
    if os.WIFSIGNALED(status):
        return describe_end(-1, os.WTERMSIG(status))
    return describe_end(os.waitstatus_to_exitcode(status), -1)


def describe_end(code: int, number: int) -> str:
    """Return how a process ended in words: ``killed by SIGSEGV`` or ``exited with code 3``."""
    if number > 0:
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        return f"killed by {name}"
    return f"exited with code {code}"


def _spawn(fd: int) -> int:
    """Start the fork server on a socket and return its pid. Raises OSError."""
    command = [sys.executable, "-m", "devd.workers.forkserver", "--fd", str(_CHILD_FD)]
    environment = {**for_workers(os.environ), "PYTHONUNBUFFERED": "1"}
    actions = [(os.POSIX_SPAWN_DUP2, fd, _CHILD_FD)]
    if fd == _CHILD_FD:
        os.set_inheritable(fd, True)  # noqa: FBT003 - the standard library's own signature
        actions = []
    return os.posix_spawn(sys.executable, command, environment, file_actions=actions)


def _close_order(order: Order) -> None:
    os.close(order.gate_fd)
    os.close(order.stderr_fd)
