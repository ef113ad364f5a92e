"""The loop of workers and scouts: waits for the next run's time, a command, or the front's end."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import zmq

from devd.ipc.messages import Fault, Inject, ProbeNow, Reset, Stop, WriteSpecs
from devd.workers.channel import RETRY_S, Channel
from devd.workers.errors import EXIT_STOPPED

COMMANDS_PER_TURN = 16
"""Commands taken before the next run's time is looked at again."""


class Task(Protocol):
    """What a process does over and over; all of it in this thread, so that a hang in it is a hang of the process."""

    @property
    def due_at_s(self) -> float:
        """When the next run is due (CLOCK_MONOTONIC)."""

    @property
    def watched(self) -> Mapping[int, Callable[[], None]]:
        """File descriptors to wait for, and what to call when one is readable."""

    def run(self) -> None:
        """Run once and set the next due time."""

    def reset(self, order: Reset) -> None:
        """Carry out a reset order."""

    def inject(self, fault: Fault | None) -> None:
        """Misbehave like this from now on, where that is simulated; None ends it."""

    def leave_alone(self, paths: tuple[str, ...]) -> None:
        """Touch these paths no more, and those named before again."""


def serve(task: Task, channel: Channel, lifeline_fd: int, order: Callable[[WriteSpecs], None] | None = None) -> int:
    """Run a task until the front says stop or is gone; return the exit code. ``order`` takes the scribe's orders."""
    poller = zmq.Poller()
    poller.register(channel.client.socket, zmq.POLLIN)
    poller.register(lifeline_fd, zmq.POLLIN | zmq.POLLERR)
    watched: frozenset[int] = frozenset()
    while True:
        if time.monotonic() >= task.due_at_s:
            task.run()
        pause_s = max(0.0, task.due_at_s - time.monotonic())
        if not channel.flush():
            pause_s = min(pause_s, RETRY_S)
        watched = _follow(poller, watched, frozenset(task.watched))
        ready = dict(poller.poll(math.ceil(pause_s * 1000)))
        if lifeline_fd in ready:
            return EXIT_STOPPED
        for fd, readable in task.watched.items():
            if fd in ready:
                readable()
        if _obey(task, channel, order):
            return EXIT_STOPPED


def _follow(poller: zmq.Poller, before: frozenset[int], now: frozenset[int]) -> frozenset[int]:
    """Have a poller wait for what the task watches now: a run may open and close descriptors."""
    for fd in before - now:
        poller.unregister(fd)
    for fd in now - before:
        poller.register(fd, zmq.POLLIN)
    return now


def _obey(task: Task, channel: Channel, order: Callable[[WriteSpecs], None] | None) -> bool:
    """Carry out what commands wait; return whether one of them was to stop."""
    for _ in range(COMMANDS_PER_TURN):
        match channel.client.receive():
            case None:
                return False
            case Stop():
                return True
            case ProbeNow(paths):
                if paths is not None:
                    task.leave_alone(paths)
                task.run()
            case Inject(fault):
                task.inject(fault)
                task.run()
            case Reset() as reset:
                task.reset(reset)
            case WriteSpecs() as told if order is not None:
                order(told)
    return False
