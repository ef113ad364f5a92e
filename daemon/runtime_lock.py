"""The runtime directory: made, locked for one daemon, and removed again with all that lies in it."""

import fcntl
import os
from contextlib import suppress

from devd.daemon.errors import AlreadyRunningError, StartupError
from devd.ipc.endpoints import RuntimeLayout, check_socket_path

LOCK_TRIES = 5
"""A daemon that ends unlinks its lock; one that starts meanwhile may have opened that file and tries again."""


class RuntimeLock:
    """Context manager: inside it this process alone owns the directory. The kernel drops the lock with the process."""

    def __init__(self, layout: RuntimeLayout) -> None:
        self._layout = layout
        self._fd = -1
        self._made_root = False

    def __enter__(self) -> RuntimeLayout:
        """Lock before anything in the directory is touched, then clear what an earlier daemon left.

        Raises AlreadyRunningError naming the holder, StartupError or EndpointError when the directory cannot be used.
        """
        root = self._layout.root
        check_socket_path(self._layout.command(1))
        try:
            self._made_root = not root.exists()
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fd = self._lock()
        except OSError as error:
            text = f"runtime directory {root}: {error.strerror}; choose another with --runtime-dir"
            raise StartupError(text) from error
        os.ftruncate(self._fd, 0)
        os.write(self._fd, f"{os.getpid()}\n".encode())
        try:
            self._layout.prepare()
        except BaseException:
            self.__exit__()
            raise
        return self._layout

    def __exit__(self, *_exc: object) -> None:
        """Remove what was made; a directory that was there before stays."""
        self._layout.lock.unlink(missing_ok=True)
        self._layout.remove()
        if self._made_root:
            with suppress(OSError):
                self._layout.root.rmdir()
        os.close(self._fd)

    def _lock(self) -> int:
        for _ in range(LOCK_TRIES):
            fd = os.open(self._layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(fd, 32).decode("ascii", "replace").strip() or "unknown"
                os.close(fd)
                raise AlreadyRunningError(
                    f"another devd (pid {holder}) holds {self._layout.root}: "
                    "stop it, or give this one its own --runtime-dir"
                ) from None
            if self._is_the_file(fd):
                return fd
            os.close(fd)
        raise StartupError(f"{self._layout.lock} is made and removed again and again: who else uses this directory?")

    def _is_the_file(self, fd: int) -> bool:
        """Return whether the locked file is still the one at the path."""
        try:
            there = self._layout.lock.stat()
        except FileNotFoundError:
            return False
        mine = os.fstat(fd)
        return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)
