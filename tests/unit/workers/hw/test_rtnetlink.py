"""Interfaces by rtnetlink: the kernel's own answers in a network namespace of its own, and damaged messages."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devd.workers.hw import rtnetlink

CODE = """
import select
from devd.workers.hw.rtnetlink import LinkChanges, Route
changes = LinkChanges()
assert changes.drain() == frozenset(), "nothing yet"
with Route() as route:
    link = route.link("lo")
    route.set_up(link.index, up=True)
    assert select.select([changes.fd], [], [], 15)[0]
    print(sorted(changes.drain()), route.link("lo").flags & 1)
    for turn in range(4000):
        route.set_up(link.index, up=bool(turn % 2))
    print(changes.drain())
    found = [changes.drain() for turn in range(200)]
    print(found[-1])
    for name in ("", "x" * 16):
        try:
            route.link(name)
        except OSError as error:
            print(error.errno)
changes.close()
"""


def test_changes_are_heard_and_lost_ones_are_said() -> None:
    """A change is told by the interface's name; a storm that overran the buffer is told once as "any may have"."""
    command = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", CODE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except FileNotFoundError:
        pytest.skip("unshare(1) is not installed")
    if any(words in done.stderr for words in ("unshare failed", "Operation not permitted", "failed to execute")):
        pytest.skip(f"no network namespace here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["['lo'] 1", "None", "frozenset()", "19", "19"]


@given(st.binary(max_size=200))
def test_any_damaged_message_is_read_to_its_end(data: bytes) -> None:
    """Whatever the lengths in it say, reading ends, and what makes no sense is no interface."""
    for _kind, _sequence, content in rtnetlink._messages(data):
        found = rtnetlink._link(content)
        assert isinstance(found.name, str)
