"""The lease: what grants it, what carries it on, what ends it, and the words for why it ended. Pure, as its caller.

Used by ``lifecycle`` alone. A device is Healthy while it has a live lease; only a passing probe grants one.
"""

from dataclasses import replace

from devd.daemon.device_state import IN_FLIGHT_S, LEASE_SLACK_S, DeviceState, Phase, Policy
from devd.ipc.messages import Health


def settle(state: DeviceState, at_s: float, policy: Policy) -> DeviceState:
    """Derive what is offered from the lease; the one place that sets ``well`` and ``healthy``."""
    live = state.lease_until_s is not None and at_s < state.lease_until_s
    well = live and state.present and state.wanted
    state = _rise_or_fall(state, at_s, policy, well=well)
    healthy = well and state.cordon is None and not state.held
    if well:
        state = replace(state, reason="" if healthy else _withheld_story(state, policy), failed="")
    if healthy != state.healthy:
        state = replace(state, healthy=healthy, since_s=at_s)
    return state


def _rise_or_fall(state: DeviceState, at_s: float, policy: Policy, *, well: bool) -> DeviceState:
    """Count falls, and hold back a device that fell too often until it has been well for long enough."""
    if not policy.flap_count:
        return replace(state, well=well, falls=(), held=False, hold_until_s=None)
    if state.well and not well and state.wanted:
        falls = (*(one for one in state.falls if one > at_s - policy.flap_within_s), at_s)
        # More than the count says nothing more.
        state = replace(state, falls=falls[-policy.flap_count :], hold_until_s=None)
        state = replace(state, held=state.held or len(falls) >= policy.flap_count)
    if state.held and well:
        if state.hold_until_s is None:
            state = replace(state, hold_until_s=at_s + policy.flap_hold_s)
        elif at_s >= state.hold_until_s:
            state = replace(state, held=False, hold_until_s=None, falls=())
    return replace(state, well=well)


def _withheld_story(state: DeviceState, policy: Policy) -> str:
    """Say why a device that is well is not offered."""
    if state.cordon is not None:
        return f"cordoned: {state.cordon or 'no reason given'}; 'devd uncordon {state.id}' gives it back"
    return (
        f"held back: it fell {policy.flap_count} times within {policy.flap_within_s:g} s and has to be well for "
        f"{policy.flap_hold_s:g} s without a break ('devd restart {state.id}' ends that); last: {state.cause}"
    )


def end(state: DeviceState, reason: str) -> DeviceState:
    """End the lease, if there is one, and say why the device is not healthy."""
    return replace(state, lease_until_s=None, earned_until_s=None, passes=0, reason=reason, cause=reason, decided=True)


def grant(state: DeviceState, until_s: float) -> DeviceState:
    """Give a lease that a probe has earned."""
    return replace(state, lease_until_s=until_s, earned_until_s=until_s, lease_excused=False)


def hold_open(state: DeviceState, until_s: float) -> DeviceState:
    """Have a live lease outlast the device's own reset, which is not its fault. What was earned stays known."""
    if state.lease_until_s is None:
        return state
    return replace(state, lease_until_s=max(state.lease_until_s, until_s))


def let_go(state: DeviceState, at_s: float, why: str) -> DeviceState:
    """Hold it open no longer: the lease is worth what was earned, and where that has passed ``why`` is the reason."""
    if state.lease_until_s is None:
        return state
    if state.earned_until_s is None or state.earned_until_s <= at_s:
        return end(state, why)
    return replace(state, lease_until_s=state.earned_until_s)


def put_off(state: DeviceState, at_s: float, for_s: float) -> DeviceState:
    """Put all that is due off by an absence of the front: by as much as it lasted, and IN_FLIGHT_S once."""

    def later(due_s: float | None, more_s: float) -> float | None:
        return None if due_s is None else due_s + for_s + more_s

    lease_more_s = 0.0 if state.lease_excused else IN_FLIGHT_S
    more_s = 0.0 if state.excused else IN_FLIGHT_S
    return replace(
        state,
        deadline_s=later(state.deadline_s, more_s),
        lease_until_s=later(state.lease_until_s, lease_more_s),
        earned_until_s=later(state.earned_until_s, lease_more_s),
        leave_list_at_s=later(state.leave_list_at_s, 0.0),
        excused=True,
        lease_excused=True,
        forgiven_s=at_s + more_s,
    )


def judge(state: DeviceState, health: Health, at_s: float, policy: Policy) -> DeviceState:
    """Apply a finished probe's verdict to the lease. A message that repeats an old verdict changes nothing."""
    state = replace(
        state,
        seq=health.seq,
        heard_s=at_s,
        activity=health.activity,
        activity_at_s=min(health.activity_at_s, at_s),
    )
    if health.probe_count <= state.probe_count or health.verdict == "none":
        return state
    state = replace(state, probe_count=health.probe_count, last=health)
    if health.verdict == "pass":
        return replace(_passed(state, at_s, policy), decided=True)
    return _failed(state, health.reason, at_s, policy)


def _passed(state: DeviceState, at_s: float, policy: Policy) -> DeviceState:
    state = replace(state, passes=state.passes + 1, fails=0)
    # Recovery has to be earned; a device that never fell has nothing to recover from.
    if state.well or not state.decided or state.passes >= policy.successes:
        return grant(state, at_s + policy.lease_s)
    progress = f"recovering, {state.passes} of {policy.successes} good probes in a row"
    return replace(state, reason=f"{progress}, from: {state.cause}")


def _failed(state: DeviceState, reason: str, at_s: float, policy: Policy) -> DeviceState:
    state = replace(state, fails=state.fails + 1, passes=0)
    if state.well and state.fails < policy.failures:
        # A tolerated failure carries a live lease over to the next probe, at most failures - 1 times in a row:
        # without it, ``failures`` above 1 could never be reached before the lease ran out.
        return grant(state, at_s + policy.lease_s)
    return end(state, reason or "probe failed without a reason")


def report_due_s(state: DeviceState, health: Health, at_s: float, policy: Policy) -> float:
    """Return when the next report is due: at the end of the probe under way, or of the next one."""
    began_s = max(min(at_s, health.activity_at_s), state.forgiven_s)
    starts_s = began_s if health.activity else at_s + policy.period_s
    return starts_s + policy.timeout_s + LEASE_SLACK_S


def expiry_story(state: DeviceState, at_s: float) -> str:
    """Say why nothing renewed the lease."""
    if state.phase in (Phase.BACKOFF, Phase.STARTING, Phase.STOPPING, Phase.LEAVING) and state.last_exit:
        return f"its worker ended ({state.last_end}) and none was back before the lease ran out"
    last_s = at_s - (state.last.probe_at_s if state.last else state.spawned_at_s)
    return f"no good report for {last_s:.1f} s: the lease ran out"


def hang_story(state: DeviceState, at_s: float, allowed_s: float) -> str:
    """Say what has not returned, and for how long."""
    if state.over:
        return "its worker is dead, and nobody has told its end"
    if not state.activity:
        return f"its worker has been silent for {at_s - state.heard_s:.1f} s between calls"
    return f"hung: {state.activity} has not returned for {at_s - state.activity_at_s:.1f} s (allowed {allowed_s:g} s)"
