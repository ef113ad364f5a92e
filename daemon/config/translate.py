"""Pydantic's errors to our problems: with a line, the key path, what stands there and what may."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from devd.daemon.config import shape
from devd.daemon.config.document import Place
from devd.daemon.config.errors import KeyPath, Problem, key_text
from devd.daemon.config.model import Config
from devd.daemon.config.rules import ERROR_TYPE, meant, unquoted

_NOTHING = "nothing"


def problems_of(error: ValidationError, root: Place) -> list[Problem]:
    """Return the problems behind a validation error of ``Config``."""
    found = [_problem(one, root) for one in error.errors(include_url=False)]
    return [one for one in found if one is not None]


def problem_at(root: Place, path: KeyPath, message: str, allowed: str = "", found: str | None = None) -> Problem:
    """Return a problem with the line and text of a path; a missing value gets the line of what should hold it."""
    place = root.at(path)
    holder = path
    while place is None and holder:
        holder = holder[:-1]
        place = root.at(holder)
    line = place.shown_line if place is not None else 1
    shown = found if found is not None else _found(root.at(path))
    return Problem(line, key_text(path), shown, allowed, message)


def _found(place: Place | None) -> str:
    return place.found if place is not None else _NOTHING


def _problem(error: ErrorDetails, root: Place) -> Problem | None:
    path, hint = shape.walk(Config, error["loc"])
    # A single value that counts as a list of one has no entry 0 in the file.
    while path and isinstance(path[-1], int) and root.at(path) is None:
        path = path[:-1]
    context: Mapping[str, Any] = error.get("ctx", {})
    kind = error["type"]
    if kind == "extra_forbidden":
        return _unknown(error["loc"], path, root)
    if kind == ERROR_TYPE:
        return _ruled(error, context, path, root)
    if kind == "missing":
        return problem_at(root, path, "this key is needed", _allowed(hint))
    if kind in ("too_short", "too_long"):
        return _wrong_length(kind, context, path, root)
    allowed = _allowed(hint)
    if kind not in _FORM_ERRORS:
        return problem_at(root, path, error["msg"], allowed)
    advice = unquoted(error["input"]) if kind == "tuple_type" and _may_be_text(hint) else ""
    return problem_at(root, path, f"{allowed} is needed{advice and f': {advice}'}", allowed)


def _may_be_text(hint: Any) -> bool:
    """Return whether a single text may stand for a list of one."""
    item = shape.rule_of(shape.item_of(hint))
    return shape.may_be_single(hint) and item is not None and item.schema.get("type") == "string"


_FORM_ERRORS = frozenset({"model_type", "dict_type", "tuple_type"})


def _ruled(error: ErrorDetails, context: Mapping[str, Any], path: KeyPath, root: Place) -> Problem:
    """Return the problem of a rule of ours; a wrong key of a map is its own finding."""
    allowed = _unmarked(str(context["allowed"]))
    if error["loc"][-1] == "[key]":
        place = root.at(path)
        line = place.key_line if place is not None else 1
        return Problem(line, key_text(path), ascii(path[-1]), allowed, "the key is " + str(context["text"]))
    return problem_at(root, path, str(context["text"]), allowed)


def _unknown(way: tuple[int | str, ...], path: KeyPath, root: Place) -> Problem:
    _, holder = shape.walk(Config, way[:-1])
    keys = shape.keys_of(holder)
    place = root.at(path)
    name = str(path[-1])
    hint = meant(name, keys)
    return Problem(place.key_line if place else 1, key_text(path), "", ", ".join(keys), f"unknown key{hint}")


def _wrong_length(kind: str, context: Mapping[str, Any], path: KeyPath, root: Place) -> Problem | None:
    place = root.at(path)
    if kind == "too_short":
        # Pydantic counts the valid entries: with errors in them the list only seems too short.
        empty = place is not None and not place.scalar and not place.children
        return problem_at(root, path, "the list is empty", "at least 1 entry") if empty else None
    return problem_at(root, path, "the list is too long", f"at most {context.get('max_length')}")


def _allowed(hint: Any) -> str:
    """Return what may stand at a place, from its annotation."""
    rule = shape.rule_of(hint)
    if rule is not None:
        return _unmarked(rule.allowed)
    if not shape.is_list(hint):
        return "a map"
    item = shape.rule_of(shape.item_of(hint))
    entries = f"a list of {item.kind}s" if item is not None else "a list of maps"
    return f"a {item.kind} or {entries}" if item is not None and shape.may_be_single(hint) else entries


def _unmarked(text: str) -> str:
    """Return a text without the marks it has for the reference page."""
    return text.replace("`", "")
