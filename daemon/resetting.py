"""A device's reset, and who waits for it: how it begins, is heard of while it runs, and ends. Pure, as the lifecycle.

One reset at a time: a container that asks while one runs waits for the same, and each is answered exactly once.
"""

from dataclasses import replace

from devd.daemon import events as ev
from devd.daemon import lease, moves
from devd.daemon.device_state import IN_FLIGHT_S, LEASE_SLACK_S, DeviceState, Phase, Policy

RESPECIFIED = "its configuration was changed"

Step = moves.Step


def reported_in_reset(state: DeviceState, event: ev.Reported, policy: Policy) -> Step:
    """Take note of it; the reset's own deadline stands whatever the worker says."""
    if event.health.seq <= state.seq:
        return state, ()
    lease_s = state.lease_until_s
    state = lease.judge(state, event.health, event.at_s, policy)
    return (state if lease_s is None else lease.hold_open(state, lease_s)), ()


def begin(state: DeviceState, at_s: float, policy: Policy) -> Step:
    """Begin one, or answer at once where there is none to be made."""
    if policy.reset_timeout_s is None:
        after, answers = moves.answer(state, ok=state.lease_until_s is not None, text=state.reason)
        return after, answers
    # A probe that is under way ends first, and one follows the reset.
    deadline_s = at_s + policy.timeout_s + policy.reset_timeout_s + policy.timeout_s + LEASE_SLACK_S
    reset_id = state.reset_id + 1
    # Its own reset is not the device's fault: a live lease is held open, once, up to the reset's deadline, which ends
    # it whatever an absence of the front makes of both.
    state = lease.hold_open(moves.enter(state, Phase.RESETTING, at_s, deadline_s), deadline_s + IN_FLIGHT_S)
    state = replace(state, reset_id=reset_id)
    record = ev.Record("reset", f"reset {reset_id} begins")
    return state, (record, ev.SendReset(state.incarnation, reset_id))


def reset_finished(state: DeviceState, event: ev.ResetFinished, policy: Policy) -> Step:
    """Judge the device after it, answer who waits, and give a worker of an older configuration its leave."""
    if event.reset_id != state.reset_id:
        return state, ()
    if event.health.seq > state.seq:
        state = lease.judge(state, event.health, event.at_s, policy)
    if event.health.verdict == "pass" and state.lease_until_s is not None:
        state = lease.grant(state, event.at_s + policy.lease_s)
    state = lease.let_go(state, event.at_s, event.reason or "its reset has ended without a good probe")
    state = moves.enter(state, Phase.SERVING, event.at_s, lease.report_due_s(state, event.health, event.at_s, policy))
    well = event.ok and state.lease_until_s is not None
    text = "" if well else (event.reason or state.reason or "the device is not healthy after its reset")
    state, answers = moves.answer(state, ok=well, text=text)
    record = ev.Record("reset-done" if event.ok else "reset-failed", event.reason)
    if not state.stale:
        return state, (record, *answers)
    after, effects = moves.leave(replace(state, respawn=True), event.at_s, RESPECIFIED)
    return after, (record, *answers, *effects)


def pre_start(state: DeviceState, event: ev.PreStartAsked, policy: Policy) -> Step:
    """Take note of a container that is to start; a device that is ready is reset for it."""
    if state.phase in (Phase.STARTING, Phase.BACKOFF) and not state.well and state.decided:
        return state, (ev.Answer(event.waiter, ok=False, text=state.reason),)
    state = replace(state, waiters=(*state.waiters, event.waiter))
    if state.phase is Phase.SERVING and state.probe_count > 0:
        return begin(state, event.at_s, policy)
    return state, ()


def pre_start_refused(state: DeviceState, event: ev.PreStartAsked, policy: Policy) -> Step:
    """Answer at once: there is no worker to come."""
    del policy
    return state, (ev.Answer(event.waiter, ok=False, text=state.reason or "its worker is being replaced"),)


def pre_start_expired(state: DeviceState, event: ev.PreStartExpired, policy: Policy) -> Step:
    """Answer a container whose time is up; what runs goes on."""
    del policy
    if event.waiter not in state.waiters:
        return state, ()
    waited = {
        Phase.RESETTING: f"its reset has run for {event.at_s - state.phase_since_s:.1f} s and goes on",
        Phase.SERVING: "its first probe has not ended",
    }.get(state.phase, "its worker has not come back")
    state = replace(state, waiters=tuple(one for one in state.waiters if one != event.waiter))
    return state, (ev.Answer(event.waiter, ok=False, text=waited),)
