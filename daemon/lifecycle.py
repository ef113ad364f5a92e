"""One device's life as a pure function: ``step(state, event, policy) -> (state, effects)``. No I/O, no clock.

A device is Healthy while it has a live lease. A passing probe grants one; a failing probe, a missed deadline or the
device's absence ends it; a dead worker merely stops renewing it. The transition table at the end of this module says
for every phase and event whether it is taken, dropped (it came too late to matter) or illegal (a bug of ours).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import cast

from devd.daemon import events as ev
from devd.daemon import lease, moves, resetting
from devd.daemon.device_state import (
    BLANK,
    WORKER_PHASES,
    DeviceState,
    Memory,
    Phase,
    Policy,
)


class LifecycleError(Exception):
    """Raised when an event arrives in a phase where it cannot happen: a bug of the front, never a worker's doing."""


Step = moves.Step
Handler = Callable[[DeviceState, ev.Event, Policy], Step]


def birth(device: str, at_s: float, policy: Policy, memory: Memory = BLANK, salt: int = 0) -> Step:
    """Return the state of a device that was just discovered, and the order for its first worker.

    There is none yet where an earlier daemon's worker still holds the device (``memory.worker`` is incarnation 0 and
    its Exited follows), where it is not known whether one does (``memory.fence`` alone: Recalled follows), or where the
    device had been given up: that goes on. ``salt`` is any number that other nodes and other runs of devd do not have.
    """
    state = DeviceState(id=device, phase=Phase.ABSENT, incarnation=0, since_s=at_s, salt=salt, cause=memory.cause)
    state = replace(state, cordon=memory.cordon, falls=memory.falls, held=memory.held, failed=memory.failed)
    if memory.worker is not None:
        return _fenced(state, at_s, memory)
    if memory.fence:
        state = replace(lease.end(state, memory.fence), respawn=True)
        return moves.enter(state, Phase.STOPPING, at_s, None), (ev.Record("fenced", memory.fence),)
    if memory.failed:
        state = replace(lease.end(state, memory.failed), cause=memory.cause or memory.failed)
        return moves.enter(state, Phase.FAILED, at_s, at_s + policy.retry_s), (ev.Record("failed", memory.failed),)
    return moves.spawn(state, at_s, ())


def _fenced(state: DeviceState, at_s: float, memory: Memory) -> Step:
    """Wait for the end of a worker that still holds the device, an earlier daemon's or another device's."""
    pid = memory.worker
    own = f"worker {pid} of an earlier devd still holds the device: none is started until the kernel lets it go"
    reason = memory.fence or own
    state = replace(lease.end(state, reason), cause=memory.cause or reason)
    state = replace(state, pid=pid, wedged=True, respawn=True, probation=bool(state.failed))
    kill = ev.Kill(state.incarnation, reason, inspect=True)
    return moves.enter(state, Phase.STOPPING, at_s, None), (ev.Record("fenced", reason), kill)


def _unread(state: DeviceState) -> bool:
    """Return whether nothing is known of the device from earlier yet, so that no process of ours has touched it."""
    return state.phase is Phase.STOPPING and state.incarnation == 0 and state.pid is None


def step(state: DeviceState, event: ev.Event, policy: Policy) -> Step:
    """Return the next state and what to do. Raises LifecycleError when the event cannot happen in this phase."""
    after, effects = _handler(state, event)(state, event, policy)
    return lease.settle(after, event.at_s, policy), effects


def next_due_s(state: DeviceState) -> float | None:
    """Return when the next Tick is worth sending, or None."""
    dues = (state.deadline_s, state.lease_until_s, state.leave_list_at_s, state.hold_until_s)
    return min((due for due in dues if due is not None), default=None)


# ---- handlers: one for each meaning -----------------------------------------------------------------------------


def _found(state: DeviceState, event: ev.Found, policy: Policy) -> Step:
    del policy
    if state.present and state.wanted:
        return state, ()
    state = replace(state, present=True, wanted=True, listed=True, leave_list_at_s=None)
    if state.phase is Phase.ABSENT:
        return moves.spawn(replace(state, reason="waiting for the first probe", decided=False), event.at_s, ())
    # A worker that still has to end belongs to the device as it was: a fresh one follows it.
    return replace(state, respawn=state.phase in (Phase.LEAVING, Phase.STOPPING)), ()


def _replaced(state: DeviceState, event: ev.Replaced, policy: Policy) -> Step:
    del policy
    state = lease.end(state, event.detail)
    state = replace(state, present=True, listed=True, leave_list_at_s=None, last=None)
    record = ev.Record("replaced", event.detail)
    # That the old device fell is nothing against the new one.
    state = replace(moves.pardoned(state), well=False)
    if state.phase in (Phase.BACKOFF, Phase.FAILED, Phase.ABSENT):
        return moves.spawn(state, event.at_s, (record,))
    state = replace(state, respawn=True)
    if state.phase is Phase.STOPPING:
        return state, (record,)
    after, effects = moves.kill(state, event.at_s, event.detail, inspect=False)
    return after, (record, *effects)


