"""All the front holds for one incarnation of a worker: gate, stderr, pidfd, command channel. One owner, one release."""

import os
import select
import signal
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import zmq

from devd.ipc.command import CommandServer
from devd.ipc.messages import Role, ToWorker

STDERR_TAIL_LINES = 50
STDERR_LINE_BYTES = 2000
"""What is kept of a worker's last words: enough for a traceback, bounded for a worker that floods."""
COMMAND_BURST = 200
COMMANDS_PER_S = 20.0
"""A worker speaks on its command channel when something changed; a scout of a shaking bus four times a second."""
_READ_BYTES = 16384
_READS_PER_WAKE = 8


class StderrTail:
    """The last lines a worker wrote, read without ever blocking."""

    def __init__(self, loop: AbstractEventLoop, fd: int) -> None:
        self._loop = loop
        self._fd: int | None = fd
        self._lines: deque[str] = deque(maxlen=STDERR_TAIL_LINES)
        self._partial = b""
        os.set_blocking(fd, False)
        loop.add_reader(fd, self._readable)

    def lines(self) -> list[str]:
        """Return the last lines, the oldest first."""
        self._readable()
        rest = [self._text(self._partial)] if self._partial else []
        return [*self._lines, *rest]

    def close(self) -> None:
        """Stop reading."""
        if self._fd is not None:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = None

    def _readable(self) -> None:
        for _ in range(_READS_PER_WAKE):
            if self._fd is None:
                return
            try:
                data = os.read(self._fd, _READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                self.close()
                return
            *whole, self._partial = (self._partial + data).split(b"\n")
            self._partial = self._partial[-STDERR_LINE_BYTES:]
            self._lines.extend(self._text(line) for line in whole)

    @staticmethod
    def _text(line: bytes) -> str:
        return line[-STDERR_LINE_BYTES:].decode("utf-8", "backslashreplace")


class Rate:
    """So many messages at once, and so many a second in the long run; more is a flood."""

    def __init__(self, burst: int, per_s: float) -> None:
        self._burst = float(burst)
        self._per_s = per_s
        self._left = float(burst)
        self._at_s = 0.0

    def allows(self, now_s: float) -> bool:
        """Count a message; return whether it is within bounds. ``now_s`` is CLOCK_MONOTONIC."""
        self._left = min(self._burst, self._left + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class WorkerHandle:
    """One incarnation, from the order to fork until its exit is known."""

    def __init__(self, loop: AbstractEventLoop, device: str, role: Role, incarnation: int, socket_path: Path) -> None:
        self._loop = loop
        self._role: Role = role
        self.device = device
        self.incarnation = incarnation
        self.socket_path = socket_path
        self.pid: int | None = None
        self._gate_fd: int | None = None
        self._pidfd: int | None = None
        self._stderr: StderrTail | None = None
        self._command: CommandServer | None = None
        self.rate = Rate(COMMAND_BURST, COMMANDS_PER_S)

    def open(self, context: zmq.Context[zmq.Socket[bytes]], zap_domain: bytes) -> tuple[int, int]:
        """Make channel and pipes; return the worker's ends: the gate's read end and stderr's write end.

        Raises OSError or EndpointError when the node is out of descriptors; what was made so far is released by close.
        """
        self._command = CommandServer(context, self.socket_path, self._role, zap_domain)
        stderr_read, stderr_write = os.pipe2(os.O_CLOEXEC)
        try:
            self._stderr = StderrTail(self._loop, stderr_read)
            gate_read, self._gate_fd = os.pipe2(os.O_CLOEXEC)
        except OSError:
            os.close(stderr_write)
            raise
        return gate_read, stderr_write

    @property
    def command(self) -> CommandServer | None:
        """The command channel, None before ``open`` and after ``close``."""
        return self._command

    def born(self, pid: int, pidfd: int) -> None:
        """Take the process over."""
        self.pid = pid
        self._pidfd = pidfd

    def watch_end(self, ended: Callable[[], None]) -> None:
        """Call ``ended`` once when the process is gone; the pidfd is the only proof of it."""
        pidfd = self._pidfd
        if pidfd is None:
            return

        def readable() -> None:
            self._loop.remove_reader(pidfd)
            ended()

        self._loop.add_reader(pidfd, readable)

    @property
    def over(self) -> bool:
        """True once the process has ended, reaped or not."""
        if self._pidfd is None:
            return False
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def open_gate(self) -> None:
        """Let the worker begin: its pid is known to whoever checks it."""
        if self._gate_fd is not None:
            with suppress(BrokenPipeError):
                os.write(self._gate_fd, b"g")

    def kill(self) -> None:
        """SIGKILL the process; through its pidfd, so that a recycled pid is never hit."""
        if self._pidfd is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def send(self, message: ToWorker) -> bool:
        """Send a command; False when the channel is full or gone (the deadline then decides)."""
        return self._command is not None and self._command.send(message)

    def last_words(self) -> list[str]:
        """Return the last lines of its stderr."""
        return self._stderr.lines() if self._stderr is not None else []

    def close(self) -> None:
        """Release everything; safe to call twice. Closing the gate ends a worker that still lives."""
        if self._command is not None:
            self._command.close()
            self._command = None
        if self._stderr is not None:
            self._stderr.close()
        if self._gate_fd is not None:
            os.close(self._gate_fd)
            self._gate_fd = None
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None
