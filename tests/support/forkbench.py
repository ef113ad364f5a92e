"""A test's stand-in for the front: a real fork server, real sockets, and what the workers said, collected."""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import zmq

from devd.ipc import codec
from devd.ipc.command import CommandServer
from devd.ipc.endpoints import RuntimeLayout, ipc_address
from devd.ipc.health import HealthSubscriber
from devd.ipc.identity import PeerAuthenticator
from devd.ipc.messages import (
    ChildExit,
    Device,
    Fork,
    Forked,
    ForkFailed,
    Health,
    Hello,
    Listing,
    ProbeNow,
    Reset,
    ResetDone,
    Stop,
    WorkerSpec,
)

WAIT_S = 15.0
"""How long a test waits for anything before it fails; far above what a loaded machine needs."""


@dataclass
class Worker:
    """One forked worker and all it said."""

    device: str
    gate: int
    stderr: int
    command: CommandServer
    pid: int = 0
    pidfd: int = -1
    hellos: list[Hello] = field(default_factory=list)
    listings: list[Listing] = field(default_factory=list)
    resets: list[ResetDone] = field(default_factory=list)
    exit: ChildExit | None = None
    failed: str = ""

    def open_gate(self) -> None:
        """Let it begin."""
        os.write(self.gate, b"g")

    def close_gate(self) -> None:
        """End its lifeline (or its wait for it)."""
        if self.gate >= 0:
            os.close(self.gate)
            self.gate = -1

    def kill(self) -> None:
        """SIGKILL it."""
        signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def gone(self) -> bool:
        """Return whether its process has ended, reaped or not."""
        return bool(select.select([self.pidfd], [], [], 0)[0])

    def words(self) -> str:
        """Return all that waits in its stderr pipe."""
        os.set_blocking(self.stderr, False)
        text = b""
        while True:
            try:
                data = os.read(self.stderr, 65536)
            except BlockingIOError:
                break
            if not data:
                break
            text += data
        return text.decode("utf-8", "replace")

    def close(self) -> None:
        """Release all that is the front's."""
        self.close_gate()
        self.command.close()
        os.close(self.stderr)
        if self.pidfd >= 0:
            os.close(self.pidfd)


