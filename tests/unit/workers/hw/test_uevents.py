"""Uevents: the kernel's own messages are understood, others are not; a real socket hears a real kernel."""

import os
import select
import time
from pathlib import Path

import pytest

from devd.workers.hw import uevents
from devd.workers.hw.uevents import Batch, Uevent, Uevents, parse

ADD = (
    b"add@/devices/usb1/1-4\0ACTION=add\0DEVPATH=/devices/usb1/1-4\0SUBSYSTEM=usb\0DEVNAME=bus/usb/001/005\0SEQNUM=7\0"
)
TRIGGER = Path("/sys/devices/virtual/mem/null/uevent")
"""Root writes "change" there, and the kernel sends an event about /dev/null: nobody acts on that."""


def _trigger(times: int = 1) -> None:
    """Have the kernel send events. Skips where it does not let us."""
    try:
        for _turn in range(times):
            TRIGGER.write_text("change")
    except OSError as error:
        pytest.skip(f"this machine lets nobody trigger an event: {error}")


def _listen(*subsystems: str, **more: int) -> Uevents:
    try:
        return Uevents(subsystems, **more)
    except OSError as error:
        pytest.skip(f"no uevent socket here: {error}")


def _read_until(listener: Uevents, wanted: str, limit_s: float = 10.0) -> list[Batch]:
    """Return batches until one has an event of a path."""
    deadline_s = time.monotonic() + limit_s
    batches: list[Batch] = []
    while time.monotonic() < deadline_s:
        if not select.select([listener.fd], [], [], 0.5)[0]:
            continue
        batches.append(listener.read())
        if any(event.path == wanted for event in batches[-1].events):
            return batches
    if not batches:
        pytest.skip("the kernel sends no events to this network namespace")
    raise AssertionError(f"no event of {wanted} among {batches}")


def test_a_message_is_parsed() -> None:
    """Action, path, subsystem and all values are there."""
    event = parse(ADD)
    assert event is not None
    assert (event.action, event.path, event.subsystem) == ("add", "/devices/usb1/1-4", "usb")
    assert event.values["DEVNAME"] == "bus/usb/001/005"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"libudev\0\xfe\xed\xca\xfe",
        b"add@",
        b"@/devices/x\0ACTION=\0DEVPATH=/devices/x\0",
        b"add@devices/x\0ACTION=add\0DEVPATH=devices/x\0",
        b"add@/devices/x\0ACTION=remove\0DEVPATH=/devices/x\0",
        b"add@/devices/x\0ACTION=add\0DEVPATH=/devices/y\0",
        ADD[:30],
        b"\xff" * 100,
    ],
)
def test_anything_else_is_no_event(data: bytes) -> None:
    """Udev's own format, a message cut short, one whose head and values differ, noise: None, never an error."""
    assert parse(data) is None


def test_strange_values_are_kept_as_they_are() -> None:
    """Bytes that are no UTF-8 and lines without a value do not lose the event."""
    event = parse(b"change@/d\0ACTION=change\0DEVPATH=/d\0X=\xff=1\0nonsense\0\0")
    assert event == Uevent("change", "/d", "", {"ACTION": "change", "DEVPATH": "/d", "X": "\ufffd=1"})


def test_nothing_waiting_is_an_empty_batch() -> None:
    """Reading never blocks, and closing twice is fine."""
    listener = _listen("no-such-subsystem")
    began_s = time.monotonic()
    assert listener.read().events == ()
    assert time.monotonic() - began_s < 5
    listener.close()
    listener.close()
    assert listener.fd == -1


@pytest.mark.root
def test_a_real_event_is_heard() -> None:
    """What root has the kernel send arrives, with the device's numbers."""
    if os.geteuid() != 0:
        pytest.skip("only root triggers an event")
    with _listen("mem") as listener:
        _trigger()
        batch = _read_until(listener, "/devices/virtual/mem/null")[-1]
    (event, *_more) = [one for one in batch.events if one.path == "/devices/virtual/mem/null"]
    assert (event.action, event.subsystem, event.values["MAJOR"], event.values["MINOR"]) == ("change", "mem", "1", "3")


@pytest.mark.root
def test_unwanted_subsystems_are_left_out() -> None:
    """Of two listeners the one for another subsystem hears nothing of it."""
    if os.geteuid() != 0:
        pytest.skip("only root triggers an event")
    with _listen("mem") as wanted, _listen("usb") as other:
        _trigger()
        _read_until(wanted, "/devices/virtual/mem/null")
        assert all(event.subsystem == "usb" for event in other.read().events)


@pytest.mark.root
@pytest.mark.xdist_group("uevents")
def test_an_overrun_is_told_once() -> None:
    """A reader that was too slow hears that events are lost, then what is left of them, then what comes new."""
    if os.geteuid() != 0:
        pytest.skip("only root triggers an event")
    with _listen("mem", buffer_bytes=2048) as listener:
        _trigger(200)
        batches = _read_until(listener, "/devices/virtual/mem/null")
        while batches[-1].more or batches[-1].events:
            batches.append(listener.read())
        assert [batch.lost for batch in batches].count(True) == 1
        assert sum(len(batch.events) for batch in batches) < 200

        def whole() -> bool:
            _trigger()
            return not any(batch.lost for batch in _read_until(listener, "/devices/virtual/mem/null"))

        # Whatever else this machine tells at that moment may be too much again for so small a buffer.
        assert any(whole() for _ in range(20))


@pytest.mark.root
@pytest.mark.xdist_group("uevents")
def test_a_storm_is_taken_in_portions() -> None:
    """One read takes a bounded number, says that there may be more, and the rest comes with the next."""
    if os.geteuid() != 0:
        pytest.skip("only root triggers an event")
    number = uevents.MAX_EVENTS + 10
    with _listen("mem") as listener:
        _trigger(number)
        first = _read_until(listener, "/devices/virtual/mem/null")[-1]
        if first.lost:
            pytest.skip("this machine's buffers are too small for a storm")
        assert first.more
        assert len(first.events) <= uevents.MAX_EVENTS
        assert len(first.events) + len(listener.read().events) >= number
