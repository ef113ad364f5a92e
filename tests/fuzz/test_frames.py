"""Any bytes are a message or a ProtocolError, and nothing else comes out of ``decode``, whoever sent them."""

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from devd.ipc import codec
from devd.ipc.errors import ProtocolError
from devd.ipc.messages import MESSAGES, PROTOCOL_VERSION

CLASSES = tuple(MESSAGES.values())
DECODE: Callable[..., object] = codec.decode
"""With all classes at once, which no channel does."""
FUZZ = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])

TEXT = st.text(max_size=20)
INTS = st.integers(-(2**63), 2**64 - 1)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.none() | st.booleans() | INTS | FLOATS | TEXT
FREE = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=8
)
ODD = (
    PLAIN
    | st.floats()
    | st.binary(max_size=20)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=8))
    | st.builds(msgpack.Timestamp, st.integers(0, 2**34 - 1), st.integers(0, 999_999_999))
)
TREES = st.recursive(
    ODD,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT | st.binary(max_size=5), inner, max_size=4),
    max_leaves=15,
)


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Return all values a message's field may hold, from its declaration alone."""
    simple: dict[Any, st.SearchStrategy[Any]] = {str: TEXT, int: INTS, float: FLOATS, bool: st.booleans(), object: FREE}
    if hint in simple:
        return simple[hint]
    if dataclasses.is_dataclass(hint):
        return messages_of(typing.cast("type", hint))
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return st.sampled_from(args)
    return containers_of(origin, args)


def containers_of(origin: Any, args: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    """Return the values of a field that holds others."""
    if origin in (types.UnionType, typing.Union):
        return st.one_of(*(st.none() if one is types.NoneType else values_of(one) for one in args))
    if origin is tuple:
        return st.lists(values_of(args[0]), max_size=3).map(tuple)
    assert origin is Mapping, origin
    return st.dictionaries(TEXT, values_of(args[1]), max_size=3)


def messages_of(cls: type) -> st.SearchStrategy[Any]:
    """Return all messages of a class."""
    hints = typing.get_type_hints(cls)
    return st.builds(cls, **{one.name: values_of(hints[one.name]) for one in dataclasses.fields(cls)})


def outcome(frame: bytes) -> None:
    """Decode a frame: nothing but a ProtocolError may come out of it, short and printable, or a whole message."""
    message: object = None
    refusal = "-"
    try:
        message = DECODE(frame, *CLASSES)
    except ProtocolError as error:
        refusal = str(error)
    assert 0 < len(refusal) < 500
    assert refusal.isprintable()
    if message is not None:
        assert isinstance(message, CLASSES)
        # What was taken in can be sent on, and means the same.
        assert codec.decode(codec.encode(message), type(message)) == message


@FUZZ
@given(st.binary(max_size=200))
@example(b"")
@example(b"\xc1")
@example(b"\x93" + b"\xdd\xff\xff\xff\xff")
@example(b"\xdf\xff\xff\xff\xff")
@example(b"\xc6\xff\xff\xff\xff")
@example(b"\x91" * 100_000)
@example(b"\x93" + b"\x91" * 900 + b"\x01" + b"\xa4Stop\x80")
@example(b"\x93\x01" + b"\x91" * 900 + b"\x01" + b"\x80")
@example(b"\x93\x01\xa4Stop" + b"\x81\xa1a" * 900 + b"\x01")
@example(b"\x93\x01\xa2\xff\xfe\x80")
@example(b"\x93\x01\xa4Stop\x81\x91\x01\x01")
@example(b"\x93\x01\xa4Stop\x80\x00")
def test_any_bytes(frame: bytes) -> None:
    """Random bytes, lying lengths, endless nesting, text that is none: a message or a ProtocolError."""
    outcome(frame)


@FUZZ
@given(TREES)
def test_any_tree(tree: object) -> None:
    """Any well-formed msgpack at all is a message or a ProtocolError."""
    outcome(msgpack.packb(tree))


@FUZZ
@given(st.sampled_from(sorted(MESSAGES)), TREES)
def test_any_fields(name: str, fields: object) -> None:
    """Any fields under a right version and a right name are a message or a ProtocolError."""
    outcome(msgpack.packb([PROTOCOL_VERSION, name, fields]))


@FUZZ
@given(TREES, TREES, TREES)
def test_any_heading(version: object, name: object, fields: object) -> None:
    """Any version and any name are a message or a ProtocolError."""
    outcome(msgpack.packb([version, name, fields]))


@FUZZ
@given(st.data())
def test_one_field_replaced(data: st.DataObject) -> None:
    """A valid message with one field, anywhere in it, replaced by any value is a message or a ProtocolError."""
    message = data.draw(st.sampled_from(CLASSES).flatmap(messages_of))
    parts = msgpack.unpackb(codec.encode(message))
    spots = list(spots_in(parts))
    holder, key = data.draw(st.sampled_from(spots))
    holder[key] = data.draw(TREES)
    outcome(msgpack.packb(parts))


def spots_in(tree: Any) -> typing.Iterator[tuple[Any, Any]]:
    """Return each place of a tree as (container, key)."""
    keys = range(len(tree)) if isinstance(tree, list) else list(tree) if isinstance(tree, dict) else ()
    for key in keys:
        yield tree, key
        yield from spots_in(tree[key])


@FUZZ
@given(st.data())
def test_mutated_bytes(data: st.DataObject) -> None:
    """A valid frame with bytes changed, cut out or put in is a message or a ProtocolError."""
    frame = bytearray(codec.encode(data.draw(st.sampled_from(CLASSES).flatmap(messages_of))))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(frame)))
        end = data.draw(st.integers(start, min(len(frame), start + 8)))
        frame[start:end] = data.draw(st.binary(max_size=8))
    outcome(bytes(frame))


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_message_survives_the_wire(cls: type) -> None:
    """Whatever values a message holds, the other side reads an equal one."""

    @settings(FUZZ, max_examples=60)
    @given(messages_of(cls))
    def check(message: object) -> None:
        frame = codec.encode(message)
        assert codec.decode(frame, cls) == message
        with pytest.raises(ProtocolError):
            codec.decode(frame[:-1], cls)

    check()
