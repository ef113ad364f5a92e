"""A uid and gid of a worker's own, and what it must keep to reach its device with them."""

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from devd.workers.errors import SpecError
from devd.workers.params import Params
from devd.workers.sandbox import capabilities, kernel, landlock
from devd.workers.sandbox.needs import PathNeed

FIRST_UID = 0x70000000
"""The start of a range no convention claims: systemd's containers end below it, its foreign ids begin at 0x7FFE0000."""
UIDS = 0xF0000
LAST_VALID_ID = 0xFFFFFFFE

Wanted = tuple[PathNeed, int]
"""A path, and the mode of access(2) in which it is needed."""

_MODES = (("l", os.R_OK), ("r", os.R_OK), ("w", os.W_OK), ("x", os.X_OK))


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a worker will be. ``capabilities`` are those without which its own device would be shut to it."""

    uid: int
    groups: tuple[int, ...] = ()
    capabilities: frozenset[str] = frozenset()


def uid_for(device: str, options: Mapping[str, object]) -> int:
    """Return the uid the front gave this device, or one made of its name.

    Two names may fall on one uid (among 256 devices one time in 30): whoever can should hand one out. Raises SpecError.
    """
    params = Params("sandbox", options)
    if not params.has("uid"):
        digest = hashlib.sha256(device.encode("utf-8", "surrogateescape")).digest()
        return FIRST_UID + int.from_bytes(digest[:8], "big") % UIDS
    uid = params.whole("uid", least=1)
    if uid > LAST_VALID_ID:
        raise SpecError(f"sandbox.uid: {uid} found, at most {LAST_VALID_ID} is possible")
    return uid


def plan(uid: int, paths: Iterable[PathNeed]) -> Identity:
    """Return how ``uid`` can reach every vital path there is: with a group of its owner's, or with a capability.

    Asks the kernel itself, as that user (so directories above, lists of access rights and file systems with rules of
    their own count). Raises OSError when this process may not become another user, or one of the paths is for nobody
    but the superuser.
    """
    if os.geteuid() != 0:
        raise OSError(errno.EPERM, "only root can give a worker a uid of its own")
    if not capabilities.held() & capabilities.mask_of(("kill",)):
        raise OSError(errno.EPERM, "without CAP_KILL devd could not end a worker of another uid")
    wanted = [(need, mode) for need in paths if need.vital and (mode := _usable_mode(need)) is not None]
    shut = _refused(uid, (), frozenset(), wanted)
    if not shut:
        return Identity(uid)
    groups = _groups_of(shut)
    shut = _refused(uid, groups, frozenset(), wanted) if groups else shut
    if not shut:
        return Identity(uid, groups)
    override = "dac_override" if any(mode & os.W_OK for _need, mode in shut) else "dac_read_search"
    kept = frozenset({override})
    shut = _refused(uid, groups, kept, wanted)
    if shut:
        raise OSError(errno.EACCES, f"{shut[0][0].path} is for the superuser alone")
    return Identity(uid, groups, kept)


def become(identity: Identity) -> None:
    """Be that user in every thread, for good. Raises OSError.

    The C library changes the ids of all threads; what capabilities are kept, this thread alone keeps.
    """
    os.setgroups(identity.groups)
    os.setresgid(identity.uid, identity.uid, identity.uid)
    os.setresuid(identity.uid, identity.uid, identity.uid)


def _usable_mode(need: PathNeed) -> int | None:
    """Return what of a need root itself can do there (F_OK: look at it), None for nothing: that is no matter of who."""
    if landlock.lies_there(need) is None:
        return None
    mode = os.F_OK
    for letter, bit in _MODES:
        if letter in need.rights and os.access(need.path, bit):
            mode |= bit
    return mode


def _groups_of(shut: Iterable[Wanted]) -> tuple[int, ...]:
    """Return the owning groups; root's is none to give away."""
    found = set()
    for need, _mode in shut:
        try:
            found.add(os.stat(need.path).st_gid)  # noqa: PTH116 - text paths throughout
        except OSError:
            continue
    return tuple(sorted(found - {0}))


def _refused(uid: int, groups: tuple[int, ...], kept: frozenset[str], wanted: Iterable[Wanted]) -> list[Wanted]:
    with _for_a_moment(uid, groups):
        capabilities.use(capabilities.mask_of(kept))
        return [(need, mode) for need, mode in wanted if not kernel.may(need.path, mode)]


@contextmanager
def _for_a_moment(uid: int, groups: tuple[int, ...]) -> Iterator[None]:
    """Be another user; the saved uid of root leads back. Not the filesystem uid alone: FUSE looks at the others."""
    before = os.getgroups()
    os.setgroups(groups)
    os.setresgid(uid, uid, 0)
    os.setresuid(uid, uid, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)  # gives the capabilities back as well
        os.setresgid(0, 0, 0)
        os.setgroups(before)