def _vanished(state: DeviceState, event: ev.Vanished, policy: Policy) -> Step:
    if not state.present:
        return state, ()
    state = lease.end(state, event.detail)
    state = replace(state, present=False, respawn=False, leave_list_at_s=event.at_s + policy.linger_s)
    state, answers = moves.answer(state, ok=False, text=event.detail)
    effects = (*answers, ev.Record("vanished", event.detail))
    if state.phase in (Phase.BACKOFF, Phase.FAILED, Phase.ABSENT):
        return moves.enter(state, Phase.ABSENT, event.at_s, None), effects
    after, more = moves.leave(state, event.at_s, "no longer needed")
    return after, (*effects, *more)


def _retired(state: DeviceState, event: ev.Retired, policy: Policy) -> Step:
    del policy
    # What it fell for is still what it has to recover from, should it be wanted again.
    state = replace(lease.end(state, "withdrawn"), cause=state.cause, wanted=False, respawn=False)
    state, answers = moves.answer(state, ok=False, text="the device is being withdrawn")
    if state.phase not in WORKER_PHASES:
        return moves.enter(state, Phase.ABSENT, event.at_s, None), (*answers, ev.Forget())
    after, effects = moves.leave(state, event.at_s, "no longer needed")
    return after, (*answers, *effects)


def _spawned(state: DeviceState, event: ev.Spawned, policy: Policy) -> Step:
    del policy
    return replace(state, pid=event.pid), (ev.Record("start", f"worker {event.pid}"),)


def _spawned_late(state: DeviceState, event: ev.Spawned, policy: Policy) -> Step:
    """Kill what was given up before it was there."""
    del policy
    kill = ev.Kill(state.incarnation, "started too late", inspect=False)
    return replace(state, pid=event.pid, deadline_s=event.at_s + moves.WEDGED_AFTER_S), (kill,)


def _spawn_failed(state: DeviceState, event: ev.SpawnFailed, policy: Policy) -> Step:
    after, effects = moves.ended(state, event.at_s, f"could not be started: {event.reason}", policy)
    if not after.well and after.phase is Phase.BACKOFF:
        after = lease.end(after, f"its worker could not be started: {event.reason}")
    return after, effects


def _reported(state: DeviceState, event: ev.Reported, policy: Policy) -> Step:
    if event.health.seq <= state.seq:
        return state, ()
    first = state.phase is Phase.STARTING
    if state.served_from_s is not None and event.at_s - state.served_from_s >= policy.window_s:
        # A worker that has lasted so long proves that the device is not one to give up, well or not.
        state = replace(state, failed="")
    finished = event.health.probe_count > state.probe_count
    was_fresh = state.probe_count == 0
    state = lease.judge(state, event.health, event.at_s, policy)
    due_s = lease.report_due_s(state, event.health, event.at_s, policy)
    # A probe that began in an absence of the front has had its time in flight with that.
    excused = bool(event.health.activity) and state.forgiven_s > event.at_s
    if first:
        state = replace(moves.enter(state, Phase.SERVING, event.at_s, due_s), served_from_s=event.at_s, excused=excused)
    elif finished:
        state = replace(state, deadline_s=due_s, excused=excused)
    else:
        # The start of a probe brings its deadline forward and never back: no one lives on by starting for ever.
        state = replace(state, deadline_s=min(due_s, state.deadline_s or due_s))
    if finished and was_fresh and state.waiters:
        return resetting.begin(state, event.at_s, policy)
    return state, ()


def _died(state: DeviceState, event: ev.Died, policy: Policy) -> Step:
    del event, policy
    return replace(state, over=True), ()


def _exited(state: DeviceState, event: ev.Exited, policy: Policy) -> Step:
    effects: tuple[ev.Effect, ...] = ()
    if state.phase is Phase.RESETTING:
        text = f"its worker ended during the reset: {moves.end_story(state, event.detail)}"
        state, effects = moves.answer(lease.let_go(state, event.at_s, text), ok=False, text=text)
    after, more = moves.ended(state, event.at_s, event.detail, policy, event.wait_s)
    return after, (*effects, *more)


def _observed(state: DeviceState, event: ev.Observed, policy: Policy) -> Step:
    del policy
    if state.reason and event.detail not in state.reason:
        reason = f"{state.reason}; {event.detail}"
        state = replace(state, reason=reason, cause=reason)
    return state, (ev.Record("observed", event.detail),)


