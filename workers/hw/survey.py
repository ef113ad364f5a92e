"""One scan over many devices: what one of them does not tell must not hide the others.

A device whose attributes cannot be read is left out and said so; an attribute that it can do without is absent and said
so. Whoever scans listens with ``problems``; without a listener errors are raised as they come.
"""

import errno
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from devd.workers.errors import explain

_Of = TypeVar("_Of")
_Made = TypeVar("_Made")
_GONE = frozenset({errno.ENODEV})
"""What the kernel answers for an attribute of a device that is being removed."""

_told: ContextVar[list[str] | None] = ContextVar("_told", default=None)


@contextmanager
def problems() -> Iterator[list[str]]:
    """Collect what could not be read meanwhile, each thing once."""
    found: list[str] = []
    token = _told.set(found)
    try:
        yield found
    finally:
        _told.reset(token)


def each(those: Iterable[_Of], make: Callable[[_Of], _Made | None], name: Callable[[_Of], str] = str) -> list[_Made]:
    """Return what is made of each, without those of which nothing can be: with a problem, unless the device is gone.

    Raises OSError where nobody listens.
    """
    made = []
    for one in those:
        try:
            found = make(one)
        except OSError as error:
            if error.errno not in _GONE and not tell(name(one), error, "not offered"):
                raise
        else:
            made += [found] if found is not None else []
    return made


def tell(device: str, error: OSError, what: str) -> bool:
    """Say what of a device could not be read, and what comes of it; return whether somebody listens.

    An attribute of a device that is being removed is no problem: the next scan has no such device.
    """
    told = _told.get()
    if told is None:
        return False
    words = f"{device}: {explain('read', str(error.filename or 'its attributes'), error)}: {what}"
    if error.errno not in _GONE and words not in told:
        told.append(words)
    return True
