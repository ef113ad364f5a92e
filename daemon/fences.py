"""Workers that an earlier daemon left behind: each holds its device until its end is seen.

They are no children of this process; a pidfd proves their end all the same.
"""

import os
import signal
from asyncio import AbstractEventLoop
from collections.abc import Callable
from contextlib import suppress

from devd.daemon import proc
from devd.daemon.memory import WorkerMark


class Fences:
    """Owner of one pidfd for each process that is waited for. ``ended(device)`` is called once for each."""

    def __init__(self, loop: AbstractEventLoop, ended: Callable[[str], None]) -> None:
        self._loop = loop
        self._ended = ended
        self._held: dict[str, tuple[int, int]] = {}

    def hold(self, device: str, mark: WorkerMark) -> bool:
        """Wait for a process's end; False when that very process is gone already."""
        if device in self._held:
            return True
        try:
            pidfd = os.pidfd_open(mark.pid)
        except OSError:
            return False
        # Only now is it sure that the number will not change its owner under us.
        if proc.start_time_ticks(mark.pid) != mark.started_ticks:
            os.close(pidfd)
            return False
        self._held[device] = (mark.pid, pidfd)
        self._loop.add_reader(pidfd, self._over, device)
        return True

    def pid(self, device: str) -> int | None:
        """Return the pid that holds a device, or None."""
        held = self._held.get(device)
        return held[0] if held is not None else None

    def kill(self, device: str) -> None:
        """SIGKILL the process that holds a device: it dies when the kernel lets it."""
        held = self._held.get(device)
        if held is not None:
            with suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(held[1], signal.SIGKILL)

    def close(self) -> None:
        """Wait for none of them any more; they stay in the state directory."""
        for device in list(self._held):
            self._release(device)

    def _over(self, device: str) -> None:
        self._release(device)
        self._ended(device)

    def _release(self, device: str) -> None:
        _, pidfd = self._held.pop(device)
        self._loop.remove_reader(pidfd)
        os.close(pidfd)
