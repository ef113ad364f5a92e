"""Reads of small kernel files that may be missing or hold anything: a missing attribute is no error here."""

import errno
import os
import re
from collections.abc import Collection
from pathlib import Path

from devd.workers import sysfs
from devd.workers.hw import survey

NOT_OFFERED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS})
"""What the kernel answers for an attribute or call that this device, driver or kernel does not have."""
MAX_FILE_BYTES = 1024 * 1024
"""Most that is read of a file of /proc; a node with thousands of mounts has some hundred KiB."""
_WHOLE = re.compile(r"[0-9]{1,20}")
"""No more digits than 64 bits have."""
_SHOWN_CHARS = 60


def text(path: Path, *, absent: Collection[int] = ()) -> str | None:
    """Return an attribute's text without surrounding blanks, None if it is not offered. Raises OSError.

    ``absent`` are further errno values by which this attribute says that there is nothing to read.
    """
    try:
        return sysfs.read(str(path))
    except OSError as error:
        if error.errno in NOT_OFFERED or error.errno in absent:
            return None
        error.filename = error.filename or str(path)
        raise


def optional(path: Path) -> str:
    """Return the text of an attribute that its device can do without, "" if there is none. Never raises.

    One that cannot be read is absent, and a scan that listens tells it (``survey``).
    """
    try:
        return text(path) or ""
    except OSError as error:
        survey.tell(Path(os.path.realpath(path.parent)).name, error, "taken as absent")
        return ""


def whole(path: Path) -> int | None:
    """Return a decimal attribute, None if it is not offered or holds no number. Raises OSError."""
    return number(text(path))


def number(found: str | None) -> int | None:
    """Return the whole number a text is, None for anything else (a sign, a unit, more than 64 bits)."""
    if found is None or not _WHOLE.fullmatch(found):
        return None
    value = int(found)
    return value if value < 1 << 64 else None


def names(directory: Path) -> list[str]:
    """Return a directory's entries, sorted; none if it is not there. Raises OSError."""
    try:
        return sorted(os.listdir(directory))  # noqa: PTH208 - names are wanted, not paths
    except OSError as error:
        if error.errno in NOT_OFFERED:
            return []
        raise


def numbered(directory: Path, pattern: re.Pattern[str]) -> list[str]:
    """Return the entries a pattern fits whole, in the order of the numbers in them (nvme2 before nvme10)."""
    fitting = [name for name in names(directory) if pattern.fullmatch(name)]
    return sorted(fitting, key=lambda name: ([int(digits) for digits in re.findall(r"[0-9]+", name)], name))


def target(link: Path) -> str:
    """Return the name of what a symbolic link leads to ("nvme" for .../driver), "" if there is none.

    The link is followed to its end: some lead to a parent directory by dots alone.
    """
    return Path(os.path.realpath(link)).name if link.is_symlink() else ""


def numa_node(directory: Path) -> int | None:
    """Return the NUMA node a device's directory names; None where there is none, which the kernel writes as -1.

    A device is as well without: see ``optional``.
    """
    return number(optional(directory / "numa_node"))


def device_number(directory: Path) -> tuple[int, int] | None:
    """Return (major, minor) of the attribute ``dev``, None if there is none or it makes no sense. Raises OSError."""
    major, _colon, minor = (text(directory / "dev") or "").partition(":")
    numbers = number(major), number(minor)
    if numbers[0] is None or numbers[1] is None:
        return None
    return numbers[0], numbers[1]


def content(path: Path) -> str | None:
    """Return a file of /proc, up to ``MAX_FILE_BYTES``; None if it is not there. Raises OSError."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES).decode("utf-8", "replace")
    except OSError as error:
        if error.errno in NOT_OFFERED:
            return None
        raise


def shown(found: str) -> str:
    """Return a text fit for a reason: quoted, printable, short."""
    clean = "".join(sign if sign.isprintable() else "?" for sign in found[: _SHOWN_CHARS + 1])
    return f'"{clean[:_SHOWN_CHARS]}{"..." if len(clean) > _SHOWN_CHARS else ""}"'


def below(root: Path, path: Path) -> str:
    """Return where a path really leads, all links followed, as seen from a root ("/sys/devices/...")."""
    return "/" + os.path.relpath(os.path.realpath(path), os.path.realpath(root))


def under(root: Path, path: str) -> Path:
    """Return an absolute path moved below a root: the reverse of ``below``."""
    return root / path.lstrip("/")
