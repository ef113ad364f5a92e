"""The templates of env, annotations, mounts and container_path: ``{name}`` and nothing cleverer. Pure.

``{{`` and ``}}`` stand for the braces themselves. Beside the placeholders below, the name of any of the device's
properties may stand there. What is neither is an error, never left as it is.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

PLACEHOLDERS: Mapping[str, str] = MappingProxyType(
    {
        "id": "the device's id; the first one's where a text is made once for several devices",
        "ids": "the ids of all devices the container gets, separated by commas",
        "path": "the device's node, the first one where it has several; in `env` its path in the container",
        "paths": "all nodes of all devices the container gets, separated by commas; in `env` as in the container",
        "name": "the last part of the device's node",
        "names": "the names of all devices the container gets, separated by commas",
        "index": "the device's position among those the container gets, from 0, in natural order",
        "resource": "the resource's name, domain/name",
    }
)
"""Every placeholder and what it stands for."""

PROPERTY = "[A-Za-z][A-Za-z0-9_]*"
"""What the name of a property looks like."""
PER_DEVICE = frozenset({"id", "path", "name", "index"})
"""Those that differ between the devices of one container."""

_PROPERTY = re.compile(PROPERTY)
_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")
_SHOWN_CHARS = 40

Piece = tuple[str, str]
"""(literal text, "") or ("", placeholder)."""


class TemplateError(ValueError):
    """Raised when a text is not a template: an unknown placeholder or a single brace."""


def check_template(text: str) -> str | None:
    """Return what is wrong with a template, in one line, or None."""
    try:
        _parse(text)
    except TemplateError as error:
        return str(error)
    return None


def placeholders(text: str) -> frozenset[str]:
    """Return the placeholders a template uses. Raises TemplateError."""
    return frozenset(name for _, name in _parse(text) if name)


def properties(text: str) -> frozenset[str]:
    """Return the names in a template that can only be those of properties. Raises TemplateError."""
    return placeholders(text) - PLACEHOLDERS.keys()


def differs(text: str) -> bool:
    """Return whether a template is made for each device by itself. Raises TemplateError."""
    return bool(PER_DEVICE & placeholders(text) or properties(text))


def render(text: str, values: Mapping[str, str]) -> str:
    """Return a template with its placeholders replaced; a value's own braces stay as they are.

    Raises TemplateError for a text that is no template, and for a known placeholder that ``values`` lacks.
    """
    return "".join(_value(name, values) if name else literal for literal, name in _parse(text))


def _value(name: str, values: Mapping[str, str]) -> str:
    if name not in values:
        raise TemplateError(f"placeholder {{{name}}} has no value here; these have: {_listed(values)}")
    return values[name]


@lru_cache(maxsize=256)
def _parse(text: str) -> tuple[Piece, ...]:
    return tuple(_piece(found) for found in _PIECE.finditer(text))


def _piece(found: re.Match[str]) -> Piece:
    token, name = found[0], found[1]
    if name is not None:
        if not _PROPERTY.fullmatch(name):
            raise TemplateError(
                f"unknown placeholder {{{name[:_SHOWN_CHARS]}}}; allowed: {_listed(PLACEHOLDERS)}, "
                "names of the device's properties"
            )
        return "", name
    if token in {"{{", "}}"}:
        return token[0], ""
    if token in {"{", "}"}:
        raise TemplateError(f"single {token!r} at character {found.start() + 1}; a brace itself is written {token * 2}")
    return token, ""


def _listed(names: Mapping[str, str]) -> str:
    return ", ".join(f"{{{name}}}" for name in PLACEHOLDERS if name in names)
