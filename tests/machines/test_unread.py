"""A device of which the disk has not told yet what is known: nothing touches it, and then all is as if it had."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest

from devd.daemon import events as ev
from devd.daemon import lifecycle
from devd.daemon.device_state import BLANK, DeviceState, Memory, Phase, Policy, remembered
from devd.ipc.messages import Health

POLICY = Policy(period_s=1.0, timeout_s=0.5, linger_s=10.0, flap_count=3)
UNREAD = Memory(fence="its state has not been read yet: the disk does not answer")
MAKERS: tuple[Callable[[float], ev.Event], ...] = (
    lambda at_s: ev.Vanished(at_s, "gone"),
    ev.Found,
    lambda at_s: ev.Cordoned(at_s, "mine"),
    ev.RestartAsked,
    lambda at_s: ev.Respecified(at_s, "probe.period changed"),
    lambda at_s: ev.Replaced(at_s, "another stands there"),
    lambda at_s: ev.Stalled(at_s, 30.0),
    lambda at_s: ev.PreStartAsked(at_s, 1),
    lambda at_s: ev.Tick(at_s + 3600.0),
)
HISTORIES = [(), *itertools.product(MAKERS), *itertools.product(MAKERS, repeat=2), *itertools.product(MAKERS, repeat=3)]


def unread(history: tuple[Callable[[float], ev.Event], ...]) -> tuple[DeviceState, list[ev.Effect]]:
    """Return a device that has gone through a history before anything was read, and all its effects."""
    state, effects = lifecycle.birth("dev", 1000.0, POLICY, UNREAD)
    every = list(effects)
    for make in history:
        state, effects = lifecycle.step(state, make(1001.0), POLICY)
        every += effects
    return state, every


def test_nothing_touches_a_device_before_its_state_is_read() -> None:
    """Whatever happens meanwhile, no worker is ordered, the device is not offered, and a reason is told."""
    for history in HISTORIES:
        state, effects = unread(history)
        assert not [one for one in effects if isinstance(one, ev.Spawn)]
        assert not state.healthy
        assert state.reason


@pytest.mark.parametrize(
    ("memory", "phase"),
    [
        (BLANK, Phase.STARTING),
        (Memory(cordon="fan"), Phase.STARTING),
        (Memory(failed="given up"), Phase.FAILED),
        (Memory(worker=77), Phase.STOPPING),
        (Memory(held=True, falls=(990.0,), cause="link down"), Phase.STARTING),
    ],
    ids=["blank", "cordoned", "failed", "fenced", "held"],
)
def test_late_word_counts_as_if_it_had_come_in_time(memory: Memory, phase: Phase) -> None:
    """Of a device that is there nothing is lost; one that has gone meanwhile is not started, and is not forgotten."""
    for history in HISTORIES:
        state, _ = unread(history)
        there, said = state.present, state.cordon
        after, effects = lifecycle.step(state, ev.Recalled(1002.0, memory), POLICY)
        spawns = [one for one in effects if isinstance(one, ev.Spawn)]
        assert bool(spawns) == (there and phase is Phase.STARTING)
        assert after.phase is (phase if there else Phase.ABSENT)
        kept = remembered(after)
        assert kept.cordon == (said if said is not None else memory.cordon)
        assert (kept.failed, kept.falls, kept.held) == (memory.failed, memory.falls, memory.held)


def test_operator_gives_an_unread_device_back() -> None:
    """Uncordon starts it; what the disk says later adds its falls, and neither its cordon nor its failure."""
    state, _ = lifecycle.birth("dev", 1000.0, POLICY, UNREAD)
    state, effects = lifecycle.step(state, ev.Uncordoned(1001.0), POLICY)
    assert ev.Spawn(1) in effects
    late = Memory(cordon="fan", failed="given up", falls=(990.0,), held=True)
    after, effects = lifecycle.step(state, ev.Recalled(1002.0, late), POLICY)
    assert not effects
    assert after == replace(state, falls=(990.0,), held=True)


def test_failure_is_over_once_a_worker_lasts() -> None:
    """A worker that has reported for the restart window ends FAILED for the next devd too, though its probes fail."""
    fresh, _ = lifecycle.birth("dev", 1000.0, POLICY, Memory(failed="given up"))
    state, _ = lifecycle.step(fresh, ev.Tick(1000.0 + POLICY.retry_s), POLICY)
    state, _ = lifecycle.step(state, ev.Spawned(1301.0, 1, 77), POLICY)

    def report(at_s: float, seq: int) -> ev.Reported:
        health = lifecycle_health(seq, at_s)
        return ev.Reported(at_s, 1, health)

    state, _ = lifecycle.step(state, report(1302.0, 1), POLICY)
    state, _ = lifecycle.step(state, report(1302.0 + POLICY.window_s - 1.0, 2), POLICY)
    assert remembered(state).failed
    state, _ = lifecycle.step(state, report(1302.0 + POLICY.window_s, 3), POLICY)
    assert not state.healthy
    assert not remembered(state).failed


def lifecycle_health(seq: int, at_s: float) -> Health:
    """Return a failing probe's report."""
    return Health("dev", 1, seq, "fail", "link down", seq, "open", at_s, 0.0, "", 0.0)


def test_ordered_end_keeps_what_a_held_device_fell_for() -> None:
    """The next devd says why it is held back, not that the last one ended."""
    memory = Memory(held=True, falls=(990.0,), cause="link down")
    state, _ = lifecycle.birth("dev", 1000.0, POLICY, memory)
    state, _ = lifecycle.step(state, ev.Retired(1001.0), POLICY)
    assert remembered(state).cause == "link down"
