"""Bytes <-> messages, strictly: any input is either a valid message or a ProtocolError, never anything else.

A frame is msgpack of ``[version, name, {field: value}]``. Every field must be there, none may be unknown, and each
value must have the type its dataclass declares.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar, cast, overload

import msgpack

from devd.ipc.errors import ProtocolError
from devd.ipc.messages import MESSAGES, PROTOCOL_VERSION

MAX_FRAME_BYTES = 4 * 1024 * 1024
"""Largest frame either side takes; the kubelet's own limit on a device list."""
MAX_ITEMS = 65_536
"""Entries of one list or map, ten times a large node's devices; bounds the time a hostile frame can take to check."""
MAX_DEPTH = 16
"""Nesting of free-form values (driver parameters, status data)."""

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
F = TypeVar("F")
Check = Callable[[Any, str], Any]

_FRAME_PARTS = 3
_SHOWN_CHARS = 40
_NUMBERS = (int, float)


def encode(message: Any) -> bytes:
    r"""Return the frame of a message dataclass.

    Text that is not valid Unicode (a file name of other bytes) travels with its odd bytes escaped, as ``\udcff``.
    """
    parts = [PROTOCOL_VERSION, type(message).__name__, _plain(message)]
    return msgpack.packb(parts, use_bin_type=True, unicode_errors="backslashreplace")


@overload
def decode(frame: bytes | memoryview, one: type[A], /) -> A: ...
@overload
def decode(frame: bytes | memoryview, one: type[A], two: type[B], /) -> A | B: ...
@overload
def decode(frame: bytes | memoryview, one: type[A], two: type[B], three: type[C], /) -> A | B | C: ...
@overload
def decode(
    frame: bytes | memoryview, one: type[A], two: type[B], three: type[C], four: type[D], /
) -> A | B | C | D: ...
@overload
def decode(
    frame: bytes | memoryview, one: type[A], two: type[B], three: type[C], four: type[D], five: type[E], /
) -> A | B | C | D | E: ...
@overload
def decode(
    frame: bytes | memoryview, one: type[A], two: type[B], three: type[C], four: type[D], five: type[E], six: type[F], /
) -> A | B | C | D | E | F: ...
def decode(frame: bytes | memoryview, /, *expected: type) -> object:
    """Return the message in a frame, one of the ``expected`` classes.

    Raises ProtocolError for anything else: too long, not msgpack, another version, an unknown or unexpected
    message, a missing, unknown or ill-typed field.
    """
    if len(frame) > MAX_FRAME_BYTES:
        raise ProtocolError(f"frame of {len(frame)} bytes: at most {MAX_FRAME_BYTES} are taken")
    try:
        parts = msgpack.unpackb(
            frame, raw=False, strict_map_key=True, use_list=True, max_array_len=MAX_ITEMS, max_map_len=MAX_ITEMS
        )
    # msgpack raises a family without a common base: ValueError, its own exceptions, RecursionError, TypeError.
    except Exception as error:
        raise ProtocolError(f"not msgpack within bounds: {type(error).__name__}") from error
    if not isinstance(parts, list) or len(parts) != _FRAME_PARTS:
        raise ProtocolError("not a frame of [version, name, fields]")
    version, name, fields = parts
    if type(version) is not int or version != PROTOCOL_VERSION:
        raise ProtocolError(f"protocol version {_shown(version)}: this side speaks {PROTOCOL_VERSION}")
    cls = MESSAGES.get(name) if isinstance(name, str) else None
    if cls is None or cls not in expected:
        wanted = ", ".join(one.__name__ for one in expected)
        raise ProtocolError(f"message {_shown(name)}: expected {wanted}")
    return _checker(cls.__name__)(fields, cls.__name__)


def _shown(value: Any) -> str:
    """Return a peer's value for an error text: short, printable, and without walking what may be nested without end."""
    if isinstance(value, str | bytes):
        return ascii(value[:_SHOWN_CHARS])
    return repr(value) if isinstance(value, int | float | None) else type(value).__name__


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name: _plain(getattr(value, one.name)) for one in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


@cache
def _checker(name: str) -> Check:
    return _dataclass_check(MESSAGES[name])


def _dataclass_check(cls: type) -> Check:
    hints = typing.get_type_hints(cls)
    checks = {one.name: _check_for(hints[one.name]) for one in dataclasses.fields(cls)}

    def check(value: Any, where: str) -> Any:
        if not isinstance(value, dict):
            raise ProtocolError(f"{where}: a map is needed")
        if value.keys() != checks.keys():
            odd = sorted(str(key) for key in value.keys() ^ checks.keys())
            raise ProtocolError(f"{where}: missing or unknown fields {', '.join(map(_shown, odd[:5]))}")
        return cls(**{name: one(value[name], f"{where}.{name}") for name, one in checks.items()})

    return check


def _check_for(hint: Any) -> Check:
    """Return the check for one declared type; raises TypeError for a type no message may use (a bug of ours)."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _dataclass_check(cast("type", hint))
    if hint in _PLAIN:
        return _PLAIN[hint]
    if origin is typing.Literal:
        return _literal(args)
    if origin in (types.UnionType, typing.Union):
        inner = _check_for(next(one for one in args if one is not types.NoneType))
        return lambda value, where: None if value is None else inner(value, where)
    if origin is tuple:
        return _tuple(_check_for(args[0]))
    if origin is Mapping:
        return _mapping(_check_for(args[1]))
    raise TypeError(f"messages cannot hold {hint!r}")


def _literal(allowed: tuple[Any, ...]) -> Check:
    def check(value: Any, where: str) -> Any:
        if not isinstance(value, str) or value not in allowed:
            raise ProtocolError(f"{where}: one of {', '.join(allowed)} is needed")
        return value

    return check


def _tuple(inner: Check) -> Check:
    def check(value: Any, where: str) -> Any:
        if not isinstance(value, list):
            raise ProtocolError(f"{where}: a list is needed")
        return tuple(inner(one, f"{where}[{index}]") for index, one in enumerate(value))

    return check


def _mapping(inner: Check) -> Check:
    def check(value: Any, where: str) -> Any:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise ProtocolError(f"{where}: a map with text keys is needed")
        return {key: inner(one, f"{where}.{_shown(key)}") for key, one in value.items()}

    return check


def _string(value: Any, where: str) -> Any:
    if not isinstance(value, str):
        raise ProtocolError(f"{where}: text is needed")
    return value


def _integer(value: Any, where: str) -> Any:
    if type(value) is not int:
        raise ProtocolError(f"{where}: a whole number is needed")
    return value


def _number(value: Any, where: str) -> Any:
    if type(value) not in _NUMBERS or not math.isfinite(value):
        raise ProtocolError(f"{where}: a finite number is needed")
    return float(value)


def _boolean(value: Any, where: str) -> Any:
    if type(value) is not bool:
        raise ProtocolError(f"{where}: true or false is needed")
    return value


def _free(value: Any, where: str, depth: int = 0) -> Any:
    """Any tree of plain values; bytes, extension types and numbers that JSON does not know are refused."""
    if depth > MAX_DEPTH:
        raise ProtocolError(f"{where}: nested deeper than {MAX_DEPTH}")
    if isinstance(value, float):
        return _number(value, where)
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, list):
        return [_free(one, where, depth + 1) for one in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _free(one, where, depth + 1) for key, one in value.items()}
    raise ProtocolError(f"{where}: plain values are needed")


_PLAIN: dict[Any, Check] = {str: _string, int: _integer, float: _number, bool: _boolean, object: _free}
