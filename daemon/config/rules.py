"""The kinds of values a configuration has: what is allowed, how it is checked, how JSON Schema says it.

A rule stands in a field's annotation and is all there is to know about the value: pydantic runs it, the schema and
the reference page show it, and an error message quotes it.
"""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

Check = Callable[[Any], object]
"""Value as YAML has it -> value as the program wants it. Raises what ``refused`` returns."""

ERROR_TYPE = "devd_rule"
"""Marks pydantic's errors that carry our own message and what is allowed."""

BOUNDS_KEY = "$comment"
"""Where a schema keeps bounds that JSON Schema has no word for; ``schema`` puts them into the description."""
DURATION_PATTERN = r"^[0-9]{1,9}(\.[0-9]{1,6})?(ms|s|m|h)$"
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|m|h)")
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_BARE_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")


# eq=False: a rule is equal to itself alone, and so may stand in annotations, which are hashed.
@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """One kind of value. ``kind`` names it for readers ("duration"), ``allowed`` says what may stand there."""

    kind: str
    allowed: str
    check: Check
    schema: Mapping[str, object]

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Have pydantic run the check instead of its own."""
        return core_schema.no_info_plain_validator_function(self.check)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Have JSON Schema say what the check does, as far as it can."""
        return dict(self.schema)


def refused(message: str, allowed: str) -> PydanticCustomError:
    """Return the error of a check: what is wrong, and what is allowed."""
    return PydanticCustomError(ERROR_TYPE, "{text}", {"text": message, "allowed": allowed})


def meant(word: str, known: Sequence[str]) -> str:
    """Return ", did you mean X?" behind a misspelt word, or nothing."""
    close = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    return f", did you mean {close[0]}?" if close else ""


def as_text(value: object, allowed: str) -> str:
    """Return a text, refusing what YAML takes for something else."""
    if isinstance(value, str):
        return value
    if value is None:
        raise refused("a value is missing", allowed)
    raise refused(unquoted(value) or "text is needed", allowed)


def unquoted(value: object) -> str:
    """Return what to do about a value that YAML takes for no text though it may be meant as one, or nothing."""
    if isinstance(value, bool):
        return "YAML reads this as true or false: put it in quotes to have text"
    if isinstance(value, int | float):
        return "YAML reads this as a number: put it in quotes to have text"
    return ""


def duration(least: str, most: str) -> Rule:
    """Durations like ``500ms``, between two of them; seconds come out."""
    least_s, most_s = _seconds(least), _seconds(most)
    allowed = f"{least} to {most}, as in 500ms, 5s, 2m, 1h"

    def check(value: object) -> float:
        if type(value) in (int, float) or (isinstance(value, str) and _BARE_NUMBER.fullmatch(value)):
            raise refused("a duration needs a unit: ms, s, m or h", allowed)
        match = _DURATION.fullmatch(as_text(value, allowed))
        if match is None:
            raise refused("not a duration", allowed)
        seconds = float(match[1]) * _UNITS_S[match[2]]
        if not least_s <= seconds <= most_s:
            raise refused(f"too {'short' if seconds < least_s else 'long'}", allowed)
        return seconds

    return Rule(
        "duration",
        f"{least} to {most}",
        check,
        {"type": "string", "pattern": DURATION_PATTERN, BOUNDS_KEY: f"{least} to {most}"},
    )


def seconds_of(value: object) -> float | None:
    """Return a well-formed duration's seconds, None for anything else."""
    return _seconds(value) if isinstance(value, str) and _DURATION.fullmatch(value) else None


def duration_text(seconds: float) -> str:
    """Return seconds the way a configuration has them, in the largest unit that divides them."""
    for unit, size_s in (("h", 3600.0), ("m", 60.0), ("s", 1.0)):
        if seconds >= size_s and seconds % size_s == 0:
            return f"{seconds / size_s:g}{unit}"
    return f"{seconds * 1000:g}ms"


def whole(least: int, most: int) -> Rule:
    """Whole numbers between two, both included."""
    allowed = f"{least} to {most}"

    def check(value: object) -> int:
        if type(value) is not int:
            raise refused("a whole number is needed", allowed)
        if not least <= value <= most:
            raise refused(f"too {'small' if value < least else 'large'}", allowed)
        return value

    return Rule("whole number", allowed, check, {"type": "integer", "minimum": least, "maximum": most})


def choice(*options: str, hints: Mapping[str, str] | None = None, false: str = "") -> Rule:
    """One of some words; ``hints`` tells more about words that one might expect to be allowed.

    ``false`` is the one that YAML takes for false when it has no quotes.
    """
    allowed = ", ".join(options)

    def check(value: object) -> str:
        text = false if value is False and false else as_text(value, allowed)
        if text not in options:
            hint = (hints or {}).get(text)
            raise refused(hint or f"not one of the allowed words{meant(text, options)}", allowed)
        return text

    words: list[object] = [*options, *([False] if false else [])]
    return Rule("word", ", ".join(f"`{one}`" for one in options), check, {"enum": words})


def flag() -> Rule:
    """Either true or false."""

    def check(value: object) -> bool:
        if not isinstance(value, bool):
            raise refused("true or false is needed", "true, false")
        return value

    return Rule("boolean", "`true`, `false`", check, {"type": "boolean"})


def text(allowed: str, pattern: str, kind: str = "text", *, most_chars: int = 4096) -> Rule:
    """Texts that fit a regular expression as a whole (a plain one: JSON Schema gets it as well)."""
    compiled = re.compile(pattern, re.DOTALL)

    def check(value: object) -> str:
        found = as_text(value, allowed)
        if len(found) > most_chars:
            raise refused(f"longer than {most_chars} characters", allowed)
        if not compiled.fullmatch(found):
            raise refused(f"not a valid {kind}", allowed)
        return found

    schema: dict[str, object] = {"type": "string", "maxLength": most_chars}
    if pattern != ".*":
        schema["pattern"] = f"^(?:{pattern})$"
    return Rule(kind, allowed, check, schema)


def custom(kind: str, allowed: str, check: Callable[[str], object], schema: Mapping[str, object]) -> Rule:
    """Texts with a check of their own, which gets a text and nothing else."""
    return Rule(kind, allowed, lambda value: check(as_text(value, allowed)), {"type": "string", **schema})


class OneOrMore:
    """In front of a tuple's type: a single value of this kind counts as a list of one."""

    def __init__(self, kind: type = str) -> None:
        self._kind = kind

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Put a value in a list before the tuple's own check."""
        return core_schema.no_info_before_validator_function(self._listed, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Allow the value beside the list of them."""
        many = handler(schema)
        return {"anyOf": [many["items"], many]}

    def _listed(self, value: object) -> object:
        return [value] if type(value) is self._kind else value


class Given:
    """In front of an optional value's type: its key may be left out, but not be left empty."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Refuse null before the value's own check."""
        return core_schema.no_info_before_validator_function(_given, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Take null out of the type."""
        whole_schema = handler(schema)
        return dict(next(one for one in whole_schema["anyOf"] if one != {"type": "null"}))


def _given(value: object) -> object:
    if value is None:
        raise refused("a value is missing", "a value, or the key left out")
    return value


def _seconds(text: str) -> float:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise AssertionError(f"{text!r} is no duration")
    return float(match[1]) * _UNITS_S[match[2]]