class ForkBench:
    """Owner of one fork server and its workers."""

    def __init__(self, root: Path, *, server_prefix: Sequence[str] = ()) -> None:
        self.layout = RuntimeLayout(root)
        self.layout.prepare()
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.auth = PeerAuthenticator(self.context)
        self.subscriber = HealthSubscriber(self.context, self.layout.health)
        self.front, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.server = subprocess.Popen(
                [*server_prefix, sys.executable, "-m", "devd.workers.forkserver", "--fd", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
            )
        self.health: dict[str, list[Health]] = defaultdict(list)
        self.errors: list[str] = []
        self.workers: dict[int, Worker] = {}
        self._count = 0

    def spec(self, device: str, **changes: object) -> WorkerSpec:
        """Return a worker's spec with short times; ``changes`` are fields of WorkerSpec."""
        self._count += 1
        values: dict[str, object] = {
            "role": "worker",
            "device": device,
            "resource": "example.com/thing",
            "driver": "sim",
            "incarnation": 1,
            "health_endpoint": ipc_address(self.layout.health),
            "command_endpoint": ipc_address(self.layout.command(self._count)),
            "period_s": 60.0,
            "timeout_s": 2.0,
            "probe": {"kind": "sim"},
            "target": Device(device),
        }
        return WorkerSpec(**(values | changes))  # type: ignore[arg-type]  # the caller names real fields

    def fork(self, spec: WorkerSpec, *, open_gate: bool = True) -> Worker:
        """Order a worker and wait until it is there (or has failed)."""
        worker = self.order(spec)
        self.until(lambda: worker.pid != 0 or worker.failed != "")
        if open_gate and worker.pid:
            worker.open_gate()
        return worker

    def order(self, spec: WorkerSpec) -> Worker:
        """Order a worker."""
        gate_read, gate_write = os.pipe2(os.O_CLOEXEC)
        stderr_read, stderr_write = os.pipe2(os.O_CLOEXEC)
        path = Path(spec.command_endpoint.removeprefix("ipc://"))
        command = CommandServer(self.context, path, spec.role, f"command:{spec.device}".encode())
        number = len(self.workers) + 1
        worker = Worker(spec.device, gate_write, stderr_read, command)
        self.workers[number] = worker
        socket.send_fds(self.front, [codec.encode(Fork(number, spec))], [gate_read, stderr_write])
        os.close(gate_read)
        os.close(stderr_write)
        return worker

    def until(self, condition: Callable[[], bool], within_s: float = WAIT_S) -> None:
        """Take in what comes until a condition holds; fail when it does not in time."""
        deadline_s = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < deadline_s, f"not so within {within_s} s; said last: {self._last()}"
            self.pump(0.01)

    def _last(self) -> dict[str, Health]:
        return {device: said[-1] for device, said in self.health.items() if said}

    def pump(self, wait_s: float) -> None:
        """Take in what waits on every socket."""
        fds = [self.front.fileno(), self.subscriber.fd, self.auth.fd]
        select.select([one for one in fds if one >= 0], [], [], wait_s)
        self._hear_server()
        while self.auth.pending():
            self.auth.handle()
        for received in self.subscriber.drain():
            if received.message is None:
                self.errors.append(received.error)
            else:
                assert received.identity == received.message.device
                self.health[received.message.device].append(received.message)
        for worker in self.workers.values():
            self._hear_worker(worker)

    def _hear_worker(self, worker: Worker) -> None:
        if not worker.command.pending():
            return
        for received in worker.command.drain():
            match received.message:
                case Hello() as hello:
                    worker.hellos.append(hello)
                case Listing() as listing:
                    worker.listings.append(listing)
                case ResetDone() as done:
                    worker.resets.append(done)
                case None:
                    self.errors.append(received.error)

    def _hear_server(self) -> None:
        while self.front.fileno() >= 0 and select.select([self.front], [], [], 0)[0]:
            data, fds, _flags, _address = socket.recv_fds(self.front, 65536, 4, socket.MSG_CMSG_CLOEXEC)
            if not data:
                return
            message: Forked | ForkFailed | ChildExit = codec.decode(data, Forked, ForkFailed, ChildExit)
            match message:
                case Forked():
                    worker = self.workers[message.request_id]
                    worker.pid, (worker.pidfd,) = message.pid, fds
                    self.auth.admit(message.pid, worker.device)
                case ForkFailed():
                    self.workers[message.request_id].failed = message.reason
                case ChildExit():
                    next(one for one in self.workers.values() if one.pid == message.pid).exit = message

    def send(self, worker: Worker, message: ProbeNow | Reset | Stop) -> None:
        """Send a command, as soon as the worker is connected."""
        self.until(lambda: worker.command.send(message))

    def verdicts(self, device: str) -> list[Health]:
        """Return the reports that told of a finished probe."""
        return [one for one in self.health[device] if one.probe_count and not one.activity]

    def until_verdict(self, device: str, count: int = 1, within_s: float = WAIT_S) -> Health:
        """Wait for a device's probe number ``count`` and return its report."""
        self.until(lambda: any(one.probe_count >= count for one in self.verdicts(device)), within_s)
        return next(one for one in self.verdicts(device) if one.probe_count >= count)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.front.close()
        for worker in self.workers.values():
            worker.close()
        try:
            self.server.wait(10)
        except subprocess.TimeoutExpired:
            self.server.kill()
            self.server.wait()
            raise
        finally:
            self.subscriber.close()
            self.auth.close()
            self.context.destroy(linger=0)
            self.layout.remove()


def alive(pid: int) -> bool:
    """Return whether a process exists and is no zombie; reads only what cannot block."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return text.rpartition(")")[2].split()[0] not in {"Z", "X"}


def until(condition: Callable[[], bool], within_s: float = WAIT_S) -> None:
    """Wait for a condition that no socket tells of."""
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not so within {within_s} s"
        select.select([], [], [], 0.005)
