"""A user id for each device's worker and each scout: no two of them share one while both are known.

Two devd on one node have ranges of their own, by their runtime directories: workers that share a uid could signal each
other, and the kernel counts a uid's processes and threads together.
"""

import zlib

FIRST_UID = 0x70000000
"""The start of a range no convention claims: systemd's containers end below it, its foreign ids begin at 0x7FFE0000."""
RANGE = 0x10000
RANGES = 4000
"""Of 65,536 ids each, together 262 million: they end below 0x7FFE0000."""
KEPT = 16
"""The first ranges are the scribe's (``cdi_desk.SCRIBE_UID``), and for workers that were handed no id."""


def first_uid(place: str) -> int:
    """Return the first id of the range of the devd that runs at a place."""
    return FIRST_UID + RANGE * (KEPT + zlib.crc32(place.encode("utf-8", "surrogateescape")) % RANGES)


class Uids:
    """Hands out the lowest that is free. ``place`` is where this devd runs."""

    def __init__(self, place: str) -> None:
        self._held: dict[str, int] = {}
        self._free: list[int] = []
        self._next = first_uid(place)

    def of(self, device: str) -> int:
        """Return a device's uid, a new one the first time."""
        uid = self._held.get(device)
        if uid is None:
            uid = self._free.pop() if self._free else self._next
            self._next = max(self._next, uid + 1)
            self._held[device] = uid
        return uid

    def release(self, device: str) -> None:
        """Take a device's uid back: no process of it is left."""
        uid = self._held.pop(device, None)
        if uid is not None:
            self._free.append(uid)
