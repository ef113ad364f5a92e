"""What both ways of registering share: an endpoint's status, its timing, its backoff and its one way to wait."""

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Protocol

Mode = Literal["socket", "watcher"]
State = Literal["serving", "registering", "registered", "waiting for kubelet", "refused"]


class KubeletPaths(Protocol):
    """Where the kubelet is met: the ``kubelet`` section of the configuration."""

    @property
    def dir(self) -> Path:
        """The device-plugins directory: kubelet.sock and, in socket mode, our sockets."""

    @property
    def registration(self) -> Mode:
        """Which way in."""

    @property
    def registry_dir(self) -> Path:
        """The plugins_registry directory: our sockets in watcher mode."""


@dataclass(frozen=True, slots=True)
class Timing:
    """The numbers an endpoint lives by, all in seconds. The defaults are the product's; tests shorten them."""

    register_s: float = 20.0
    """One Register may take this long: the kubelet's own dial back is bounded by 10 s."""
    stream_s: float = 10.0
    """Between a registration and its ListAndWatch stream, which a kubelet opens at once."""
    self_check_s: float = 5.0
    """For our own server to answer on its own path: milliseconds on any node that is alive."""
    steady_s: float = 5.0
    """A stream that lived this long was a success; one that ended earlier makes the next attempt wait."""
    settle_s: float = 0.1
    """Between the end of a stream that we ended and the next Register: the kubelet forgets the old client in a
    goroutine of its own (under a millisecond), and a Register that overtakes it is lost."""
    backoff_s: float = 0.02
    """First pause between attempts. Small: a new kubelet.sock is seen before the kubelet listens on it."""
    backoff_max_s: float = 5.0
    """Longest pause between attempts."""
    refused_s: float = 60.0
    """Pause after a refusal that only a change of configuration can cure."""
    stop_s: float = 0.2
    """What calls under way may take when the server stops; answers come from memory, in under a millisecond."""


@dataclass(frozen=True, slots=True)
class EndpointStatus:
    """How one resource stands with the kubelet. ``since`` is the wall time of the last change of ``state``, ISO 8601.

    ``registrations`` counts those the kubelet accepted since the start; ``last_error`` is empty when all is well.
    """

    mode: Mode
    socket: Path
    state: State
    since: str
    registrations: int = 0
    last_error: str = ""
    stream_open: bool = False


class StatusBoard:
    """Holds an endpoint's status; the one place that changes it, and logs each change once."""

    def __init__(
        self, resource: str, mode: Mode, socket: Path, log: logging.Logger, clock: Callable[[], float]
    ) -> None:
        self._resource = resource
        self._log = log
        self._clock = clock
        self.status = EndpointStatus(mode=mode, socket=socket, state="waiting for kubelet", since=self._now())

    def enter(self, state: State, error: str = "") -> None:
        """Take the state and the error that goes with it; a new text is logged, a repeated one is not."""
        before = self.status
        since = before.since if state == before.state else self._now()
        self.status = replace(before, state=state, since=since, last_error=error)
        if error and error != before.last_error:
            level = logging.ERROR if state == "refused" else logging.WARNING
            self._log.log(level, "%s: %s: %s", self._resource, state, error)
        elif not error and state != before.state:
            level = logging.DEBUG if state in {"serving", "registering"} else logging.INFO
            self._log.log(level, "%s: %s", self._resource, state)

    def registered(self) -> None:
        """Count one more accepted registration."""
        self.status = replace(self.status, registrations=self.status.registrations + 1)
        self.enter("registered")

    def _now(self) -> str:
        return datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds")


class Waker:
    """One task waits for conditions over plain values; whoever changes such a value calls ``wake``.

    Level-triggered: nothing is queued, and a change that comes before the wait is not lost.
    """

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def wake(self) -> None:
        """Have the waiting task look at its condition again."""
        self._event.set()

    async def until(self, condition: Callable[[], bool], timeout_s: float | None) -> bool:
        """Wait until ``condition()`` holds or the time is up; return whether it holds."""
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    self._event.clear()
                    await self._event.wait()
        except TimeoutError:
            return condition()
        return True


class Backoff:
    """Growing pauses between attempts: doubled each time up to a cap, a random half taken off."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._next_s = timing.backoff_s

    def next_s(self) -> float:
        """Return the pause before the next attempt."""
        pause_s = self._next_s
        self._next_s = min(self._timing.backoff_max_s, pause_s * 2)
        return pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries, guards no secret

    def reset(self) -> None:
        """Begin with the smallest pause again: something changed that makes success likely."""
        self._next_s = self._timing.backoff_s
