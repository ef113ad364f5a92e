"""NVML's events of one GPU: a thread waits for them, since NVML has no descriptor to poll and loses what nobody awaits.

The thread is the only one that calls NVML beside the probe's; the library allows that. It ends with ``close``.
"""

import os
import threading
from collections import deque
from dataclasses import dataclass

from devd.workers.hw.nvml import NOT_SUPPORTED, TIMEOUT, NvmlError, Session, free_events, next_event

XID = 0x8
"""nvmlEventTypeXidCriticalError."""
UNAVAILABLE = 0x4000
"""nvmlEventTypeGpuUnavailableError."""
ACTION_CHANGED = 0x8000
"""nvmlEventTypeGpuRecoveryAction."""
WANTED = XID | UNAVAILABLE | ACTION_CHANGED

WAIT_MS = 500
"""One wait; closing takes so long at worst."""
CLOSE_S = 2.0
"""A thread that has not ended by then hangs in the driver, and is left to the process's end."""
MAX_EVENTS = 256
"""Kept until the next probe takes them; a GPU in trouble repeats itself."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event; ``data`` is the XID's number for an XID. Instances are ``NO_INSTANCE`` for the whole GPU."""

    kind: int
    data: int
    gpu_instance: int
    compute_instance: int


class EventWatch:
    """The events of one GPU. ``fd`` is readable when there are some; ``problem`` says why no more will come."""

    def __init__(self, session: Session) -> None:
        """Register and start to wait.

        Raises NvmlError (NOT_SUPPORTED where the GPU has no events), OSError when there is no room for the thread.
        """
        self._set, kinds = session.register_events(WANTED)
        if not kinds & XID:
            free_events(self._set)
            raise NvmlError("event types", NOT_SUPPORTED, "the GPU tells no XIDs")
        self.problem = ""
        self.missed = 0
        self._events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._wait, name="nvml-events", daemon=True)
        try:
            self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        except OSError:
            free_events(self._set)
            raise
        try:
            self._thread.start()
        except RuntimeError as error:  # Python's word for a refused clone(2)
            os.close(self.fd)
            free_events(self._set)
            raise OSError(f"no thread to wait for NVML's events with: {error}") from error

    def drain(self) -> list[Event]:
        """Return the events since the last call, oldest first."""
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return []
        found = []
        while self._events:
            found.append(self._events.popleft())
        return found

    def close(self) -> bool:
        """Stop waiting and free the set; return False when the thread hangs in the driver and stays behind."""
        self._stop.set()
        self._thread.join(CLOSE_S)
        if self._thread.is_alive():
            return False  # it still uses the set and the descriptor
        free_events(self._set)
        os.close(self.fd)
        return True

    def _wait(self) -> None:
        while not self._stop.is_set():
            try:
                data = next_event(self._set, WAIT_MS)
            except NvmlError as error:
                if error.code == TIMEOUT:
                    continue
                self.problem = str(error)
                os.eventfd_write(self.fd, 1)
                return
            if len(self._events) == MAX_EVENTS:
                self.missed += 1
            self._events.append(Event(data.eventType, data.eventData, data.gpuInstanceId, data.computeInstanceId))
            os.eventfd_write(self.fd, 1)
