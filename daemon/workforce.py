"""The workers as processes: orders them from the fork server, hears them, kills them, and makes sure of their ends.

It knows no lifecycle: what happens is told to one owner. A worker counts as gone when the fork server has reaped it
and its process group is empty; while there is no fork server its workers are this process's children (it is their
subreaper) and it does the same itself.
"""

import logging
import os
import resource
import time
from asyncio import AbstractEventLoop
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import zmq

from devd.daemon.fork_client import ForkClient, ForkEvents, describe_end, describe_status
from devd.daemon.turns import Turns
from devd.daemon.worker_handle import WorkerHandle
from devd.ipc.endpoints import RuntimeLayout, ipc_address
from devd.ipc.errors import EndpointError
from devd.ipc.identity import PeerAuthenticator
from devd.ipc.messages import ChildExit, FromWorker, ToWorker, WorkerSpec

GROUP_POLL_S = 0.05
"""How often an orphaned process group is looked at until it is empty; only while the fork server is away."""

DESCRIPTOR_RESERVE = 64
"""Descriptors kept for the kubelet, the logs and connections: libzmq aborts the process when accept(2) finds none."""
DESCRIPTORS_A_WORKER = 12
"""Gate, stderr, pidfd, its order's two, and libzmq's for a channel with its peer, with room."""
DESCRIPTORS_COUNTED_EVERY = 16
MESSAGES_A_TURN = 4
OUT_OF_DESCRIPTORS = "the daemon is short of file descriptors: raise its limit (ulimit -n, LimitNOFILE=)"

REFUSALS = ("flood", "garbage", "spoof")
"""Why a message on a command channel is refused; a metric's labels. What is not for a role to say is garbage."""

log = logging.getLogger("devd.workforce")


@dataclass(frozen=True, slots=True)
class End:
    """How a worker ended: words, last lines of its stderr, and what it used (getrusage(2); empty if unknown)."""

    pid: int
    detail: str
    last_words: tuple[str, ...]
    usage: dict[str, float]


class Owner(Protocol):
    """Whom the workforce tells. All calls come on the event loop."""

    def spawned(self, device: str, incarnation: int, pid: int) -> None:
        """Take note: the worker lives and its gate is open."""

    def spawn_failed(self, device: str, incarnation: int, reason: str) -> None:
        """Take note: there is no such worker and there will be none."""

    def died(self, device: str, incarnation: int) -> None:
        """Take note: the worker's process has ended; how, and whether all of its group has, comes with ``exited``."""

    def exited(self, device: str, incarnation: int, end: End) -> None:
        """Take note: the worker and its process group are gone."""

    def said(self, device: str, incarnation: int, message: FromWorker) -> str:
        """Take in a message from the worker's own channel; return why it is refused, or ""."""

    def misbehaved(self, device: str, incarnation: int, detail: str) -> None:
        """Take note: the worker broke the protocol."""


