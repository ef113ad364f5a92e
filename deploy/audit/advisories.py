"""The advisories that are known, by a file that is kept in the tree: no check needs the network."""

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from deploy.audit.findings import Finding

FILE = "deploy/audit/advisories.json"
STALE_DAYS = 180
"""Half a year: lists of dependencies seldom go longer without an entry."""


@dataclass(frozen=True, slots=True)
class Advisory:
    """One known defect of one package."""

    package: str
    ids: tuple[str, ...]
    affected: tuple[SpecifierSet, ...]
    fixed: Version
    """The newest line's first version without it."""
    summary: str
    source: str

    def hits(self, version: Version) -> bool:
        """Return whether a version has it."""
        return any(one.contains(version, prereleases=True) for one in self.affected)


@dataclass(frozen=True, slots=True)
class Known:
    """All advisories, and the day on which somebody last looked for new ones."""

    reviewed: date
    advisories: tuple[Advisory, ...]

    def of(self, package: str, version: Version) -> list[Advisory]:
        """Return what is known against a package at a version."""
        return [one for one in self.advisories if one.package == package and one.hits(version)]

    def age(self, today: date) -> list[Finding]:
        """Return a warning when nobody has looked for long."""
        days = (today - self.reviewed).days
        if days <= STALE_DAYS:
            return []
        found = f"last reviewed {days} days ago ({self.reviewed}), at most {STALE_DAYS} are meant"
        return [Finding(FILE, found, "look for new advisories (make audit), then set 'reviewed'", fatal=False)]


def load(path: Path) -> Known:
    """Return the list. Raises ValueError naming the entry that makes no sense, OSError."""
    data = json.loads(path.read_text(encoding="utf-8"))
    try:
        return Known(date.fromisoformat(data["reviewed"]), tuple(_advisory(one) for one in data["advisories"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path.name}: {error!r}") from error


def _advisory(entry: dict[str, object]) -> Advisory:
    label = str(entry.get("ids"))
    try:
        texts = {key: str(entry[key]) for key in ("package", "fixed", "summary", "source")}
        ids, ranges = entry["ids"], entry["affected"]
        if not (isinstance(ids, list) and ids and isinstance(ranges, list) and ranges):
            raise ValueError("'ids' and 'affected' are lists, not empty")  # noqa: TRY301 - the label is put to all alike
        advisory = Advisory(
            package=texts["package"],
            ids=tuple(str(one) for one in ids),
            affected=tuple(SpecifierSet(str(one)) for one in ranges),
            fixed=Version(texts["fixed"]),
            summary=texts["summary"],
            source=texts["source"],
        )
        _check(advisory)
    except (KeyError, ValueError, InvalidSpecifier, InvalidVersion) as error:
        raise ValueError(f"advisory {label}: {error!r}") from error
    return advisory


def _check(advisory: Advisory) -> None:
    if canonicalize_name(advisory.package) != advisory.package:
        raise ValueError(f"package {advisory.package!r} is written {canonicalize_name(advisory.package)!r}")
    if advisory.hits(advisory.fixed):
        raise ValueError(f"{advisory.fixed}, where it is said to be fixed, is among the affected")
    if not advisory.source.startswith("https://") or not advisory.summary:
        raise ValueError("a summary and a source (https://...) are needed")
