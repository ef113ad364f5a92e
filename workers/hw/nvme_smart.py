"""The SMART / health log page of an NVMe controller: asking for it, and what stands in it.

Layout and bits: NVM Express Base Specification, Get Log Page, log identifier 02h.
"""

import ctypes
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

ADMIN_COMMAND = 0xC0484E41
"""NVME_IOCTL_ADMIN_CMD of linux/nvme_ioctl.h."""
SUBSYSTEM_RESET = 0x4E45
"""NVME_IOCTL_SUBSYS_RESET of linux/nvme_ioctl.h."""
PAGE_BYTES = 512
_GET_LOG_PAGE = 0x02
_HEALTH_PAGE = 0x02
_EVERY_NAMESPACE = 0xFFFFFFFF
_KELVIN = 273

SPARE_LOW = 0x01
TEMPERATURE = 0x02
UNRELIABLE = 0x04
READ_ONLY = 0x08
BACKUP_FAILED = 0x10
PMR_UNRELIABLE = 0x20


class _Command(ctypes.Structure):
    """struct nvme_passthru_cmd: 72 bytes."""

    _fields_ = (
        ("opcode", ctypes.c_uint8),
        ("flags", ctypes.c_uint8),
        ("rsvd1", ctypes.c_uint16),
        ("nsid", ctypes.c_uint32),
        ("cdw2", ctypes.c_uint32),
        ("cdw3", ctypes.c_uint32),
        ("metadata", ctypes.c_uint64),
        ("addr", ctypes.c_uint64),
        ("metadata_len", ctypes.c_uint32),
        ("data_len", ctypes.c_uint32),
        ("cdw10_15", ctypes.c_uint32 * 6),
        ("timeout_ms", ctypes.c_uint32),
        ("result", ctypes.c_uint32),
    )


class NvmeStatusError(Exception):
    """Raised when the controller itself refuses the command; ``status`` is its status code."""

    def __init__(self, path: Path, status: int) -> None:
        super().__init__(f"{path} refuses the health log page: NVMe status {status:#x}")
        self.status = status


@dataclass(frozen=True, slots=True)
class Smart:
    """One health log page. ``temperature_c`` in degrees Celsius, spares and wear in percent."""

    warnings: int
    temperature_c: int
    spare_percent: int
    spare_threshold_percent: int
    used_percent: int
    media_errors: int
    log_entries: int


def parse(page: bytes) -> Smart:
    """Return what a page says. Raises ValueError for one that is too short."""
    if len(page) < PAGE_BYTES:
        raise ValueError(f"the health log page has {len(page)} bytes, {PAGE_BYTES} are needed")
    return Smart(
        warnings=page[0],
        temperature_c=int.from_bytes(page[1:3], "little") - _KELVIN,
        spare_percent=page[3],
        spare_threshold_percent=page[4],
        used_percent=page[5],
        media_errors=int.from_bytes(page[160:176], "little"),
        log_entries=int.from_bytes(page[176:192], "little"),
    )


def command(address: int, timeout_ms: int) -> ctypes.Structure:
    """Return the admin command that reads the page to a buffer of ``PAGE_BYTES`` at an address.

    ``timeout_ms`` 0 would be the kernel's 60 s.
    """
    dwords = (ctypes.c_uint32 * 6)(_HEALTH_PAGE | (PAGE_BYTES // 4 - 1) << 16)
    return _Command(
        opcode=_GET_LOG_PAGE,
        nsid=_EVERY_NAMESPACE,
        addr=address,
        data_len=PAGE_BYTES,
        cdw10_15=dwords,
        timeout_ms=timeout_ms,
    )


def read(path: Path, timeout_s: float) -> bytes:
    """Return the page of the controller with this character device.

    Blocks while the controller resets: read its state first. The command has no effect on the data or on other
    commands. Needs CAP_SYS_ADMIN on most kernels. Raises OSError, NvmeStatusError.
    """
    buffer = ctypes.create_string_buffer(PAGE_BYTES)
    ask = command(ctypes.addressof(buffer), max(1, int(timeout_s * 1000)))
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        status = fcntl.ioctl(fd, ADMIN_COMMAND, ask)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        os.close(fd)
    if status:
        raise NvmeStatusError(path, int(status))
    return buffer.raw


def reset_subsystem(path: Path) -> None:
    """Reset the controller's whole subsystem; the PCIe links of all its controllers drop. Raises OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, SUBSYSTEM_RESET)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        os.close(fd)