def _misbehaved(state: DeviceState, event: ev.Misbehaved, policy: Policy) -> Step:
    del policy
    reason = f"its worker broke the protocol: {event.detail}"
    after, effects = moves.kill(lease.end(state, reason), event.at_s, reason, inspect=False)
    return after, effects


def _restart(state: DeviceState, event: ev.RestartAsked, policy: Policy) -> Step:
    del policy
    state = moves.pardoned(state)
    if state.phase in (Phase.BACKOFF, Phase.FAILED):
        return moves.spawn(state, event.at_s, (ev.Record("restart", "an operator asked"),))
    state = replace(state, respawn=True)
    if state.phase in (Phase.LEAVING, Phase.STOPPING):
        return state, ()
    why = "an operator asked for a restart"
    if state.phase is Phase.RESETTING:
        state = lease.let_go(state, event.at_s, f"{why} during its reset")
    return moves.kill(state, event.at_s, why, inspect=False)


def _restart_absent(state: DeviceState, event: ev.RestartAsked, policy: Policy) -> Step:
    """Forget what is held against a device that is not there: it begins anew when it comes back."""
    del event, policy
    return moves.pardoned(state), (ev.Record("restart", "an operator asked; it begins anew once it is back"),)


def _respecified(state: DeviceState, event: ev.Respecified, policy: Policy) -> Step:
    """Replace the worker in order; the lease goes on, and a reset that runs is not cut short."""
    del policy
    if state.phase is Phase.RESETTING:
        return replace(state, stale=True), ()
    record = ev.Record("restart", event.detail)
    if state.phase in (Phase.BACKOFF, Phase.FAILED):
        # What made it fail may be just what was changed.
        return moves.spawn(moves.pardoned(state), event.at_s, (record,))
    wanted = state.present and state.wanted
    after, effects = moves.leave(replace(state, respawn=wanted), event.at_s, event.detail)
    return after, (record, *effects)


def _cordoned(state: DeviceState, event: ev.Cordoned, policy: Policy) -> Step:
    del policy
    return replace(state, cordon=event.reason), (ev.Record("cordon", event.reason),)


def _uncordoned(state: DeviceState, event: ev.Uncordoned, policy: Policy) -> Step:
    if _unread(state):
        # An operator knows what the disk does not say.
        after, effects = moves.ended(replace(state, cordon=None), event.at_s, "never started", policy)
        return after, (ev.Record("uncordon", "given back before its state was read"), *effects)
    if state.cordon is None:
        return state, ()
    # A device that is not well goes on to say why.
    return replace(state, cordon=None), (ev.Record("uncordon", "given back"),)


def _recalled(state: DeviceState, event: ev.Recalled, policy: Policy) -> Step:
    """Go on as if it had been known from the start; what an operator has said meanwhile is newer."""
    memory = event.memory
    if not _unread(state):
        falls = tuple(sorted({*memory.falls, *state.falls}))
        return replace(state, falls=falls, held=state.held or memory.held), ()
    memory = replace(memory, cordon=memory.cordon if state.cordon is None else state.cordon)
    if state.present and state.wanted:
        return birth(state.id, event.at_s, policy, memory, state.salt)
    state = replace(state, cordon=memory.cordon, falls=memory.falls, held=memory.held, failed=memory.failed)
    return moves.ended(state, event.at_s, "never started", policy)


def _stalled(state: DeviceState, event: ev.Stalled, policy: Policy) -> Step:
    del policy
    return lease.put_off(state, event.at_s, event.for_s), ()


def _tick(state: DeviceState, event: ev.Tick, policy: Policy) -> Step:
    effects: tuple[ev.Effect, ...] = ()
    if state.leave_list_at_s is not None and event.at_s >= state.leave_list_at_s:
        state = replace(state, leave_list_at_s=None, listed=False)
        if state.phase is Phase.ABSENT:
            return state, (ev.Forget(),)
    if state.deadline_s is not None and event.at_s >= state.deadline_s:
        state, effects = _DEADLINES[state.phase](state, event.at_s, policy)
    if state.lease_until_s is not None and event.at_s >= state.lease_until_s:
        state = lease.end(state, lease.expiry_story(state, event.at_s))
    return state, effects


# ---- deadlines: one meaning for each phase ----------------------------------------------------------------------


def _starting_due(state: DeviceState, at_s: float, policy: Policy) -> Step:
    del policy
    reason = f"its worker never said its first word within {moves.START_TIMEOUT_S:g} s"
    if not state.well:
        state = lease.end(state, reason)
    return moves.kill(state, at_s, reason, inspect=True)


def _serving_due(state: DeviceState, at_s: float, policy: Policy) -> Step:
    reason = lease.hang_story(state, at_s, policy.timeout_s)
    return moves.kill(lease.end(state, reason), at_s, reason, inspect=True)


