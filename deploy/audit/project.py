"""What pyproject.toml asks for, and what this interpreter's environment has."""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

OWN = frozenset({"devd", "pip", "setuptools", "wheel"})
"""The project itself, and what every virtual environment begins with."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The requirements of pyproject.toml: of the daemon, of its extras (``dev`` among them), of the build."""

    runtime: tuple[Requirement, ...]
    extras: tuple[Requirement, ...]
    build: tuple[Requirement, ...]


def read(root: Path) -> Wanted:
    """Return what pyproject.toml below ``root`` asks for. Raises OSError, InvalidRequirement and TOMLDecodeError."""
    text = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    project = text["project"]
    extras = [one for group in project.get("optional-dependencies", {}).values() for one in group]
    return Wanted(
        runtime=tuple(Requirement(one) for one in project["dependencies"]),
        extras=tuple(Requirement(one) for one in extras),
        build=tuple(Requirement(one) for one in text["build-system"]["requires"]),
    )


def installed() -> dict[str, Version]:
    """Return the version of each distribution of this environment but ``OWN``, by normalized name."""
    found = {canonicalize_name(one.metadata["Name"]): Version(one.version) for one in metadata.distributions()}
    return {name: version for name, version in found.items() if name not in OWN}


def closure(roots: Iterable[Requirement]) -> set[str]:
    """Return the names that are installed because of ``roots``, these included, as the installed metadata tells it."""
    seen: set[tuple[str, str]] = set()
    todo = [(canonicalize_name(one.name), extra) for one in roots for extra in ("", *one.extras)]
    while todo:
        name, extra = todo.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            lines = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        for requirement in map(Requirement, lines):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                todo += [(canonicalize_name(requirement.name), one) for one in ("", *requirement.extras)]
    return {name for name, _extra in seen}
