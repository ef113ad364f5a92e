"""Tells systemd how devd is (sd_notify(3)): ready, reloading, stopping, a line for people, and that the loop turns.

All of it is sent from the event loop, so that a loop that stands still is one that systemd hears nothing of and
restarts (WatchdogSec=). Where no service manager asks for it nothing is sent.

Ready is devd once the kubelet has each resource, or once it is known why it has not: a kubelet that is not there yet
must not hold up the start of a service it may itself come after.
"""

import logging
import os
import socket
import time
from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager

SOCKET_VARIABLE = "NOTIFY_SOCKET"
WATCHDOG_VARIABLE = "WATCHDOG_USEC"
WATCHDOG_PID_VARIABLE = "WATCHDOG_PID"
STATUS_EVERY_S = 5.0
LOOK_EVERY_S = 0.1
"""How often to ask whether devd is ready, until it is."""
FED_PER_TIMEOUT = 3.0
"""sd_watchdog_enabled(3) asks for twice in the timeout; once more leaves room for a busy node."""

log = logging.getLogger("devd.notify")


class Notifier:
    """Owner of one datagram socket to the service manager, or of nothing.

    ``settled`` returns whether devd is ready, ``status`` a short text.
    """

    def __init__(
        self,
        loop: AbstractEventLoop,
        settled: Callable[[], bool],
        status: Callable[[], str],
        environment: MutableMapping[str, str] = os.environ,
    ) -> None:
        """Take what the environment says out of it: no worker shall speak to the service manager."""
        address = environment.pop(SOCKET_VARIABLE, "")
        self._every_s = _beat_s(environment.pop(WATCHDOG_VARIABLE, ""), environment.pop(WATCHDOG_PID_VARIABLE, ""))
        self._loop = loop
        self._settled = settled
        self._status = status
        self._ready = False
        self._told = ""
        self._timers: dict[str, TimerHandle] = {}
        self._socket = _connected(address) if address else None

    def start(self) -> None:
        """Say from now on how devd is, and that it is ready once it is."""
        self._look()
        self._beat()

    @contextmanager
    def reload(self) -> Iterator[None]:
        """Say that a configuration is being taken, then that devd serves by the new one, or still by the old one."""
        told = self._ready  # who has not said READY=1 yet is starting, whatever it reads meanwhile
        if told:
            self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            yield
        finally:
            if told:
                self._send("READY=1")

    def close(self) -> None:
        """Say that devd ends, and nothing more."""
        for timer in self._timers.values():
            timer.cancel()
        self._send("STOPPING=1")
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _look(self) -> None:
        if self._socket is None:
            return
        if self._settled():
            self._ready = True
            self._send("READY=1")
        else:
            self._timers["look"] = self._loop.call_later(LOOK_EVERY_S, self._look)

    def _beat(self) -> None:
        if self._socket is None:
            return
        words = [] if self._every_s is None else ["WATCHDOG=1"]
        status = " ".join(self._status().split())
        if status != self._told:
            self._told = status
            words.append(f"STATUS={status}")
        if words:
            self._send("\n".join(words))
        pause_s = min(STATUS_EVERY_S, self._every_s or STATUS_EVERY_S)
        self._timers["beat"] = self._loop.call_later(pause_s, self._beat)

    def _send(self, text: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.send(text.encode())
        except BlockingIOError:
            return  # systemd is busy; the next beat comes soon
        except OSError as error:
            log.warning("the service manager does not hear devd any more: %s", error.strerror)
            self._socket.close()
            self._socket = None


def _beat_s(timeout_us: str, pid: str) -> float | None:
    """Return how often to feed the watchdog, in seconds; None when it is not for this process."""
    if not timeout_us.isdecimal() or int(timeout_us) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(timeout_us) / 1e6 / FED_PER_TIMEOUT


def _connected(address: str) -> socket.socket | None:
    """Return a socket to the service manager; a leading @ stands for the NUL of an abstract address."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        made.connect(f"\0{address[1:]}" if address.startswith("@") else address)
    except OSError as error:
        made.close()
        log.warning("%s=%s cannot be reached: %s", SOCKET_VARIABLE, address, error.strerror)
        return None
    return made
