"""What a driver is: one file for each kind of device, that finds the devices of a resource's selector."""

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from devd.ipc.messages import Device
from devd.workers.sandbox.needs import SandboxNeeds

MAX_ID_CHARS = 56
"""The kubelet's checks allow 63; the rest is for the replica's ``::n``."""
_HASH_CHARS = 8
_CLEAN = re.compile(r"[A-Za-z0-9._:-]+")
_UNCLEAN = re.compile(r"[^A-Za-z0-9._:-]+")


@dataclass(frozen=True, slots=True)
class Found:
    """What one scan found.

    ``problems`` are for the operator; ``directories`` are those whose entries decide the result: a change in one of
    them calls for another scan.
    """

    devices: tuple[Device, ...]
    problems: tuple[str, ...] = ()
    directories: tuple[Path, ...] = ()


class Driver(Protocol):
    """Discovery of one resource. Made from the resource's ``match``; SpecError if that makes no sense.

    Paths in ``leave_alone`` are neither touched nor listed: whoever touches them may hang as another process does.
    ``uevents`` are the subsystems whose events can change the list; none where its directories tell all. ``watches``
    says that there may be such directories at all: a user has few inotify instances (128 by default). ``baseline`` is
    what one scout leaves to the next, set before the first look and plain (see ``ipc.messages.Findings``).
    """

    leave_alone: frozenset[str]
    baseline: Mapping[str, object]
    uevents: Collection[str]
    watches: bool

    @property
    def what(self) -> str:
        """Name what is looked for ("/dev/ttyUSB*")."""

    @property
    def needs(self) -> SandboxNeeds:
        """Return what the sandbox must leave to its scout."""

    def discover(self) -> Found:
        """Look once. Raises OSError when nothing can be said at all; the last list stays then."""


def device_id(path: str) -> str:
    """Return a device's stable id: its path below /dev, or a shortened form of the path with a hash.

    At most ``MAX_ID_CHARS`` of [A-Za-z0-9._:-]; ``::`` is left to replicas.
    """
    name = path.removeprefix("/dev/")
    if _CLEAN.fullmatch(name) and "::" not in name and len(name) <= MAX_ID_CHARS:
        return name
    digest = hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:_HASH_CHARS]
    slug = _UNCLEAN.sub("-", name).replace("::", "-").strip("-")[: MAX_ID_CHARS - _HASH_CHARS - 1]
    return f"{slug}-{digest}" if slug else digest
