"""A filesystem with one file whose driver never answers: the nearest thing to a hung device that a test can make.

A FUSE server written on /dev/fuse itself (fuse.h of the kernel, protocol 7.31). It answers all that leads to the file
and keeps silent on the one call it was told to hang in: whoever makes that call waits for ever, and once SIGKILLed can
not even die, until the server ends or the connection is aborted. Needs root.

``python -m tests.support.hungfuse MOUNTPOINT open|read|stat|ioctl|lookup`` prints ``ready MAJOR:MINOR`` and then a line
per hung call.
Nobody else may touch the file; whoever wants its identity takes ``HungFile.node``.
"""

import ctypes
import errno
import os
import select
import signal
import stat
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from devd.ipc.messages import Node

FILE_NAME = "dev"
FILE_INODE = 2
ROOT_INODE = 1
MNT_DETACH = 2
_CACHE_S = 3600

_LOOKUP, _FORGET, _GETATTR, _OPEN, _READ, _RELEASE, _INIT = 1, 2, 3, 14, 15, 18, 26
_INTERRUPT, _IOCTL, _BATCH_FORGET = 36, 39, 42
_SILENT = {_FORGET, _INTERRUPT, _BATCH_FORGET}
HANGS = {"open": _OPEN, "read": _READ, "stat": _GETATTR, "ioctl": _IOCTL, "lookup": _LOOKUP}

_IN_HEADER = struct.Struct("=IIQQIIII")
_OUT_HEADER = struct.Struct("=IiQ")
_libc = ctypes.CDLL(None, use_errno=True)


class HungFile:
    """The server as a child process, its mount, and their ends. Raises PermissionError where mounting is refused."""

    def __init__(self, mountpoint: Path, hang: str) -> None:
        mountpoint.mkdir()
        self._mountpoint = mountpoint
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.hungfuse", str(mountpoint), hang], stdout=subprocess.PIPE, text=True
        )
        first = self._line()
        if not first.startswith("ready"):
            self.close()
            raise PermissionError(first)
        major, minor = (int(one) for one in first.split()[1].split(":"))
        self._connection = minor
        self._trigger = mountpoint.with_name(mountpoint.name + ".hang")
        self.path = str(mountpoint / FILE_NAME)
        self.node = Node(self.path, "other", os.makedev(major, minor), FILE_INODE)

    def begin(self) -> None:
        """Have a ``stat`` hang from now on: until then it is answered, or nobody could find the file at all."""
        self._trigger.touch()

    def hangs(self) -> bool:
        """Return whether the server has taken another call that it will never answer. Never waits."""
        output = self._process.stdout
        return output is not None and bool(select.select([output], [], [], 0)[0]) and output.readline() == "hung\n"

    def release(self) -> None:
        """Free whoever hangs: abort the connection, or end the server where fusectl is not mounted."""
        abort = Path(f"/sys/fs/fuse/connections/{self._connection}/abort")
        if abort.exists():
            abort.write_text("1")
        else:
            self._process.kill()

    def _line(self, within_s: float = 15.0) -> str:
        assert self._process.stdout is not None
        assert select.select([self._process.stdout], [], [], within_s)[0], "the FUSE server says nothing"
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        """End the server and take the mount away; safe at any time, and more than once."""
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        _libc.umount2(os.fsencode(self._mountpoint), MNT_DETACH)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _attributes(inode: int) -> bytes:
    mode = stat.S_IFDIR | 0o755 if inode == ROOT_INODE else stat.S_IFREG | 0o666
    return struct.pack("=6Q10I", inode, 4096, 8, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def _answer(opcode: int, inode: int, body: bytes, fresh_s: int) -> tuple[int, bytes]:
    """Return errno and payload of the answer to a call; attributes are good for ``fresh_s``."""
    if opcode == _INIT:
        return 0, struct.pack("=IIIIHHIIHH8I", 7, 31, 65536, 0, 8, 8, 65536, 1, 1, 0, *[0] * 8)
    if opcode == _LOOKUP:
        if body.rstrip(b"\0") != FILE_NAME.encode():
            return errno.ENOENT, b""
        return 0, struct.pack("=QQQQII", FILE_INODE, 0, _CACHE_S, fresh_s, 0, 0) + _attributes(FILE_INODE)
    if opcode == _GETATTR:
        return 0, struct.pack("=QII", fresh_s, 0, 0) + _attributes(inode)
    simple = {_OPEN: struct.pack("=QII", 0, 0, 0), _RELEASE: b"", _IOCTL: struct.pack("=iIII", 0, 0, 0, 0)}
    return (0, simple[opcode]) if opcode in simple else (errno.ENOSYS, b"")


def _serve(fuse: int, hang: int, trigger: Path) -> None:
    stat_hangs = hang == _GETATTR
    while True:
        try:
            request = os.read(fuse, 1 << 17)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):  # the call was taken back meanwhile
                continue
            return  # unmounted or aborted
        _length, opcode, unique, inode, *_ = _IN_HEADER.unpack_from(request)
        if opcode == hang and (not stat_hangs or (inode == FILE_INODE and trigger.exists())):
            print("hung", flush=True)
        elif opcode not in _SILENT:
            number, payload = _answer(opcode, inode, request[_IN_HEADER.size :], 0 if stat_hangs else _CACHE_S)
            with suppress(FileNotFoundError):  # the caller was killed meanwhile
                os.write(fuse, _OUT_HEADER.pack(_OUT_HEADER.size + len(payload), -number, unique) + payload)


def _device_of(mountpoint: str) -> str:
    """Return MAJOR:MINOR of a mount without touching it."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[4] == mountpoint:
            return fields[2]
    raise AssertionError(f"{mountpoint} is not mounted")


def main() -> None:
    """Mount, say so, serve until the end."""
    mountpoint, hang = sys.argv[1:]
    _libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG: never outlive the test
    try:
        fuse = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        print(error, flush=True)
        return
    options = f"fd={fuse},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
    if _libc.mount(b"hungfuse", mountpoint.encode(), b"fuse", 0, options.encode()) < 0:
        print(f"mount: {os.strerror(ctypes.get_errno())}", flush=True)
        return
    print("ready", _device_of(mountpoint), flush=True)
    _serve(fuse, HANGS[hang], Path(f"{mountpoint}.hang"))


if __name__ == "__main__":
    main()
