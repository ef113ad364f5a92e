"""CDI specifications as files: written whole or not at all, looked at again later, and those of others searched."""

import errno
import hashlib
import os
import re
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

MAX_FILE_BYTES = 2 * 1024 * 1024
"""Of one specification; half of what a message may have."""
MAX_FILES = 256
"""Files of others that are searched in one directory; the rest is not looked into."""
OWN_NAME = re.compile(r"devd\.[A-Za-z0-9._-]{1,240}\.json")
"""What every file of devd's is called, and nobody else's."""
_SUFFIXES = (".json", ".yaml")
"""What runtimes read; a file that is being written ends in neither."""
_VALUE = r"""["']?\s*:\s*["']?([A-Za-z0-9][A-Za-z0-9_.:/-]*)"""
_KIND = re.compile(r"""(?m)(?:^|[{,\s])["']?kind""" + _VALUE)
_NAME = re.compile(r"""(?m)(?:^|[{,\s-])["']?name""" + _VALUE)

_Signature = tuple[int, int, int]
"""(inode, mtime in ns, size): another one means that the file was written since."""


def digest(text: str) -> str:
    """Return what a text is known by, "" for none."""
    return hashlib.sha256(text.encode()).hexdigest() if text else ""


class SpecFiles:
    """devd's own files in one directory. Every method may raise OSError, with the path as its file name."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._seen: dict[str, tuple[_Signature, str]] = {}

    def path(self, name: str) -> str:
        """Return a file's path. Raises ValueError for a name that is not one of devd's."""
        if not OWN_NAME.fullmatch(name):
            raise ValueError(f"{name!r:.80} is no file of devd's")
        return f"{self.directory}/{name}"

    def standing(self, name: str) -> str:
        """Return the digest of what a file holds, "" when there is none; read only if it was written since."""
        path = self.path(name)
        try:
            status = os.stat(path, follow_symlinks=False)  # noqa: PTH116 - text paths throughout
        except FileNotFoundError:
            self._seen.pop(name, None)
            return ""
        signature = (status.st_ino, status.st_mtime_ns, status.st_size)
        known = self._seen.get(name)
        if known is None or known[0] != signature:
            known = (signature, hashlib.sha256(_read(path)).hexdigest())
            self._seen[name] = known
        return known[1]

    def write(self, name: str, text: str) -> None:
        """Put a text in a file's place at once; whoever reads sees the old one or the new one."""
        path, temporary = self.path(name), self._temporary(name)
        with suppress(FileNotFoundError):
            os.unlink(temporary)  # noqa: PTH108 - as above
        try:
            _write(temporary, text.encode())
            os.rename(temporary, path)  # noqa: PTH104 - as above
        except OSError:
            with suppress(OSError):
                os.unlink(temporary)  # noqa: PTH108 - as above
            raise
        with suppress(OSError):  # the name survives a power cut or not: what was confirmed is rewritten then
            _sync_directory(self.directory)

    def remove(self, name: str) -> None:
        """Take a file away, and what an interrupted writer left of it."""
        for path in (self._temporary(name), self.path(name)):
            with suppress(FileNotFoundError):
                os.unlink(path)  # noqa: PTH108 - as above
        self._seen.pop(name, None)

    def _temporary(self, name: str) -> str:
        self.path(name)
        return f"{self.directory}/.{name}.tmp"


def known(directories: Sequence[str], names: Collection[str]) -> tuple[str, ...]:
    """Return which qualified names (``vendor/class=device``) the specifications of others have, sorted.

    A search for words, no reading of YAML: it is to find out in time that a specification was never made, and a file
    that cannot be read or understood counts as none.
    """
    wanted = set(names)
    found: set[str] = set()
    for path in _others(directories) if wanted else ():
        with suppress(OSError):
            text = _read(path).decode("utf-8", "replace")
            devices = _NAME.findall(text)
            found |= {f"{kind}={device}" for kind in _KIND.findall(text) for device in devices} & wanted
    return tuple(sorted(found))


def _others(directories: Sequence[str]) -> Iterator[str]:
    for directory in directories:
        try:
            entries = sorted(os.listdir(directory))  # noqa: PTH208 - as above
        except OSError:
            continue
        others = [one for one in entries if one.endswith(_SUFFIXES) and not OWN_NAME.fullmatch(one)]
        yield from (f"{directory}/{one}" for one in others[:MAX_FILES])


def _read(path: str) -> bytes:
    """Return a regular file's bytes, at most one more than a specification may have."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "no regular file", path)
        return file.read(MAX_FILE_BYTES + 1)


def _write(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error


def _sync_directory(directory: str) -> None:
    fd = os.open(Path(directory), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
