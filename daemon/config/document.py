"""YAML text to plain values, each with the line it stands on; bounded in size, depth and number of values.

Nothing but text, numbers, true, false, null, lists and maps comes out: the file cannot name a Python type.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.constructor import SafeConstructor

from devd.daemon.config.errors import KeyPath, Problem, key_text, printable

MAX_BYTES = 1024 * 1024
"""A configuration is a few kilobytes; a larger file is a wrong file."""
MAX_VALUES = 50_000
"""Values after aliases are followed: a short file of nested aliases could stand for billions."""
MAX_DEPTH = 32
"""Maps and lists within each other; the deepest key of the configuration lies at 8."""

_MAX_NUMBER_CHARS = 64
"""A longer "number" stays text: YAML's base-60 numbers take quadratic time to read."""
_SHOWN_CHARS = 60
_YAML = "tag:yaml.org,2002:"
_TEXT_TAGS = frozenset({f"{_YAML}str", f"{_YAML}timestamp", f"{_YAML}value", f"{_YAML}merge"})


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands and what is written there. ``key_line`` is its key's, ``line`` the value's own."""

    key_line: int
    line: int
    found: str
    scalar: bool
    children: Mapping[str | int, "Place"] = field(default_factory=dict)

    @property
    def shown_line(self) -> int:
        """The line to show: a scalar's own, for a map or list its key's."""
        return self.line if self.scalar else self.key_line

    def at(self, path: KeyPath) -> "Place | None":
        """Return the place of a value below this one, None if the file has none there."""
        place: Place | None = self
        for part in path:
            place = place.children.get(part) if place is not None else None
        return place


@dataclass(frozen=True, slots=True)
class Document:
    """A file's values and places. ``root`` None: it is not YAML within bounds, and ``problems`` says why."""

    data: object
    root: Place | None
    problems: tuple[Problem, ...] = ()


def parse(text: str) -> Document:
    """Return the values of a YAML text; raises nothing, whatever the text."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        return _refuse(0, f"the file is larger than {MAX_BYTES} bytes")
    try:
        return _read(text)
    except _BoundsError as error:
        return _refuse(error.line, str(error))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        return _refuse(mark.line + 1 if mark else 1, f"not YAML: {_story(error)}")
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        return _refuse(line, f"not YAML: character #x{_number(error.character):04x} is not allowed")


def _read(text: str) -> Document:
    """Return the values of a YAML text. Raises YAMLError or _BoundsError."""
    loader = _BoundedLoader(text)
    try:
        node = loader.get_single_node()
    except (ValueError, OverflowError) as error:
        # PyYAML's scanner passes on what chr() says to an escape beyond Unicode.
        raise _BoundsError(loader.line + 1, f"not YAML: {error}") from error
    finally:
        loader.dispose()
    if node is None:
        return _refuse(1, "the file is empty: resources are needed")
    reader = _Reader()
    data, root = reader.read(node, (), _line(node), 0)
    return Document(data, root, tuple(reader.problems))


class _BoundsError(Exception):
    """Raised when a file goes beyond what is read."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line


# SafeLoader's composer alone is used: no object is ever constructed.
class _BoundedLoader(yaml.SafeLoader):
    """Composes the node tree, within bounds while it does so."""

    def __init__(self, text: str) -> None:
        self._nodes = 0
        self._depth = 0
        super().__init__(text)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._nodes += 1
        self._depth += 1
        _check_bounds(self.line + 1, self._nodes, self._depth)
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


