"""Runs one command of a probe or reset: bounded in time, output and offspring.

The command stays in the worker's process group, so the end of the worker is its end as well, and it dies with the
worker's main thread. The worker is a subreaper: what a command leaves behind becomes its child and is killed before
the next one starts. A command that hangs in the kernel cannot be killed; it is reported, and none runs beside it.
"""

import contextlib
import errno
import os
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from devd.ipc.environment import for_commands
from devd.workers import linux

TAIL_BYTES = 2048
"""What is kept of a command's output for the reason."""
KILL_WAIT_S = 0.1
"""After SIGKILL a process is gone in milliseconds; one that is not hangs in the kernel."""
_READ_BYTES = 65536


class CommandError(Exception):
    """Raised when a command could not be run to its end; the text says why."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A command's end: exit code, or minus the signal's number as subprocess has it, and its output's tail."""

    code: int
    output: str


class Limit(Protocol):
    """How long a command may run; what went by before its start counts."""

    @property
    def allowed_s(self) -> float:
        """Return the whole, for the reason."""

    def left_s(self) -> float:
        """Return what is left, never below zero."""


class CommandRunner:
    """At most one command at a time."""

    def __init__(self) -> None:
        self._stuck: subprocess.Popen[bytes] | None = None
        linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)

    def run(self, command: Sequence[str], limit: Limit, environment: Mapping[str, str]) -> Finished:
        """Run a command and wait for it. Raises CommandError: cannot start, too late, or an old one still hangs."""
        self._check_free()
        process = _start(command, environment)
        tail = b""
        try:
            ended, tail = _watch(process, limit)
        finally:
            killed = self._end(process)
        if not ended:
            words = "killed" if killed else f"SIGKILL does not end it: pid {process.pid} hangs in the kernel"
            raise CommandError(f"{command[0]} took longer than {limit.allowed_s:g} s: {words}{_quoted(tail)}")
        return Finished(process.returncode, _text(tail))

    def _check_free(self) -> None:
        if self._stuck is None:
            return
        if self._stuck.poll() is None:
            raise CommandError(f"the last command (pid {self._stuck.pid}) still hangs in the kernel")
        self._stuck = None

    def _end(self, process: subprocess.Popen[bytes]) -> bool:
        """Make sure that the command and all it started are gone; False when it cannot be killed."""
        if process.stdout is not None:
            process.stdout.close()
        if process.returncode is None:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(KILL_WAIT_S)
        if process.returncode is None:
            self._stuck = process
        until_s = time.monotonic() + KILL_WAIT_S
        while self._kill_leftovers() and time.monotonic() < until_s:
            select.poll().poll(2)
        return self._stuck is None

    def _kill_leftovers(self) -> bool:
        """Kill and reap orphans of the command, now children of this process; return whether some were left."""
        stuck = self._stuck.pid if self._stuck is not None else None
        pids = [pid for pid in linux.children() if pid != stuck]
        for pid in pids:
            linux.kill(pid)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        return bool(pids)


def describe(finished: Finished) -> str:
    """Return a command's end in words, with its last output."""
    end = f"killed by signal {-finished.code}" if finished.code < 0 else f"exit code {finished.code}"
    return f"{end}{_quoted(finished.output.encode())}"


def _start(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    worker = os.getpid()
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={"PATH": os.defpath, **for_commands(os.environ), **environment},
            # PR_SET_PDEATHSIG must be set in the child itself; the other threads are libzmq's and hold no lock of
            # Python's.
            preexec_fn=lambda: linux.die_with_parent(worker),  # noqa: PLW1509 - see above
        )
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "error")
        raise CommandError(f"{command[0]} does not start: {name} ({error.strerror})") from error


def _watch(process: subprocess.Popen[bytes], limit: Limit) -> tuple[bool, bytes]:
    """Collect output until the command ends or the deadline; return whether it ended, and the output's tail."""
    tail = b""
    if process.stdout is None:
        raise AssertionError("started without a pipe")
    output = process.stdout.fileno()
    os.set_blocking(output, False)
    pidfd = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.register(output, select.POLLIN)
        while True:
            left_s = limit.left_s()
            if left_s <= 0:
                return False, tail
            ready = {fd for fd, _event in poll.poll(left_s * 1000)}
            if output in ready:
                data = _read(output)
                tail = (tail + data)[-TAIL_BYTES:]
                if not data:
                    poll.unregister(output)  # closed by the command, which may run on
            if pidfd in ready:
                process.wait()  # it has ended: this only reaps
                return True, (tail + _rest(output))[-TAIL_BYTES:]
    finally:
        os.close(pidfd)


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, _READ_BYTES)
    except BlockingIOError:
        return b""


def _rest(fd: int) -> bytes:
    """Return what waits in the pipe: at most its capacity, whatever an orphan goes on writing."""
    return _read(fd)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace").strip()


def _quoted(data: bytes) -> str:
    text = " / ".join(line.strip() for line in _text(data).splitlines() if line.strip())
    return f": {text}" if text else ""
