"""The moves a device's lifecycle is made of: enter a phase, order a worker, end it, decide what follows. Pure.

Used by ``lifecycle`` alone, which says when each is made.
"""

import zlib
from dataclasses import replace

from devd.daemon import events as ev
from devd.daemon import lease
from devd.daemon.device_state import DeviceState, Phase, Policy

START_TIMEOUT_S = 15.0
"""From the order to fork until the first report: fork, sandbox, sockets, on a node that is busy booting."""
LEAVE_TIMEOUT_S = 1.0
"""What a worker that was asked to stop may take before it is killed."""
WEDGED_AFTER_S = 2.0
"""After SIGKILL a process is gone in about a millisecond; one that is still there after this hangs in the kernel."""
BACKOFF_JITTER = 0.25
"""Up to this share of a delay is taken off, so that devices and nodes that fell together do not come back so."""

KILLED = "killed by SIGKILL"
"""How a worker's end is told that nobody but another process, or the kernel for want of memory, can have brought about
where devd has not."""

Step = tuple[DeviceState, tuple[ev.Effect, ...]]


def backoff_s(loop: str, streak: int, policy: Policy) -> float:
    """Return the pause before restart number ``streak`` (from 1) of a crash loop. Never shrinks as streak grows.

    ``loop`` names the loop: the jitter is another one in each, and the same all through one.
    """
    doublings = min(streak - 1, 30)  # 2^30 seconds are past any configured maximum
    jitter = zlib.crc32(loop.encode()) / 2**32
    return float(min(policy.backoff_max_s, policy.backoff_s * 2**doublings) * (1 - BACKOFF_JITTER * jitter))


def enter(state: DeviceState, phase: Phase, at_s: float, deadline_s: float | None) -> DeviceState:
    """Change the phase; each has its own deadline, or none."""
    return replace(state, phase=phase, phase_since_s=at_s, deadline_s=deadline_s, excused=False)


def spawn(state: DeviceState, at_s: float, effects: tuple[ev.Effect, ...]) -> Step:
    """Order the next incarnation; nothing of the last one counts for it."""
    incarnation = state.incarnation + 1
    state = enter(state, Phase.STARTING, at_s, at_s + START_TIMEOUT_S)
    state = replace(
        state,
        incarnation=incarnation,
        restarts=state.restarts + (incarnation > 1),
        spawned_at_s=at_s,
        served_from_s=None,
        pid=None,
        over=False,
        wedged=False,
        respawn=False,
        stale=False,
        seq=0,
        probe_count=0,
        passes=0,
        activity="",
        killed_for="",
    )
    return state, (*effects, ev.Spawn(incarnation))


def kill(state: DeviceState, at_s: float, reason: str, *, inspect: bool) -> Step:
    """End the worker by force; only its exit, once seen, lets another start."""
    state = enter(state, Phase.STOPPING, at_s, at_s + WEDGED_AFTER_S)
    state, answers = answer(replace(state, killed_for=reason), ok=False, text=reason)
    return state, (*answers, ev.Record("kill", reason), ev.Kill(state.incarnation, reason, inspect))


def answer(state: DeviceState, *, ok: bool, text: str) -> tuple[DeviceState, tuple[ev.Effect, ...]]:
    """Answer every PreStart that waits."""
    answers = tuple(ev.Answer(waiter, ok, text) for waiter in state.waiters)
    return replace(state, waiters=()), answers


def ended(state: DeviceState, at_s: float, detail: str, policy: Policy, wait_s: float = 0.0) -> Step:
    """Decide what follows on the end of a worker (or on a fork that failed): the one place that counts restarts.

    ``wait_s`` goes on top of the pause.
    """
    story = end_story(state, detail)
    state = replace(state, pid=None, over=False, wedged=False, last_exit=detail, last_end=story, activity="")
    if not state.wanted:
        state, answers = answer(state, ok=False, text="the device is being withdrawn")
        return enter(state, Phase.ABSENT, at_s, None), (*answers, ev.Forget())
    if not state.present:
        return enter(state, Phase.ABSENT, at_s, None), (() if state.listed else (ev.Forget(),))
    if state.respawn:
        return spawn(state, at_s, (ev.Record("restart", "as ordered"),))
    # Time in which it never reported proves nothing.
    stable = state.served_from_s is not None and at_s - state.served_from_s >= policy.window_s
    exits = (*(one for one in state.exits if one > at_s - policy.window_s), at_s)
    streak = 1 if stable else state.streak + 1
    state = replace(
        state,
        exits=exits,
        streak=streak,
        loop_from=state.incarnation if streak == 1 else state.loop_from,
        probation=state.probation and not stable,
    )
    if state.probation or len(exits) > policy.intensity:
        return give_up(state, at_s, story, policy)
    if not state.decided:
        died = f"{len(exits)} times in {policy.window_s:g} s, last: {story}" if len(exits) > 1 else story
        state = replace(state, reason=f"its worker ended before its first probe had: {died}; another one is tried")
    pause_s = backoff_s(f"{state.salt}/{state.id}/{state.loop_from}", state.streak, policy) + wait_s
    record = ev.Record("restart", f"worker {story}; the next one starts in {pause_s:.1f} s")
    return enter(state, Phase.BACKOFF, at_s, at_s + pause_s), (record,)


def end_story(state: DeviceState, detail: str) -> str:
    """Say how the worker ended, and why devd ended it, or that devd did not."""
    if state.killed_for:
        return f"{detail}, by devd: {state.killed_for}" if detail == KILLED else f"{detail} ({state.killed_for})"
    return f"{detail}, not by devd: the kernel for want of memory, or another process" if detail == KILLED else detail


def fence_story(state: DeviceState) -> str:
    """Say what keeps a device whose worker was killed, and is not gone."""
    if state.pid is None:
        return "the fork server has not answered the order for its worker: the daemon's log tells more"
    if state.over:
        return f"worker {state.pid} is dead, but what it started is not, or nobody has told its end: fenced until then"
    end = f"worker {state.pid} does not end after SIGKILL"
    return f"{end}: fenced, nothing touches the device until the kernel lets it go"


def give_up(state: DeviceState, at_s: float, story: str, policy: Policy) -> Step:
    """Stop restarting: the intensity is exceeded."""
    reason = (
        f"worker ended {len(state.exits)} times in {policy.window_s:g} s, last: {story}; "
        f"tried again every {policy.retry_s:g} s, or now by 'devd restart {state.id}'"
    )
    state, answers = answer(replace(lease.end(state, reason), failed=reason), ok=False, text=reason)
    return enter(state, Phase.FAILED, at_s, at_s + policy.retry_s), (*answers, ev.Record("failed", reason))


def leave(state: DeviceState, at_s: float, why: str) -> Step:
    """Ask the worker to stop, unless it is on its way out already."""
    if state.phase in (Phase.LEAVING, Phase.STOPPING):
        return state, ()
    if state.phase is Phase.STARTING or state.activity:
        # It cannot hear an order before its first word, nor inside a call.
        return kill(state, at_s, why, inspect=False)
    return enter(state, Phase.LEAVING, at_s, at_s + LEAVE_TIMEOUT_S), (ev.AskStop(state.incarnation),)


def pardoned(state: DeviceState) -> DeviceState:
    """Start all counts of misfortune anew."""
    return replace(state, exits=(), streak=0, probation=False, failed="", falls=(), held=False, hold_until_s=None)
