"""Reads constraints.txt and the lock files: exact versions, by hash, from no place of their own choice."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from deploy.audit.findings import Finding

_HASH = re.compile(r"--hash=(\S*)")
_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")
_PLACE = re.compile(r"[a-z][a-z0-9+.]*://|\s@\s", re.IGNORECASE)
"""An address, or a requirement that names one ("name @ place")."""
_COMMENT = re.compile(r"(^|\s)#.*$")


@dataclass(frozen=True, slots=True)
class Pin:
    """One package at one version. ``name`` is normalized; ``where`` is file:line."""

    name: str
    version: Version
    where: str
    marker: Marker | None = None

    @property
    def applies(self) -> bool:
        """Whether this interpreter would install it."""
        return self.marker is None or self.marker.evaluate()


@dataclass(frozen=True, slots=True)
class Pins:
    """What a file pins, and what is wrong with it."""

    where: str
    by_name: dict[str, Pin]
    findings: list[Finding]


def read(root: Path, name: str, *, hashed: bool) -> Pins:
    """Return the pins of a file below ``root``; with ``hashed`` each must have its sha256. Raises OSError."""
    pins = Pins(name, {}, [])
    text = (root / name).read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), 1):
        if place := _PLACE.search(line):
            found = f"{place.group().strip()!r} names a place to fetch from"
            pins.findings.append(Finding(f"{name}:{number}", found, "a lock holds names, versions and hashes alone"))
    for number, line in _logical_lines(text):
        _take(pins, f"{name}:{number}", line, hashed=hashed)
    if not pins.by_name:
        pins.findings.append(Finding(name, "pins nothing", "write it again (deploy/image/lock.sh, make constraints)"))
    return pins


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield each line without comments, joined over backslashes, with the number of its first."""
    begun, so_far = 0, ""
    for number, raw in enumerate(text.splitlines(), 1):
        line = _COMMENT.sub("", raw).rstrip()
        begun = begun or number
        if line.endswith("\\"):
            so_far += line[:-1] + " "
            continue
        whole = (so_far + line).strip()
        if whole:
            yield begun, whole
        begun, so_far = 0, ""
    if so_far.strip():
        yield begun, so_far.strip()


def _take(pins: Pins, where: str, line: str, *, hashed: bool) -> None:
    hashes = _HASH.findall(line)
    wanted = _HASH.sub("", line).strip()
    if wanted.startswith("-"):
        pins.findings.append(Finding(where, f"option {wanted!r}", "only NAME==VERSION lines are allowed"))
        return
    pin = _pin(pins, where, wanted)
    if pin is None:
        return
    if hashed and not hashes:
        pins.findings.append(Finding(where, f"{pin.name} has no hash", "each needs --hash=sha256:... (lock.sh)"))
    pins.findings.extend(
        Finding(where, f"{pin.name} has the hash {one!r}", "sha256: and 64 digits are allowed")
        for one in hashes
        if not _SHA256.fullmatch(one)
    )
    if pin.name in pins.by_name:
        pins.findings.append(Finding(where, f"{pin.name} is pinned twice", f"see {pins.by_name[pin.name].where}"))
        return
    pins.by_name[pin.name] = pin


def _pin(pins: Pins, where: str, wanted: str) -> Pin | None:
    remedy = "NAME==VERSION is allowed, with a marker behind a semicolon"
    try:
        requirement = Requirement(wanted)
        [specifier] = requirement.specifier
        if specifier.operator != "==" or requirement.url is not None:
            raise ValueError  # noqa: TRY301 - one remedy for everything that is no exact pin
        version = Version(specifier.version)  # a wildcard is none
    except (InvalidRequirement, InvalidVersion, ValueError):
        pins.findings.append(Finding(where, f"{wanted!r} is no exact pin", remedy))
        return None
    return Pin(canonicalize_name(requirement.name), version, where, requirement.marker)
