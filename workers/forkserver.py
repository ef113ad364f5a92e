"""The fork server: forks one worker per order of the front and tells it of every end.

``python -m devd.workers.forkserver --fd N``: N is a SOCK_SEQPACKET socket to the front, one frame a packet. ``Fork``
comes with two descriptors (the gate's read end, the worker's stderr); ``Forked`` goes back with the child's pidfd.
``Ping`` is answered with ``Pong``.

One thread, no ZeroMQ context, no device: what is imported here is what a worker needs, so that a fork is all it costs.
When the front closes the socket, every child is killed and this process ends.
"""

import codecs
import errno
import gc
import os
import select
import signal
import socket
import sys
import traceback
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

from devd.ipc import codec
from devd.ipc.errors import ProtocolError
from devd.ipc.messages import (
    ChildExit,
    Fork,
    Forked,
    ForkFailed,
    Inject,
    Ping,
    Pong,
    ProbeNow,
    Reset,
    Stop,
    WorkerSpec,
)
from devd.workers import linux, main, scout, scribe
from devd.workers.birth import Role, become
from devd.workers.children import GROUP_POLL_S, Children
from devd.workers.sandbox import capabilities, limits, seccomp

MAX_PACKET_BYTES = 256 * 1024
"""Largest packet either side sends."""
FDS_PER_FORK = 2
BATCH = 32
"""Orders taken before ends are looked at again."""

EXIT_FRONT_GONE = 0
EXIT_NONSENSE = 1

ROLES: dict[str, Role] = {"worker": main.run, "scout": scout.run, "scribe": scribe.run}


@dataclass(frozen=True, slots=True)
class _Answer:
    packet: bytes
    pidfd: int | None = None


class ForkServer:
    """Owner of the socket to the front, of the answers not sent yet, and of all children."""

    def __init__(self, front: socket.socket) -> None:
        front.setblocking(False)  # noqa: FBT003 - the standard library's own signature
        self._front = front
        self._children = Children()
        # Bounded: no order is taken while an answer waits, and each order makes two answers.
        self._outbox: deque[_Answer] = deque()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)  # the wakeup fd needs a handler to be there
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)

    def serve(self) -> int:
        """Serve until the front is gone; return the exit code. All children are dead then, or cannot die."""
        try:
            while True:
                self._wait()
                self._tell_exits()
                self._flush()
                self._take_orders()
        except (ConnectionError, EOFError):
            return EXIT_FRONT_GONE
        except ProtocolError as error:
            sys.stderr.write(f"fork server: the front talks nonsense: {error}\n")
            return EXIT_NONSENSE
        finally:
            self._children.kill_all()

    # ---- waiting ----

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._front, select.POLLOUT if self._outbox else select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        for fd, event in poll.poll(GROUP_POLL_S * 1000 if self._children.lingering else None):
            if fd == self._wake_read:
                with suppress(BlockingIOError):
                    os.read(fd, 4096)
            elif event & (select.POLLHUP | select.POLLERR):
                raise EOFError

    def _tell_exits(self) -> None:
        for end in self._children.take_exits():
            self._answer(end)

    # ---- the front ----

    def _answer(self, message: Forked | ForkFailed | ChildExit | Pong, pidfd: int | None = None) -> None:
        self._outbox.append(_Answer(codec.encode(message), pidfd))

    def _flush(self) -> None:
        while self._outbox:
            answer = self._outbox[0]
            fds = [] if answer.pidfd is None else [answer.pidfd]
            try:
                socket.send_fds(self._front, [answer.packet], fds)
            except BlockingIOError:
                return
            self._outbox.popleft()
            if answer.pidfd is not None:
                os.close(answer.pidfd)

    def _take_orders(self) -> None:
        for _ in range(BATCH):
            if self._outbox:
                return
            try:
                packet, fds, _flags, _address = socket.recv_fds(
                    self._front, MAX_PACKET_BYTES, FDS_PER_FORK, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return
            if not packet:
                raise EOFError
            try:
                self._carry_out(packet, fds)
            finally:
                for fd in fds:
                    os.close(fd)
            self._flush()

    def _carry_out(self, packet: bytes, fds: list[int]) -> None:
        order: Fork | Ping = codec.decode(packet, Fork, Ping)
        if isinstance(order, Ping):
            self._answer(Pong())
            return
        if len(fds) != FDS_PER_FORK:
            reason = f"{len(fds)} of {FDS_PER_FORK} descriptors arrived: the fork server is at its limit of open files"
            self._answer(ForkFailed(order.request_id, reason))
            return
        gate_fd, stderr_fd = fds
        try:
            pid = os.fork()
        except OSError as error:
            self._answer(ForkFailed(order.request_id, _reason("fork", error)))
            return
        if pid == 0:
            self._be_child(order.spec, gate_fd, stderr_fd)
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            linux.kill(pid)  # not ours to tell of: it is reaped as a stray
            self._answer(ForkFailed(order.request_id, _reason("pidfd_open", error)))
            return
        self._children.add(pid)
        self._answer(Forked(order.request_id, pid), pidfd)

    def _be_child(self, spec: WorkerSpec, gate_fd: int, stderr_fd: int) -> None:
        # Python's own objects must not close a number that is someone else's later in this process.
        self._front.detach()
        become(spec, gate_fd, stderr_fd, ROLES[spec.role])


def _reason(call: str, error: OSError) -> str:
    number = error.errno or 0
    text = f"{call}: {errno.errorcode.get(number, str(number))} ({os.strerror(number)})"
    if number == errno.EAGAIN:
        return f"{text}: the limit on processes of this user, cgroup or node is reached"
    return text


def _warm_up() -> None:
    """Do once what every child would do again: build the checks of the messages they take."""
    spec = WorkerSpec("worker", "", "", "", 0, "", "", 0.0, 0.0)
    capabilities.prepare()
    for groups in seccomp.USUAL:  # an operator's or a third party's own are built as they are first asked for
        seccomp.prepare(groups)
    # Later the files of modules that are loaded on first use may be out of reach: codecs and tracebacks load some.
    for name in ("ascii", "latin-1"):
        codecs.lookup(name)
    try:
        codec.decode(b"", Stop)
    except ProtocolError:
        traceback.format_exc()
    for message in (Fork(0, spec), Ping(), ProbeNow(), Reset(0, 0.0), Inject(None), Stop()):
        codec.decode(codec.encode(message), type(message))


def run() -> int:
    """Take the socket's number off the command line, serve, and return the exit code."""
    match sys.argv[1:]:
        case ["--fd", number] if number.isdecimal():
            fd = int(number)
        case _:
            sys.stderr.write("usage: python -m devd.workers.forkserver --fd N (a SOCK_SEQPACKET socket to the front)\n")
            return os.EX_USAGE
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.closerange(3, fd)
    os.closerange(fd + 1, 1 << 20)
    os.set_inheritable(fd, False)  # noqa: FBT003 - the standard library's own signature
    linux.set_name("devd-fork")
    linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
    with suppress(OSError):
        # From here on, and not only from its sandbox on, a worker that starts leaves the processor to the front.
        limits.be_nice()
    _warm_up()
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=fd) as front:
        return ForkServer(front).serve()


if __name__ == "__main__":
    sys.exit(run())
