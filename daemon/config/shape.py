"""Walks the models by the way of a value: what may stand at a place, for error messages and the reference page."""

import types
import typing
from typing import Annotated, Any

from pydantic import BaseModel, Tag
from pydantic.fields import FieldInfo

from devd.daemon.config.errors import KeyPath
from devd.daemon.config.rules import OneOrMore, Rule

_KEY_MARK = "[key]"
"""What pydantic puts behind a map's key when the key itself is wrong."""


def key_of(name: str, field: FieldInfo) -> str:
    """Return a field's key in the configuration."""
    return field.alias or name


def hint_of(field: FieldInfo) -> Any:
    """Return a field's whole annotation, with what pydantic took off it."""
    hint: Any = field.annotation
    for extra in field.metadata:
        hint = Annotated[hint, extra]
    return hint


def rule_of(hint: Any) -> Rule | None:
    """Return the rule of a value's annotation, None for maps and lists."""
    hint = _without_none(hint)
    rules = [extra for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, Rule)]
    return rules[-1] if rules else None


def model_of(hint: Any) -> type[BaseModel] | None:
    """Return the section a value's annotation stands for, if it is exactly one."""
    bare = _bare(hint)
    return bare if isinstance(bare, type) and issubclass(bare, BaseModel) else None


def members(hint: Any) -> dict[str, Any]:
    """Return the kinds of a section that comes in several, by their tags; empty for anything else."""
    found = {}
    for member in typing.get_args(_bare(hint)):
        for extra in getattr(member, "__metadata__", ()):
            if isinstance(extra, Tag):
                found[extra.tag] = member
    return found


def item_of(hint: Any) -> Any:
    """Return the annotation of a list's entries or a map's values, None for anything else."""
    bare = _bare(hint)
    args = typing.get_args(bare)
    origin = typing.get_origin(bare)
    if origin is tuple:
        return args[0]
    return args[1] if origin is dict else None


def is_list(hint: Any) -> bool:
    """Return whether a value is a list."""
    return typing.get_origin(_bare(hint)) is tuple


def may_be_single(hint: Any) -> bool:
    """Return whether a single entry may stand for a list of one."""
    return any(isinstance(extra, OneOrMore) for extra in getattr(_without_none(hint), "__metadata__", ()))


def walk(top: type[BaseModel], way: tuple[int | str, ...]) -> tuple[KeyPath, Any]:
    """Return the key path and the annotation at the end of a pydantic error's ``loc``; the latter None if unknown.

    Pydantic's way also names the kinds of sections that come in several; a key path does not.
    """
    path: list[str | int] = []
    hint: Any = top
    for part in way:
        kinds = members(hint)
        if part in kinds:
            hint = kinds[str(part)]
        elif part != _KEY_MARK:
            path.append(part)
            hint = _below(hint, part)
    return tuple(path), hint


def keys_of(hint: Any) -> tuple[str, ...]:
    """Return the keys a section may have; empty when the annotation is no section."""
    model = model_of(hint)
    return tuple(key_of(name, field) for name, field in model.model_fields.items()) if model else ()


def _below(hint: Any, part: int | str) -> Any:
    model = model_of(hint)
    if model is not None:
        fields = {key_of(name, field): field for name, field in model.model_fields.items()}
        return hint_of(fields[str(part)]) if part in fields else None
    return item_of(hint)


def _bare(hint: Any) -> Any:
    """Return an annotation without Annotated and without ``| None``."""
    hint = _without_none(hint)
    return typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint


def _without_none(hint: Any) -> Any:
    inner = typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint
    if typing.get_origin(inner) in (typing.Union, types.UnionType):
        others = [one for one in typing.get_args(inner) if one is not types.NoneType]
        if len(others) == 1:
            metadata = getattr(hint, "__metadata__", ())
            merged = others[0]
            for extra in metadata:
                merged = Annotated[merged, extra]
            return merged
    return hint
