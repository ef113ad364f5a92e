"""Where the front's sockets lie: the runtime directory, its files, their modes, and who may be in the way of them."""

import errno
import os
import socket
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from devd.ipc.errors import EndpointError

MAX_SOCKET_PATH_BYTES = 107
"""unix(7): sun_path holds 108 bytes, the last one a NUL."""
DIRECTORY_MODE = 0o700
GROUP_DIRECTORY_MODE = 0o710
"""The group may pass through, and reach the control socket; it cannot list, and the other sockets are closed to it."""
GROUP_SOCKET_MODE = 0o660
SOCKET_MODE = 0o600
"""Only the daemon's own user (and root) may connect: the mode is the first of the two locks, ZAP the second."""

_HIGHEST_COMMAND = 9_999_999
"""Workers started in a daemon's life, for the check that the last one's path will fit as well."""
_SUN_PATH_REMEDY = "use a shorter directory (--runtime-dir)"


def check_socket_path(path: Path) -> Path:
    """Return ``path``, absolute.

    Raises EndpointError when it is longer than the kernel takes, or not UTF-8 (ZeroMQ's addresses are).
    """
    whole = path.absolute()
    raw = os.fsencode(whole)
    if len(raw) > MAX_SOCKET_PATH_BYTES:
        raise EndpointError(
            f"socket path of {len(raw)} bytes: the kernel takes at most {MAX_SOCKET_PATH_BYTES}; "
            f"{_SUN_PATH_REMEDY}: {_shown(whole)}"
        )
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        raise EndpointError(
            f"socket path is not UTF-8: {_shown(whole)}; use another directory (--runtime-dir)"
        ) from error
    return whole


def ipc_address(path: Path) -> str:
    """Return ZeroMQ's address of a socket file. Raises EndpointError as ``check_socket_path`` does."""
    return f"ipc://{check_socket_path(path)}"


def has_listener(path: Path) -> bool:
    """Return whether a live process listens on a socket file; a full queue counts as life. Never waits."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(os.fspath(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except BlockingIOError:
            return True
        except OSError as error:
            raise EndpointError(f"{path}: cannot tell whether it is in use: {_errno_text(error)}") from error
    return True


def remove_stale_socket(path: Path) -> None:
    """Remove a socket file that nobody listens on any more.

    Raises EndpointError when somebody does, or when it is something other than a socket: that is not ours to remove.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise EndpointError(f"{path}: {_errno_text(error)}") from error
    if not stat.S_ISSOCK(mode):
        raise EndpointError(
            f"{path} is {_kind(mode)}, a socket is to be made there; move it, or use another directory (--runtime-dir)"
        )
    if has_listener(path):
        raise EndpointError(
            f"{path} is in use: another devd runs there; stop it, or use another directory (--runtime-dir)"
        )
    path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class RuntimeLayout:
    """The runtime directory and the names in it. ``prepare`` first, ``remove`` last, both by the one daemon.

    ``group`` is the gid whose members may reach the control socket; None is nobody's.
    """

    root: Path
    group: int | None = None
    _made: list[Path] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def health(self) -> Path:
        """The health bus."""
        return self.root / "health.sock"

    @property
    def control(self) -> Path:
        """What ``devd status`` and the operator's verbs talk to."""
        return self.root / "control.sock"

    @property
    def commands(self) -> Path:
        """Directory of the workers' command channels."""
        return self.root / "cmd"

    @property
    def lock(self) -> Path:
        """The file whose lock tells one daemon from two. Its holder makes and removes it."""
        return self.root / "lock"

    def command(self, number: int) -> Path:
        """Return the command channel of the ``number``-th worker started."""
        return self.commands / f"{number}.sock"

    def prepare(self) -> None:
        """Make the directories with mode 0700 (0710 for a group) and remove what a killed daemon left.

        Raises EndpointError when a path is too long, the directory is somebody else's or shared with other files, or
        a live daemon listens in it; nothing of a live daemon is removed.
        """
        check_socket_path(self.command(_HIGHEST_COMMAND))
        try:
            self._make(self.root)
            self._check_root()
            for path in (self.health, self.control):
                remove_stale_socket(path)
            self._make(self.commands)
            _check_owned_directory(self.commands)
            self.commands.chmod(DIRECTORY_MODE)
            for path in sorted(self.commands.iterdir()):
                remove_stale_socket(path)
        except OSError as error:
            raise EndpointError(
                f"runtime directory {self.root}: {_errno_text(error)}; use another directory (--runtime-dir)"
            ) from error

    def remove(self) -> None:
        """Remove the sockets left and the directories ``prepare`` made; those that hold other files stay."""
        with suppress(FileNotFoundError, NotADirectoryError):
            for path in (self.health, self.control, *self.commands.glob("*.sock")):
                if stat.S_ISSOCK(_mode(path)):
                    path.unlink(missing_ok=True)
        for path in reversed(self._made):
            with suppress(OSError):
                path.rmdir()
        self._made.clear()

    def _make(self, path: Path) -> None:
        missing = [one for one in (path, *path.parents) if not os.path.lexists(one)]
        for one in reversed(missing):
            one.mkdir(mode=DIRECTORY_MODE)
            self._made.append(one)

    def _check_root(self) -> None:
        """Take the directory over if it is ours; its mode is only changed while nothing foreign lies in it."""
        _check_owned_directory(self.root)
        found = self.root.lstat()
        mode = stat.S_IMODE(found.st_mode)
        wanted = DIRECTORY_MODE if self.group is None else GROUP_DIRECTORY_MODE
        if mode == wanted and self.group in (None, found.st_gid):
            return
        own = {path.name for path in (self.health, self.control, self.commands, self.lock)}
        foreign = sorted(path.name for path in self.root.iterdir() if path.name not in own)
        if foreign:
            raise EndpointError(
                f"runtime directory {self.root} has mode {mode:04o} and holds other files ({foreign[0]!r:.60}): it "
                f"must be the daemon's alone, with mode {wanted:04o}; use another directory (--runtime-dir)"
            )
        self.root.chmod(DIRECTORY_MODE)
        if self.group is not None:
            self._give(self.group)
            self.root.chmod(wanted)

    def _give(self, group: int) -> None:
        try:
            os.chown(self.root, -1, group)
        except OSError as error:
            raise EndpointError(
                f"runtime directory {self.root} cannot be given to group {group}: {_errno_text(error)}; devd has to be "
                "root or a member of the group (--control-group), and the group has to be there in its user namespace"
            ) from error


def _check_owned_directory(path: Path) -> None:
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise EndpointError(f"{path} is {_kind(found.st_mode)}: a directory is needed; use another one (--runtime-dir)")
    if found.st_uid != os.geteuid():
        raise EndpointError(
            f"{path} belongs to uid {found.st_uid}, this process is uid {os.geteuid()}: use a directory of its own "
            "(--runtime-dir)"
        )


def _mode(path: Path) -> int:
    try:
        return path.lstat().st_mode
    except FileNotFoundError:
        return 0


def _kind(mode: int) -> str:
    names = {
        stat.S_IFDIR: "a directory",
        stat.S_IFREG: "a regular file",
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFSOCK: "a socket",
        stat.S_IFIFO: "a pipe",
    }
    return names.get(stat.S_IFMT(mode), "a device node")


def _errno_text(error: OSError) -> str:
    return f"{errno.errorcode.get(error.errno or 0, 'error')} ({error.strerror})"


def _shown(path: Path) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")
