"""What a PCI function's hardware says: does it answer, how wide is its link, which errors were counted.

The kernel wakes a sleeping function for a read of its configuration space: ``asleep`` is asked first.
"""

import errno
import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from devd.workers.hw import attributes

HEADER_BYTES = 64
"""The part of configuration space that every user may read."""
_IDS = struct.Struct("<HHH")
_NOT_READY = (0x0001, 0xFFFF)
"""Vendor and device as a function shows them that answers "configuration request retry": it still comes up."""
COMMAND_DECODE = 0x0003
"""Bits of the command register: the function answers at its I/O ports (1), at its memory (2)."""
HIGHEST_LANES = 32
"""The widest link there is; more is what a dead link's register reads as (63, or 255 for unknown)."""
_NO_LINK = frozenset({errno.EINVAL})
_SPEED = re.compile(r"([0-9]{1,3}(?:\.[0-9])?) GT/s(?: PCIe)?")

Severity = Literal["correctable", "nonfatal", "fatal"]
_TOTALS: Mapping[Severity, str] = {
    "correctable": "TOTAL_ERR_COR",
    "nonfatal": "TOTAL_ERR_NONFATAL",
    "fatal": "TOTAL_ERR_FATAL",
}
_ROOT_PORT: Mapping[Severity, str] = {
    "correctable": "aer_rootport_total_err_cor",
    "nonfatal": "aer_rootport_total_err_nonfatal",
    "fatal": "aer_rootport_total_err_fatal",
}


@dataclass(frozen=True, slots=True)
class Header:
    """The first words of configuration space; ``gone``: nobody answered at all."""

    vendor: int
    device: int
    command: int
    gone: bool

    @property
    def not_ready(self) -> bool:
        """Return whether the function answers that it is not ready yet."""
        return (self.vendor, self.device) == _NOT_READY


def asleep(directory: Path) -> bool:
    """Return whether a read of the hardware would have to wake it. Raises OSError."""
    return attributes.text(directory / "power/runtime_status") in ("suspended", "suspending")


def header(directory: Path) -> Header | None:
    """Return what the hardware says it is, None if the kernel does not show it. Raises OSError.

    A function that has fallen off the bus reads as ones throughout. Vendor and device alone do not tell: a virtual
    function has ones there by the standard.
    """
    data = _read(directory / "config", HEADER_BYTES)
    if data is None or len(data) < _IDS.size:
        return None
    vendor, device, command = _IDS.unpack_from(data)
    return Header(vendor, device, command, gone=data == b"\xff" * len(data))


def lanes(directory: Path, which: Literal["current", "max"]) -> int | None:
    """Return a link's width in lanes, None where there is no link or no sense in the number. Raises OSError."""
    found = attributes.number(attributes.text(directory / f"{which}_link_width", absent=_NO_LINK))
    return found if found is not None and 0 < found <= HIGHEST_LANES else None


def speed(directory: Path, which: Literal["current", "max"]) -> float | None:
    """Return a link's speed in GT/s for each lane, None where it is not told ("Unknown"). Raises OSError."""
    match = _SPEED.fullmatch(attributes.text(directory / f"{which}_link_speed", absent=_NO_LINK) or "")
    return float(match[1]) if match else None


def errors(directory: Path, severity: Severity) -> int | None:
    """Return how many errors the kernel counted for a function since it was found, None if it counts none.

    Raises OSError. The count begins anew when the function is removed and found again.
    """
    for line in (attributes.text(directory / f"aer_dev_{severity}") or "").splitlines():
        name, _blank, count = line.strip().rpartition(" ")
        if name == _TOTALS[severity]:
            return attributes.number(count)
    return None


def root_port_errors(directory: Path, severity: Severity) -> int | None:
    """Return how many error messages a root port received, None for what is no root port. Raises OSError."""
    return attributes.whole(directory / _ROOT_PORT[severity])


def enabled(directory: Path) -> bool | None:
    """Return whether a driver has enabled the function, None if the kernel does not say. Raises OSError."""
    found = attributes.whole(directory / "enable")
    return None if found is None else found > 0


def has_regions(directory: Path) -> bool:
    """Return whether the function has any memory or I/O region to answer at. Raises OSError."""
    lines = (attributes.text(directory / "resource") or "").splitlines()
    # Six base address registers come first; an empty one is a line of zeros: start, end, flags.
    return any(int_hex(line.split(" ", 1)[0]) for line in lines[:6])


def int_hex(found: str) -> int:
    """Return a hexadecimal number with 0x, 0 for anything else."""
    return int(found, 16) if re.fullmatch(r"0x[0-9a-f]{1,16}", found) else 0


def _read(path: Path, size: int) -> bytes | None:
    """Return the first bytes of a binary attribute, None if it is not offered. Raises OSError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in attributes.NOT_OFFERED:
            return None
        raise
    try:
        return os.read(fd, size)
    finally:
        os.close(fd)
