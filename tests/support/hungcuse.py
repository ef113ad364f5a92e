"""A character device whose driver stops answering: what a hung driver call is, without a broken driver.

A CUSE server written on /dev/cuse itself (fuse.h of the kernel, protocol 7.31). ``python -m tests.support.hungcuse NAME
TRIGGER`` makes /dev/NAME and answers each open and read of it until the file TRIGGER is there; then it keeps silent.
The device goes with its server, or when somebody writes to /sys/class/cuse/NAME/abort. Needs root and the module cuse.
"""

import ctypes
import errno
import os
import signal
import struct
import sys
from contextlib import suppress
from pathlib import Path

_OPEN, _READ, _RELEASE, _FLUSH, _INTERRUPT, _CUSE_INIT = 14, 15, 18, 25, 36, 4096
_IN_HEADER = struct.Struct("=IIQQIIII")
_OUT_HEADER = struct.Struct("=IiQ")
_REQUEST_BYTES = 1 << 17
_MAX_BYTES = 4096
_NEW_NUMBER = 0
"""Of the device: the kernel takes a free one."""


def _answer(opcode: int, name: str) -> tuple[int, bytes]:
    """Return errno and payload of the answer to a call."""
    if opcode == _CUSE_INIT:
        head = struct.pack("=18I", 7, 31, 0, 0, _MAX_BYTES, _MAX_BYTES, _NEW_NUMBER, _NEW_NUMBER, *[0] * 10)
        return 0, head + f"DEVNAME={name}\0".encode()
    simple = {_OPEN: struct.pack("=QII", 0, 0, 0), _READ: b"w", _RELEASE: b"", _FLUSH: b""}
    return (0, simple[opcode]) if opcode in simple else (errno.ENOSYS, b"")


def main() -> None:
    """Make the device and serve it until the end."""
    name, trigger = sys.argv[1], Path(sys.argv[2])
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG: never outlive the test
    cuse = os.open("/dev/cuse", os.O_RDWR | os.O_CLOEXEC)
    while True:
        try:
            request = os.read(cuse, _REQUEST_BYTES)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):  # the call was taken back meanwhile
                continue
            return  # aborted
        _length, opcode, unique, *_ = _IN_HEADER.unpack_from(request)
        if opcode == _INTERRUPT or (opcode in (_OPEN, _READ) and trigger.exists()):
            continue
        number, payload = _answer(opcode, name)
        with suppress(FileNotFoundError):  # the caller was killed meanwhile
            os.write(cuse, _OUT_HEADER.pack(_OUT_HEADER.size + len(payload), -number, unique) + payload)


if __name__ == "__main__":
    main()