class _Reader:
    """Turns nodes into plain values and places; goes on after a problem, to find them all."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._values = 0
        self._constructor = SafeConstructor()

    def read(self, node: yaml.Node, path: KeyPath, key_line: int, depth: int) -> tuple[object, Place]:
        self._values += 1
        _check_bounds(key_line, self._values, depth)
        if isinstance(node, yaml.MappingNode):
            return self._map(node, path, key_line, depth)
        if isinstance(node, yaml.SequenceNode):
            return self._list(node, path, key_line, depth)
        if not isinstance(node, yaml.ScalarNode):
            raise TypeError(f"PyYAML knows no node like {type(node).__name__}")
        return self._scalar(node, path), Place(key_line, _line(node), _found(node), scalar=True)

    def _map(self, node: yaml.MappingNode, path: KeyPath, key_line: int, depth: int) -> tuple[object, Place]:
        self._check_tag(node, path, "map")
        values: dict[str, object] = {}
        places: dict[str | int, Place] = {}
        for key, (key_node, value_node) in self._entries(node, path, depth).items():
            values[key], places[key] = self.read(value_node, (*path, key), _line(key_node), depth + 1)
        names = ", ".join(map(_short, values)) or "no keys"
        return values, Place(key_line, _line(node), f"a map ({_short(names)})", scalar=False, children=places)

    def _list(self, node: yaml.SequenceNode, path: KeyPath, key_line: int, depth: int) -> tuple[object, Place]:
        self._check_tag(node, path, "seq")
        values: list[object] = []
        places: dict[str | int, Place] = {}
        for index, one in enumerate(node.value):
            value, places[index] = self.read(one, (*path, index), _line(one), depth + 1)
            values.append(value)
        entries = f"{len(values)} entr{'y' if len(values) == 1 else 'ies'}"
        return values, Place(key_line, _line(node), f"a list of {entries}", scalar=False, children=places)

    def _entries(self, node: yaml.MappingNode, path: KeyPath, depth: int) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """Return a map's own entries and those it merges in by ``<<``; its own ones win."""
        own: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        merged: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key_node, value_node in node.value:
            if key_node.tag == f"{_YAML}merge":
                for key, entry in self._merged(value_node, path, depth).items():
                    merged.setdefault(key, entry)
            elif not isinstance(key_node, yaml.ScalarNode):
                self._report(key_node, path, _found(key_node), "text", "a map's key must be text")
            elif key_node.value in own:
                first = _line(own[key_node.value][0])
                where = (*path, key_node.value)
                self._report(key_node, where, "", "", f"this key is given twice, first on line {first}")
            else:
                self._check_text(key_node, path)
                own[key_node.value] = (key_node, value_node)
        return {**merged, **own}

    def _merged(self, node: yaml.Node, path: KeyPath, depth: int) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        self._values += 1
        _check_bounds(_line(node), self._values, depth)
        if isinstance(node, yaml.MappingNode):
            return self._entries(node, path, depth + 1)
        entries: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        if isinstance(node, yaml.SequenceNode) and all(isinstance(one, yaml.MappingNode) for one in node.value):
            for one in node.value:
                for key, entry in self._merged(one, path, depth + 1).items():
                    entries.setdefault(key, entry)
            return entries
        self._report(node, (*path, "<<"), _found(node), "a map or a list of maps", "only maps can be merged")
        return entries

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath) -> object:
        self._check_text(node, path)
        text: str = node.value
        if node.tag in _TEXT_TAGS or (node.tag != f"{_YAML}null" and len(text) > _MAX_NUMBER_CHARS):
            return text
        readers = {
            f"{_YAML}null": lambda _node: None,
            f"{_YAML}bool": self._constructor.construct_yaml_bool,
            f"{_YAML}int": self._constructor.construct_yaml_int,
            f"{_YAML}float": self._constructor.construct_yaml_float,
        }
        if node.tag not in readers:
            self._bad_tag(node, path)
            return text
        try:
            return readers[node.tag](node)
        except (ValueError, LookupError, OverflowError):
            name = node.tag.removeprefix(_YAML)
            self._report(node, path, _found(node), "", f"the tag !!{name} does not fit the value")
            return text

    def _check_text(self, node: yaml.Node, path: KeyPath) -> None:
        """Refuse what no path, variable or argument can hold, and no message can carry."""
        if any(sign == "\0" or "\ud800" <= sign <= "\udfff" for sign in node.value):
            message = "the text holds a NUL or half a surrogate pair"
            self._report(node, path, _found(node), "whole Unicode characters without NUL", message)

    def _check_tag(self, node: yaml.Node, path: KeyPath, name: str) -> None:
        if node.tag != f"{_YAML}{name}":
            self._bad_tag(node, path)

    def _bad_tag(self, node: yaml.Node, path: KeyPath) -> None:
        self._report(node, path, _short(node.tag), "plain YAML values", "this tag is not known here")

    def _report(self, node: yaml.Node, path: KeyPath, found: str, allowed: str, message: str) -> None:
        self.problems.append(Problem(_line(node), key_text(path), found, allowed, message))


def _check_bounds(line: int, values: int, depth: int) -> None:
    if values > MAX_VALUES:
        raise _BoundsError(line, f"the file has more than {MAX_VALUES} values, aliases followed")
    if depth > MAX_DEPTH:
        raise _BoundsError(line, f"maps and lists are nested deeper than {MAX_DEPTH}, aliases followed")


def _refuse(line: int, message: str) -> Document:
    return Document(None, None, (Problem(line, "", "", "", message),))


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _story(error: yaml.MarkedYAMLError) -> str:
    """Return what is wrong, and in what that began further up ("while parsing a flow sequence")."""
    parts = [str(error.problem)] if error.problem else []
    if error.context and error.context_mark is not None:
        parts.append(f"{error.context} that begins on line {error.context_mark.line + 1}")
    elif error.context:
        parts.append(error.context)
    return ", ".join(parts)


def _number(character: object) -> int:
    return ord(character) if isinstance(character, str) else int(str(character))


def _found(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        return "a map" if isinstance(node, yaml.MappingNode) else "a list"
    if node.style in ("'", '"', "|", ">"):
        return f'"{_short(node.value)}"'
    return _short(node.value) or "nothing"


def _short(text: str) -> str:
    cut = text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."
    return printable(cut)
