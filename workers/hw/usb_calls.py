"""The two calls on a USB device's raw node that devd makes (linux/usbdevice_fs.h), and one on a serial line.

Each opens the node, calls once and closes: no file stays open, and nothing is claimed.
"""

import ctypes
import errno
import fcntl
import os
import struct
from pathlib import Path

USBDEVFS_RESET = 0x5514
"""_IO('U', 20): reset the device at its port; the address stays if the device is the same after it."""
_GET_STATUS = 0x00
_TO_HOST_DEVICE = 0x80
_STATUS_BYTES = 2


class _ControlTransfer(ctypes.Structure):
    """struct usbdevfs_ctrltransfer."""

    _fields_ = (
        ("request_type", ctypes.c_uint8),
        ("request", ctypes.c_uint8),
        ("value", ctypes.c_uint16),
        ("index", ctypes.c_uint16),
        ("length", ctypes.c_uint16),
        ("timeout_ms", ctypes.c_uint32),
        ("data", ctypes.c_void_p),
    )


USBDEVFS_CONTROL = (3 << 30) | (ctypes.sizeof(_ControlTransfer) << 16) | (ord("U") << 8) | 0
"""_IOWR('U', 0, struct usbdevfs_ctrltransfer): 0xc0185500 on 64 bits."""
TIOCMGET = 0x5415
"""The state of a serial line's modem wires (asm-generic/ioctls.h)."""


def status(path: Path, timeout_s: float) -> int:
    """Return a device's standard status word: it is alive. Harmless beside a user of the device. Raises OSError.

    Opening the node wakes a device that sleeps.
    """
    answer = ctypes.create_string_buffer(_STATUS_BYTES)
    transfer = _ControlTransfer(
        request_type=_TO_HOST_DEVICE,
        request=_GET_STATUS,
        length=_STATUS_BYTES,
        timeout_ms=max(1, round(timeout_s * 1000)),
        data=ctypes.addressof(answer),
    )
    buffer = bytearray(transfer)
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        got = fcntl.ioctl(fd, USBDEVFS_CONTROL, buffer)
    finally:
        os.close(fd)
    if got != _STATUS_BYTES:
        raise OSError(errno.EPROTO, f"{got} bytes of {_STATUS_BYTES} answered", str(path))
    return int.from_bytes(answer.raw, "little")


def reset(path: Path) -> None:
    """Reset a device at its port. Raises OSError; ENODEV when it came back as another device on the bus."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, USBDEVFS_RESET)
    finally:
        os.close(fd)


def modem_lines(path: Path) -> int | None:
    """Return a serial line's modem wires, None while somebody has it for himself (EBUSY). Raises OSError.

    Opening raises DTR and RTS, which resets some boards: for those who ask for it only.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.EBUSY:
            return None
        raise
    try:
        answer = fcntl.ioctl(fd, TIOCMGET, struct.pack("i", 0))
    finally:
        os.close(fd)
    return int(struct.unpack("i", answer)[0])