def _resetting_due(state: DeviceState, at_s: float, policy: Policy) -> Step:
    story = lease.hang_story(state, at_s, policy.reset_timeout_s or 0.0)
    reason = f"reset {story}" if state.activity and not state.over else f"in its reset {story}"
    return moves.kill(lease.end(state, reason), at_s, reason, inspect=True)


def _leaving_due(state: DeviceState, at_s: float, policy: Policy) -> Step:
    del policy
    return moves.kill(state, at_s, f"did not leave within {moves.LEAVE_TIMEOUT_S:g} s", inspect=False)


def _stopping_due(state: DeviceState, at_s: float, policy: Policy) -> Step:
    del at_s, policy
    fence = moves.fence_story(state)
    cause = state.reason if not state.well and state.present else ""
    reason = f"{cause}; {fence}" if cause else fence
    state = replace(lease.end(state, reason), wedged=True, deadline_s=None)
    return state, (ev.Record("wedged", reason), ev.Kill(state.incarnation, reason, inspect=True))


def _backoff_due(state: DeviceState, at_s: float, policy: Policy) -> Step:
    del policy
    return moves.spawn(state, at_s, ())


def _failed_due(state: DeviceState, at_s: float, policy: Policy) -> Step:
    del policy
    return moves.spawn(replace(state, probation=True), at_s, (ev.Record("restart", "slow retry"),))


_DEADLINES: dict[Phase, Callable[[DeviceState, float, Policy], Step]] = {
    Phase.STARTING: _starting_due,
    Phase.SERVING: _serving_due,
    Phase.RESETTING: _resetting_due,
    Phase.LEAVING: _leaving_due,
    Phase.STOPPING: _stopping_due,
    Phase.BACKOFF: _backoff_due,
    Phase.FAILED: _failed_due,
}


# ---- the table --------------------------------------------------------------------------------------------------


def _drop(state: DeviceState, event: ev.Event, policy: Policy) -> Step:
    """Do nothing: the event came too late to matter."""
    del event, policy
    return state, ()


def _row(default: object, **phases: object) -> dict[Phase, object]:
    """One event's handlers: ``default`` for each phase that is not named."""
    named = {Phase(name.lower()): handler for name, handler in phases.items()}
    return {phase: named.get(phase, default) for phase in Phase}


ILLEGAL = "illegal"

TABLE: dict[type, dict[Phase, object]] = {
    ev.Found: _row(_found),
    ev.Replaced: _row(_replaced),
    ev.Vanished: _row(_vanished),
    ev.Retired: _row(_retired),
    ev.Spawned: _row(ILLEGAL, STARTING=_spawned, STOPPING=_spawned_late),
    ev.SpawnFailed: _row(ILLEGAL, STARTING=_spawn_failed, STOPPING=_spawn_failed),
    ev.Reported: _row(_drop, STARTING=_reported, SERVING=_reported, RESETTING=resetting.reported_in_reset),
    ev.ResetFinished: _row(_drop, RESETTING=resetting.reset_finished),
    ev.Died: _row(_died, ABSENT=_drop, BACKOFF=_drop, FAILED=_drop),
    ev.Exited: _row(_exited, ABSENT=ILLEGAL, BACKOFF=ILLEGAL, FAILED=ILLEGAL),
    ev.Observed: _row(_drop, STOPPING=_observed),
    ev.Misbehaved: _row(_drop, STARTING=_misbehaved, SERVING=_misbehaved, RESETTING=_misbehaved, LEAVING=_misbehaved),
    ev.PreStartAsked: _row(
        resetting.pre_start_refused,
        STARTING=resetting.pre_start,
        BACKOFF=resetting.pre_start,
        SERVING=resetting.pre_start,
        RESETTING=resetting.pre_start,
    ),
    ev.PreStartExpired: _row(resetting.pre_start_expired),
    ev.RestartAsked: _row(_restart, ABSENT=_restart_absent),
    ev.Respecified: _row(_respecified, ABSENT=_drop),
    ev.Cordoned: _row(_cordoned),
    ev.Uncordoned: _row(_uncordoned),
    ev.Recalled: _row(_recalled),
    ev.Stalled: _row(_stalled),
    ev.Tick: _row(_tick),
}
"""Event -> phase -> handler, ``_drop`` or ILLEGAL. docs/lifecycle.md is drawn from it."""


def _handler(state: DeviceState, event: ev.Event) -> Handler:
    incarnation = getattr(event, "incarnation", state.incarnation)
    if incarnation != state.incarnation:
        return _drop
    handler = TABLE[type(event)][state.phase]
    if handler is ILLEGAL:
        raise LifecycleError(f"{state.id}: {event!r} cannot happen while {state.phase}: {state!r}")
    return cast("Handler", handler)
