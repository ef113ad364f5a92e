"""A user id for each device's worker and each scout: no two of them share one while both are known."""

FIRST_UID = 0x70000000
"""The start of a range no convention claims: systemd's containers end below it, its foreign ids begin at 0x7FFE0000."""


class Uids:
    """Hands out the lowest that is free."""

    def __init__(self) -> None:
        self._held: dict[str, int] = {}
        self._free: list[int] = []
        self._next = FIRST_UID

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
