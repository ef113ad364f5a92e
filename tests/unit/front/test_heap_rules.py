"""Whose the growth of the front's memory is: decided by what waits, then by processor time, and then by nobody's."""

import os
import socket
from pathlib import Path

import pytest

from devd.daemon.heap_rules import (
    ALARM_BYTES,
    BOUND_BYTES,
    BUSY_S,
    GROWS_BYTES,
    GUESSES,
    HASTE_BYTES,
    MIB,
    PATIENCE_S,
    WORKER_BYTES,
    Accepted,
    Culprit,
    HeapRules,
    Seen,
)
from devd.daemon.waiting_bytes import WAITING_BYTES, Waiting, waiting

BASE = 60 * MIB
LOUD = frozenset({7})


def seen(grown: int, at_s: float = 0.0, **more: object) -> Seen:
    """Return a look at a front with ten workers whose memory has grown by so much more than they may add."""
    return Seen(at_s, BASE + 10 * WORKER_BYTES + grown, 10, **more)  # type: ignore[arg-type]  # named below


def test_workers_may_add_their_share() -> None:
    """What each worker takes for good is nobody's fault, and stays allowed when they have left."""
    rules = HeapRules(BASE)
    assert not rules.alarmed(BASE + 1000 * WORKER_BYTES + ALARM_BYTES - 1, 1000)
    assert rules.alarmed(BASE + 1000 * WORKER_BYTES + ALARM_BYTES, 1000)
    assert rules.grown(BASE + 1000 * WORKER_BYTES, 1) == 0
    assert rules.grown(BASE - MIB, 1) == 0


def test_sender_whose_bytes_wait_twice_is_named_above_the_bound() -> None:
    """Below the bound nobody is named; above it who was seen waiting twice, not who was seen once."""
    rules = HeapRules(BASE)
    assert rules.judge(seen(ALARM_BYTES, waiting=LOUD)) is None
    assert rules.judge(seen(BOUND_BYTES - 1, waiting=LOUD | {8})) is None
    found = rules.judge(seen(BOUND_BYTES))
    assert isinstance(found, Culprit)
    assert found.pid == 7
    assert found.why.startswith("the daemon's memory grew by 128 MiB while its messages had no end")
    assert rules.judge(seen(BOUND_BYTES)) is None, "8 was seen once, and 7 is on its way out"
    second = rules.judge(seen(BOUND_BYTES, waiting=frozenset({8})))
    assert isinstance(second, Culprit)
    assert second.pid == 8


def test_in_haste_once_is_enough() -> None:
    """At twice the bound the first who is seen waiting is named at the first look."""
    found = HeapRules(BASE).judge(seen(HASTE_BYTES, waiting=LOUD))
    assert isinstance(found, Culprit)
    assert found.pid == 7


def test_processor_time_names_who_is_never_seen_waiting() -> None:
    """While it grows on and nobody waits, the busiest are named one after the other, each once, not the idle."""
    rules = HeapRules(BASE)
    before = {1: 5.0, 2: 0.0, 3: 9.0}
    after = {1: 5.0 + 2 * BUSY_S, 2: 2.0, 3: 9.0}
    grown = BOUND_BYTES
    assert rules.judge(seen(grown, 0.0, used_s=before)) is None
    named = []
    for step in (1, 2):
        assert rules.judge(seen(grown, step * PATIENCE_S - 0.1, used_s=after)) is None
        grown += GROWS_BYTES
        found = rules.judge(seen(grown, step * PATIENCE_S, used_s=after))
        assert isinstance(found, Culprit)
        assert "of a processor, the most of all workers" in found.why
        named.append(found.pid)
    assert named == [2, 1]
    grown += GROWS_BYTES
    assert isinstance(rules.judge(seen(grown, 3 * PATIENCE_S, used_s=after)), Accepted), "nobody busy is left"


def test_no_endless_killing() -> None:
    """After some guesses that did not help what is used is normal: nobody is named until it has grown anew."""
    rules = HeapRules(BASE)
    busy = dict.fromkeys(range(1, 100), 1.0)
    grown, at_s = BOUND_BYTES, 0.0
    assert rules.judge(seen(grown, at_s, used_s=dict.fromkeys(busy, 0.0))) is None
    found: list[object] = []
    while not found or isinstance(found[-1], Culprit):
        grown, at_s = grown + GROWS_BYTES, at_s + PATIENCE_S
        found.append(rules.judge(seen(grown, at_s, used_s=busy)))
    assert len({one.pid for one in found if isinstance(one, Culprit)}) == GUESSES
    assert found[-1] == Accepted(grown)
    assert not rules.alarmed(seen(grown).resident_bytes, 10)
    assert rules.alarmed(seen(grown + ALARM_BYTES).resident_bytes, 10)


def test_what_does_not_grow_on_is_accepted_without_a_guess() -> None:
    """What was freed late, or lies scattered, is nobody's: no worker is ended for it however busy it was."""
    rules = HeapRules(BASE)
    assert rules.judge(seen(BOUND_BYTES, 0.0, used_s={1: 0.0})) is None
    assert rules.judge(seen(BOUND_BYTES, PATIENCE_S, used_s={1: 9.0})) == Accepted(BOUND_BYTES)


def test_what_was_seen_is_forgotten_when_it_is_well_again() -> None:
    """A look at which somebody waited counts for one growth, not for the next."""
    rules = HeapRules(BASE)
    assert rules.judge(seen(ALARM_BYTES, waiting=LOUD)) is None
    assert not rules.alarmed(BASE, 10)
    assert rules.judge(seen(BOUND_BYTES, waiting=LOUD)) is None


# ---- what waits -------------------------------------------------------------------------------------------------


def connected(path: Path) -> tuple[socket.socket, socket.socket, socket.socket]:
    """Return a listener, the caller's end and this process's end of a connection to it."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()
    caller = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    caller.connect(str(path))
    return listener, caller, listener.accept()[0]


@pytest.mark.parametrize(("count", "told"), [(0, False), (WAITING_BYTES - 1, False), (WAITING_BYTES, True)])
def test_what_waits_is_told_with_its_senders_pid(count: int, *, told: bool, tmp_path: Path) -> None:
    """The kernel says how much waits in a connection and who made it; what was read waits no more."""
    listener, caller, own = connected(tmp_path / "a.sock")
    with listener, caller, own:
        caller.sendall(bytes(count))
        mine = Waiting(os.getpid(), str(tmp_path / "a.sock"), count)
        assert waiting(tmp_path) == ([mine] if told else [])
        assert waiting(tmp_path / "elsewhere") == []
        assert len(own.recv(WAITING_BYTES * 2, socket.MSG_DONTWAIT)) == count if count else True
        assert waiting(tmp_path) == []
        caller.sendall(b"and")
        assert own.recv(3) == b"and", "nobody closed it"