class Workforce:
    """Owner of the fork client and of every worker's handle."""

    def __init__(
        self,
        loop: AbstractEventLoop,
        context: zmq.Context[zmq.Socket[bytes]],
        layout: RuntimeLayout,
        auth: PeerAuthenticator,
        owner: Owner,
        turns: Turns,
    ) -> None:
        self._loop = loop
        self._context = context
        self._layout = layout
        self._auth = auth
        self._owner = owner
        self._turns = turns
        self._descriptors = DescriptorCount()
        self._handles: dict[str, WorkerHandle] = {}
        self._orders: dict[int, WorkerHandle] = {}
        self._by_pid: dict[int, WorkerHandle] = {}
        self._sockets_made = 0
        self._refused: Counter[str] = Counter()
        events = ForkEvents(self._forked, self._fork_failed, self._child_exit, self._fork_server_lost)
        self.forks = ForkClient(loop, events, turns)
        self.forks.start()

    @property
    def pids(self) -> tuple[int, ...]:
        """Return the pids of all workers whose end has not been seen."""
        return tuple(self._by_pid)

    @property
    def refused(self) -> Mapping[str, int]:
        """Return how many messages on command channels were refused, by reason."""
        return self._refused

    def device_of(self, pid: int) -> str:
        """Return whose worker a process is, or nothing."""
        handle = self._by_pid.get(pid)
        return handle.device if handle is not None else ""

    # ---- orders ----

    def socket_for_next(self) -> str:
        """Return the endpoint of the next worker's command channel, for its spec."""
        return ipc_address(self._layout.command(self._sockets_made + 1))

    def spawn(self, device: str, spec: WorkerSpec) -> None:
        """Order a worker; its spec names the endpoint ``socket_for_next`` gave."""
        self._sockets_made += 1
        if self._descriptors.after_one_more() + DESCRIPTOR_RESERVE > resource.getrlimit(resource.RLIMIT_NOFILE)[0]:
            self._loop.call_soon(self._owner.spawn_failed, device, spec.incarnation, OUT_OF_DESCRIPTORS)
            return
        path = self._layout.command(self._sockets_made)
        handle = WorkerHandle(self._loop, device, spec.role, spec.incarnation, path)
        self._handles[device] = handle
        try:
            gate_fd, stderr_fd = handle.open(self._context, b"command:" + device.encode())
        except (OSError, EndpointError) as error:
            self._release(handle)
            reason = str(error)
            self._loop.call_soon(self._owner.spawn_failed, device, spec.incarnation, reason)
            return
        if handle.command is not None:
            self._loop.add_reader(handle.command.fd, self._command_readable, handle)
        self._orders[self.forks.order(spec, gate_fd, stderr_fd)] = handle

    def send(self, device: str, message: ToWorker) -> bool:
        """Send a command to a device's worker; False when there is none or its channel is full."""
        handle = self._handles.get(device)
        if handle is None:
            return False
        sent = handle.send(message)
        if handle.command is not None and handle.command.pending():
            # Sending may swallow the wake-up for what arrived at the same time.
            self._loop.call_soon(self._command_readable, handle)
        return sent

    def kill(self, device: str, incarnation: int) -> None:
        """SIGKILL a worker; one that is not there yet is killed by its owner once ``spawned`` tells of it."""
        handle = self._handles.get(device)
        if handle is not None and handle.incarnation == incarnation:
            handle.kill()

    def pid(self, device: str, incarnation: int) -> int | None:
        """Return the pid of a device's worker, if that incarnation is the present one."""
        handle = self._handles.get(device)
        return handle.pid if handle is not None and handle.incarnation == incarnation else None

    # ---- births ----

    def _forked(self, request_id: int, pid: int, pidfd: int) -> None:
        handle = self._orders.pop(request_id, None)
        if handle is None:
            os.close(pidfd)
            return
        handle.born(pid, pidfd)
        self._by_pid[pid] = handle
        handle.watch_end(lambda: self._pidfd_ended(handle))
        self._auth.admit(pid, handle.device)
        handle.open_gate()
        self._owner.spawned(handle.device, handle.incarnation, pid)

    def _fork_failed(self, request_id: int, reason: str) -> None:
        handle = self._orders.pop(request_id, None)
        if handle is not None:
            self._release(handle)
            self._owner.spawn_failed(handle.device, handle.incarnation, reason)

    def _release(self, handle: WorkerHandle) -> None:
        if handle.command is not None:
            self._loop.remove_reader(handle.command.fd)
        if handle.pid is not None:
            self._auth.revoke(handle.pid)
            self._by_pid.pop(handle.pid, None)
        handle.close()
        if self._handles.get(handle.device) is handle:
            del self._handles[handle.device]

    # ---- ends ----

    def _child_exit(self, end: ChildExit) -> None:
        handle = self._by_pid.get(end.pid)
        if handle is not None:
            usage = {"user_s": end.user_s, "system_s": end.system_s, "max_rss_kib": float(end.max_rss_kib)}
            self._ended(handle, describe_end(end.code, end.signal), usage)

    def _pidfd_ended(self, handle: WorkerHandle) -> None:
        """Wait for the fork server's word on the exit, or collect it ourselves when there is no fork server."""
        self._owner.died(handle.device, handle.incarnation)
        if self.forks.alive and handle.pid is not None:
            self.forks.await_end(handle.pid)
        else:
            self._collect(handle, "")

    def _collect(self, handle: WorkerHandle, detail: str) -> None:
        """Reap a dead worker that the fork server left to us, then wait until its process group is empty."""
        pid = handle.pid
        if pid is None or self._by_pid.get(pid) is not handle or not handle.over:
            return
        # Before the zombie is reaped it pins the group's id: nobody else can be hit.
        left = _kill_group(pid)
        with suppress(ChildProcessError):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                detail = describe_status(status)
                left = _kill_group(pid)
        # A zombie counts as left: one that is not our child yet becomes it when the fork server's end is complete.
        if left:
            self._loop.call_later(GROUP_POLL_S, self._collect, handle, detail)
            return
        self._ended(handle, detail or "ended while the fork server was away", {})

    def _ended(self, handle: WorkerHandle, detail: str, usage: dict[str, float]) -> None:
        end = End(handle.pid or 0, detail, tuple(handle.last_words()), usage)
        self._release(handle)
        self._owner.exited(handle.device, handle.incarnation, end)

    def _fork_server_lost(self, reason: str) -> None:
        """Take over the wait for each worker whose end the fork server did not tell any more."""
        del reason
        for handle in list(self._by_pid.values()):
            self._collect(handle, "")

    def reap(self) -> None:
        """Collect dead children (SIGCHLD): the fork server, workers it left behind, orphans of probes' commands."""
        while (pid := _next_dead_child()) is not None:
            handle = self._by_pid.get(pid)
            if handle is not None:
                self._collect(handle, "")
                continue
            with suppress(ChildProcessError):
                _, status = os.waitpid(pid, os.WNOHANG)
                if pid == self.forks.pid:
                    self.forks.note_exit(status)

    # ---- what workers say ----

    def _command_readable(self, handle: WorkerHandle) -> None:
        self._turns.put(handle, partial(self._hear, handle))

    def _hear(self, handle: WorkerHandle) -> bool:
        """Take in some of what a worker has said; return whether there is more."""
        channel = handle.command
        if channel is None:
            return False
        now_s = time.monotonic()
        for received in channel.drain(MESSAGES_A_TURN):
            if not handle.rate.allows(now_s):
                self._refused["flood"] += 1
                self._owner.misbehaved(handle.device, handle.incarnation, "floods its command channel")
                break
            if received.message is None:
                self._refused["garbage"] += 1
                self._owner.misbehaved(handle.device, handle.incarnation, received.error)
            elif refusal := self._owner.said(handle.device, handle.incarnation, received.message):
                self._refused[refusal] += 1
        return handle.command is not None and handle.command.pending()

    def close(self) -> None:
        """Kill and release everything. Workers that cannot die are left to the kernel, their gates closed."""
        self.forks.close()
        for handle in list(self._handles.values()):
            handle.kill()
            self._release(handle)
        self._orders.clear()


class DescriptorCount:
    """How many descriptors this process has open: counted now and then, estimated upwards in between.

    Counting takes about a millisecond where there are thousands, which is too much for each of hundreds of restarts.
    """

    def __init__(self) -> None:
        self._counted = 0
        self._since = DESCRIPTORS_COUNTED_EVERY

    def after_one_more(self) -> int:
        """Return how many there are at most once another worker has its own."""
        if self._since >= DESCRIPTORS_COUNTED_EVERY:
            self._counted = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count is all that is wanted
            self._since = 0
        self._since += 1
        return self._counted + self._since * DESCRIPTORS_A_WORKER


def _kill_group(pid: int) -> bool:
    """SIGKILL a process group; return whether anything of it is left."""
    try:
        os.killpg(pid, 9)
    except ProcessLookupError:
        return False
    return True


def _next_dead_child() -> int | None:
    """Return the pid of a zombie child, unreaped, or None."""
    try:
        done = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return done.si_pid if done is not None else None
