"""What the codec takes and how it says no."""

import os
import time
from contextlib import nullcontext

import msgpack
import pytest

from devd.ipc import codec
from devd.ipc.errors import ProtocolError
from devd.ipc.messages import ControlReply, ControlRequest, Device, Health, Listing, Reset, Stop

HEALTH = Health("gpu-1", 1, 1, "pass", "", 1, "open", 1.5, 0.25, "", 0.0)
WORST_DECODE_S = 5.0
"""A wide margin over the tenths of a second that the worst frame of the largest size takes; hanging is over it."""


def fields_of(message: object) -> dict[str, object]:
    fields: dict[str, object] = msgpack.unpackb(codec.encode(message))[2]
    return fields


def frame_of(name: str, fields: object) -> bytes:
    return msgpack.packb([1, name, fields])


def test_numbers_that_python_would_let_pass_are_refused() -> None:
    """True is no whole number, 1 is no truth value, and a float field takes no NaN and no infinity."""
    for field, value, wanted in [
        ("seq", True, r"Health\.seq: a whole number is needed"),
        ("seq", 1.0, r"Health\.seq: a whole number is needed"),
        ("probe_at_s", float("nan"), r"Health\.probe_at_s: a finite number is needed"),
        ("probe_at_s", float("inf"), r"Health\.probe_at_s: a finite number is needed"),
        ("probe_at_s", True, r"Health\.probe_at_s: a finite number is needed"),
        ("verdict", "well", r"Health\.verdict: one of pass, fail, none is needed"),
        ("device", None, r"Health\.device: text is needed"),
        ("device", b"gpu-1", r"Health\.device: text is needed"),
    ]:
        with pytest.raises(ProtocolError, match=wanted):
            codec.decode(frame_of("Health", fields_of(HEALTH) | {field: value}), Health)
    with pytest.raises(ProtocolError, match=r"ControlReply\.ok: true or false is needed"):
        codec.decode(frame_of("ControlReply", {"ok": 1, "error": "", "data": {}}), ControlReply)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_free_values_are_those_json_knows(value: float) -> None:
    """What ends in ``devd status -o json`` must be JSON: no NaN, no infinity, no bytes."""
    for one in (value, [value], {"x": value}, b"bytes", [b"bytes"]):
        with pytest.raises(ProtocolError, match=r"finite number is needed|plain values are needed"):
            codec.decode(frame_of("ControlReply", {"ok": True, "error": "", "data": {"v": one}}), ControlReply)


def test_whole_numbers_stand_for_durations() -> None:
    """A float field takes a whole number and makes a float of it."""
    got = codec.decode(frame_of("Reset", {"reset_id": 1, "timeout_s": 20, "usage": None, "spared": ""}), Reset)
    assert got == Reset(1, 20.0)
    assert type(got.timeout_s) is float


def test_missing_and_unknown_fields_are_named() -> None:
    """An error names the fields at fault, a few at most, and prints whatever they are called."""
    fields = fields_of(HEALTH)
    del fields["seq"]
    with pytest.raises(ProtocolError, match=r"Health: missing or unknown fields 'seq'"):
        codec.decode(frame_of("Health", fields), Health)
    with pytest.raises(ProtocolError, match=r"'\\x1b\[2J'"):
        codec.decode(frame_of("Health", fields_of(HEALTH) | {"\x1b[2J": 1}), Health)
    with pytest.raises(ProtocolError) as many:
        codec.decode(frame_of("Stop", {f"{n}" * 100: n for n in range(1000)}), Stop)
    assert len(str(many.value)) < 400


def test_only_what_is_expected_is_taken() -> None:
    """A message of the protocol that has no business on a channel is refused by name."""
    with pytest.raises(ProtocolError, match="message 'Stop': expected Health, Reset"):
        codec.decode(codec.encode(Stop()), Health, Reset)


def test_depth_of_free_values_is_bounded() -> None:
    """Sixteen levels of free-form values pass, seventeen do not, on the way in."""

    def nested(levels: int) -> ControlRequest:
        value: object = 1
        for _ in range(levels):
            value = [value]
        return ControlRequest("status", {"x": value})

    assert codec.decode(codec.encode(nested(codec.MAX_DEPTH)), ControlRequest) == nested(codec.MAX_DEPTH)
    with pytest.raises(ProtocolError, match="nested deeper than 16"):
        codec.decode(codec.encode(nested(codec.MAX_DEPTH + 1)), ControlRequest)


def test_frame_size_is_bounded() -> None:
    """A frame of 4 MiB is looked at, one byte more is refused unread."""
    with pytest.raises(ProtocolError, match="not a frame"):
        codec.decode(msgpack.packb("x" * (codec.MAX_FRAME_BYTES - 5)), Stop)
    with pytest.raises(ProtocolError, match="frame of 4194305 bytes: at most 4194304"):
        codec.decode(bytes(codec.MAX_FRAME_BYTES + 1), Stop)


def wide(items: int) -> list[list[None]]:
    """Return lists of the longest length allowed, of so many items in all."""
    return [[None] * codec.MAX_ITEMS] * (items // codec.MAX_ITEMS)


@pytest.mark.parametrize(
    ("frame", "wanted"),
    [
        (frame_of("ControlRequest", {"verb": "", "args": {"x": wide(4_000_000)}}), ""),
        (frame_of("ControlRequest", {"verb": 0, "args": {"x": wide(4_000_000)}}), "text is needed"),
        (
            frame_of("Listing", {"resource": "", "incarnation": 1, "seq": 1, "devices": [], "problems": [""] * 70_000}),
            "not msgpack within bounds",
        ),
        (frame_of("Stop", {f"{n:05d}": n for n in range(70_000)}), "not msgpack within bounds"),
        (frame_of("Stop", {f"{n:05d}": n for n in range(codec.MAX_ITEMS)}), "missing or unknown fields"),
        (b"\x93\x01" + b"\x91" * 4_000_000, "not msgpack within bounds"),
    ],
    ids=["wide", "wide and wrong", "long list", "large map", "largest map", "endless nesting"],
)
def test_the_worst_frames_take_bounded_time(frame: bytes, wanted: str) -> None:
    """Frames of the largest size made to be slow are decoded or refused in bounded time."""
    assert len(frame) <= codec.MAX_FRAME_BYTES
    begun_s = time.monotonic()
    with pytest.raises(ProtocolError, match=wanted) if wanted else nullcontext():
        codec.decode(frame, ControlRequest, Listing, Stop)
    assert time.monotonic() - begun_s < WORST_DECODE_S


def test_file_names_of_any_bytes_can_be_told() -> None:
    """A name that is not Unicode is sent with its odd bytes escaped instead of ending the scout that found it."""
    listing = Listing("devd.io/x", 1, 1, (Device("x"),), (os.fsdecode(b"/dev/\xff\xfe: odd name"),))
    got = codec.decode(codec.encode(listing), Listing)
    assert got.problems == ("/dev/\\udcff\\udcfe: odd name",)
