"""What is told of a worker's end: how it was, whose doing it was, and why."""

import pytest

from devd.daemon import events as ev
from devd.daemon import lifecycle
from devd.daemon.device_state import DeviceState, Phase, Policy
from devd.ipc.messages import Health

POLICY = Policy(period_s=1.0, timeout_s=0.5, intensity=2, window_s=1000.0)
HANGS = Health("dev", 1, 1, "none", "", 0, "open", 0.0, 0.0, "open /dev/dev", 100.0)


def born() -> DeviceState:
    """Return a device whose first worker was made."""
    state, _ = lifecycle.birth("dev", 100.0, POLICY)
    return lifecycle.step(state, ev.Spawned(100.0, 1, 7), POLICY)[0]


def next_worker(state: DeviceState) -> DeviceState:
    """Let its pause pass and make its next worker."""
    assert state.deadline_s is not None
    state, _ = lifecycle.step(state, ev.Tick(state.deadline_s), POLICY)
    return lifecycle.step(state, ev.Spawned(state.phase_since_s, state.incarnation, 7), POLICY)[0]


def dies(state: DeviceState, how: str) -> DeviceState:
    """End its worker."""
    return lifecycle.step(state, ev.Exited(state.phase_since_s + 0.1, state.incarnation, how), POLICY)[0]


def test_device_given_up_for_hangs_says_what_hung() -> None:
    """Whoever reads why a device was given up reads what devd killed its workers for, and that it was devd."""
    state = born()
    while state.phase is not Phase.FAILED:
        at_s = state.phase_since_s + 0.1
        hangs = ev.Reported(at_s, state.incarnation, HANGS)
        state, _ = lifecycle.step(state, hangs, POLICY)
        assert state.deadline_s is not None
        state, _ = lifecycle.step(state, ev.Tick(max(at_s, state.deadline_s)), POLICY)
        state = dies(state, "killed by SIGKILL")
        if state.phase is Phase.BACKOFF:
            state = next_worker(state)
    assert "last: killed by SIGKILL, by devd: hung: open /dev/dev has not returned for" in state.reason
    assert state.last_exit == "killed by SIGKILL"


def test_kill_that_was_not_devds_is_told_as_that() -> None:
    """A worker that the kernel or an operator killed is not taken for one that devd ended."""
    state = dies(born(), "killed by SIGKILL")
    assert "killed by SIGKILL, not by devd" in state.reason
    assert state.last_exit == "killed by SIGKILL"


@pytest.mark.parametrize("how", ["killed by SIGSEGV", "exited with code 1"])
def test_crash_before_the_first_verdict_is_told_at_once(how: str) -> None:
    """After the first death the reason says it, after the second how many there were; recovery need not be earned."""
    state = dies(born(), how)
    assert state.reason == f"its worker ended before its first probe had: {how}; another one is tried"
    state = dies(next_worker(state), how)
    assert f"2 times in 1000 s, last: {how}" in state.reason
    assert not state.decided
