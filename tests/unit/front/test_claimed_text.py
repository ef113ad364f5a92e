"""What a worker says of itself cannot fill a status or move a terminal's cursor."""

from devd.daemon.claimed_text import REASON_CHARS, bounded_health, bounded_sandbox, plain
from devd.ipc.messages import Health, Sandbox


def test_control_characters_and_length_are_taken_out() -> None:
    """Escape sequences and line ends become blanks, and a long text ends in an ellipsis."""
    assert plain("a\x1b[31mb\nc", 50) == "a [31mb c"
    assert plain("x" * 60, 50) == "x" * 49 + "…"
    assert plain("x" * 50, 50) == "x" * 50


def test_health_and_sandbox_are_bounded() -> None:
    """A report of a hundred thousand characters is kept as a short one, its numbers untouched."""
    long = "é\x07" * 100_000
    health = bounded_health(Health("d", 1, 2, "fail", long, 3, long, 4.0, 5.0, long, 6.0))
    assert len(health.reason) == REASON_CHARS
    assert len(health.activity) + len(health.probe_kind) < REASON_CHARS
    assert (health.seq, health.probe_count, health.activity_at_s) == (2, 3, 6.0)
    sandbox = bounded_sandbox(Sandbox(long, (long,) * 1000, {f"{number}{long}": long for number in range(1000)}))
    assert len(str(sandbox)) < 30_000
