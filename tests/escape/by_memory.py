"""Attempts to have more memory than a worker may, or to write by a mapping what may not be written."""

import ctypes
import mmap
import os

from tests.escape.scene import MIB, Attempt, Scene, checked, libc

_MAP_GROWSDOWN, _MAP_HUGETLB = 0x100, 0x40000
_HUGE_PAGE_BYTES = 2 * MIB
_FAILED = ctypes.c_void_p(-1).value
_mmap = libc.mmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)


def _map(size: int, flags: int, fd: int = -1) -> None:
    """Map, and touch the first byte; Python's own mmap knows too few flags. Raises OSError."""
    place = _mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, fd, 0)
    checked(-1 if place == _FAILED else 0)
    ctypes.memset(place, 1, 1)
    checked(libc.munmap(ctypes.c_void_p(place), ctypes.c_size_t(size)))


def _anonymous(size: int, flags: int) -> None:
    _map(size, flags | mmap.MAP_ANONYMOUS)


def _by_mapping(scene: Scene) -> None:
    """Change a file that everybody may read, which no limit on the size of files is asked about."""
    fd = os.open(scene.path("setuid"), os.O_RDWR)
    try:
        _map(1, mmap.MAP_SHARED, fd)
    finally:
        os.close(fd)


def _zeroes() -> None:
    fd = os.open("/dev/zero", os.O_RDWR)
    try:
        _map(2048 * MIB, mmap.MAP_SHARED, fd)
    finally:
        os.close(fd)


MEMORY: dict[str, Attempt] = {
    "allocate_private": Attempt(lambda scene: _anonymous(scene.needs.memory_bytes, mmap.MAP_PRIVATE)),
    "allocate_shared": Attempt(lambda scene: _anonymous(scene.needs.memory_bytes + 1024 * MIB, mmap.MAP_SHARED)),
    "allocate_some_shared": Attempt(lambda _scene: _anonymous(64 * MIB, mmap.MAP_SHARED)),
    "allocate_zeroes": Attempt(lambda _scene: _zeroes()),
    "allocate_stack": Attempt(lambda _scene: _anonymous(512 * MIB, mmap.MAP_PRIVATE | _MAP_GROWSDOWN)),
    "huge_page": Attempt(lambda _scene: _anonymous(_HUGE_PAGE_BYTES, mmap.MAP_PRIVATE | _MAP_HUGETLB)),
    "mmap_write": Attempt(_by_mapping),
}
