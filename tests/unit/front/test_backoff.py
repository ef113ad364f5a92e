"""The pause before a restart: doubled inside a crash loop, and another jitter in each loop, device and run of devd."""

from hypothesis import given
from hypothesis import strategies as st

from devd.daemon.device_state import Policy
from devd.daemon.moves import BACKOFF_JITTER, backoff_s

POLICY = Policy(period_s=1.0, timeout_s=0.5)
LOOPS = st.text(max_size=20)


@given(LOOPS, st.integers(1, 60))
def test_pause_never_shrinks_inside_a_loop(loop: str, streak: int) -> None:
    """Each pause is at least the one before, from the first to far past the maximum, and within its bounds."""
    pause_s, next_s = backoff_s(loop, streak, POLICY), backoff_s(loop, streak + 1, POLICY)
    assert pause_s <= next_s <= POLICY.backoff_max_s
    assert pause_s >= POLICY.backoff_s * (1 - BACKOFF_JITTER)


def test_devices_nodes_and_loops_do_not_come_back_together() -> None:
    """Another salt, device or beginning of the loop has another pause; the same ones the same."""
    loops = [f"{salt}/{device}/{first}" for salt in (1, 2) for device in ("gpu-0", "gpu-1") for first in (1, 9)]
    assert len({backoff_s(loop, 1, POLICY) for loop in loops}) == len(loops)
    assert backoff_s(loops[0], 3, POLICY) == backoff_s(loops[0], 3, POLICY)
