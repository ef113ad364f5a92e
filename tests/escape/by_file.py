"""Attempts by a file or directory that may be read: what its file system, its lock and its watchers answer."""

import errno
import fcntl
import os
import struct
from collections.abc import Callable

from tests.escape.scene import Attempt, Scene, call, checked, libc

FIFREEZE, FITHAW, FITRIM = 0xC0045877, 0xC0045878, 0xC0185879
SHUTDOWN = 0x8004587D
_SET_FLAGS = 0x40086602
_NO_SUCH_SHUTDOWN = 99
_IN_CREATE, _IN_OPEN = 0x100, 0x20
_SYSLOG_BUFFER_SIZE = 10


def _mounted(scene: Scene) -> int:
    if scene.mount_fd < 0:
        raise OSError(errno.EOPNOTSUPP, "no file system of the test's own could be mounted")
    return scene.mount_fd


def _freeze(scene: Scene) -> None:
    """Freeze the test's own file system, never another; and have it go on."""
    fd = _mounted(scene)
    fcntl.ioctl(fd, FIFREEZE, 0)
    fcntl.ioctl(fd, FITHAW, 0)


def _shut_down(scene: Scene) -> None:
    """Ask the test's own file system to shut down in a way there is none: it says so to whoever may ask."""
    fcntl.ioctl(_mounted(scene), SHUTDOWN, struct.pack("=I", _NO_SUCH_SHUTDOWN))


def _watch(path: str, mask: int) -> None:
    fd = checked(libc.inotify_init1(os.O_CLOEXEC))
    try:
        checked(libc.inotify_add_watch(fd, os.fsencode(path), mask))
    finally:
        os.close(fd)


def _opened(path: str, flags: int) -> Callable[[Scene], None]:
    return lambda _scene: os.close(os.open(path, flags))


FILES: dict[str, Attempt] = {
    # Nothing is frozen: the answer to whoever may ask is that there is nothing to thaw.
    "thaw": Attempt(lambda scene: fcntl.ioctl(scene.folder_fd, FITHAW, 0)),
    "freeze": Attempt(_freeze),
    "trim": Attempt(lambda scene: fcntl.ioctl(_mounted(scene), FITRIM, bytes(24))),
    "shut_down": Attempt(_shut_down),
    "file_flags": Attempt(lambda scene: fcntl.ioctl(scene.open_file, _SET_FLAGS, struct.pack("=q", 0))),
    "lock_file": Attempt(lambda scene: fcntl.flock(scene.folder_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)),
    "inotify_outside": Attempt(lambda _scene: _watch("/etc", _IN_OPEN)),
    "inotify_names_outside": Attempt(lambda _scene: _watch("/etc", _IN_CREATE)),
    "inotify_private": Attempt(lambda scene: _watch(str(scene.path("folder")), _IN_CREATE)),
    "kernel_log_write": Attempt(_opened("/dev/kmsg", os.O_WRONLY)),
    "kernel_log_read": Attempt(_opened("/proc/kmsg", os.O_RDONLY | os.O_NONBLOCK)),
    "kernel_log_call": Attempt(lambda _scene: call("syslog", _SYSLOG_BUFFER_SIZE, 0, 0)),
    "debugfs": Attempt(lambda _scene: os.listdir("/sys/kernel/debug")),  # noqa: PTH208 - as in attempts.py
}
