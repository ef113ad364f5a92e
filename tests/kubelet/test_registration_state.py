"""The parts an endpoint is made of: waiting without losing a wake, backoff, status and log, refusals told apart."""

import asyncio
import logging
from pathlib import Path

import pytest

from devd.daemon.endpoint_state import Backoff, StatusBoard, Timing, Waker
from devd.daemon.registration import is_permanent
from tests.kubelet.endpoint_support import LOG


def test_wake_before_the_wait_is_not_lost() -> None:
    """A condition that became true before the wait, or between two looks, ends it at once."""

    async def scene() -> None:
        waker, values = Waker(), [0]
        values[0] = 1
        waker.wake()
        assert await waker.until(lambda: values[0] == 1, 0.0)

        def later() -> None:
            values[0] = 2
            waker.wake()

        asyncio.get_running_loop().call_later(0.01, later)
        assert await waker.until(lambda: values[0] == 2, 5.0)

    asyncio.run(scene())


def test_wait_ends_with_its_time() -> None:
    """Wakes that do not fulfil the condition do not end the wait, the time does, and the answer is no."""

    async def scene() -> None:
        waker = Waker()
        waker.wake()
        loop = asyncio.get_running_loop()
        loop.call_later(0.01, waker.wake)
        start_s = loop.time()
        assert not await waker.until(lambda: False, 0.1)
        assert 0.09 <= loop.time() - start_s < 2.0

    asyncio.run(scene())


def test_backoff_grows_to_its_cap_and_starts_over() -> None:
    """Pauses double up to the cap, each between half and whole of its step; reset begins anew."""
    backoff = Backoff(Timing(backoff_s=0.02, backoff_max_s=5.0))
    pauses = [backoff.next_s() for _ in range(50)]
    for number, pause_s in enumerate(pauses):
        step_s = min(5.0, 0.02 * 2**number)
        assert step_s / 2 <= pause_s <= step_s
    backoff.reset()
    assert backoff.next_s() <= 0.02


def test_status_logs_each_change_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The same error over and over is one line; ``since`` moves only when the state does; success clears the error."""
    now_s = [1_000_000_000.0]
    board = StatusBoard("devd.io/x", "socket", tmp_path / "x.sock", LOG, lambda: now_s[0])
    with caplog.at_level(logging.INFO, logger="devd.test"):
        for _ in range(5):
            now_s[0] += 60
            board.enter("refused", "the kubelet refused: bad name")
        refused = board.status
        board.registered()
    assert refused.since == "2001-09-09T01:47:40.000+00:00"
    assert (board.status.state, board.status.last_error, board.status.registrations) == ("registered", "", 1)
    lines = [(one.levelname, one.getMessage()) for one in caplog.records]
    assert lines == [
        ("ERROR", "devd.io/x: refused: the kubelet refused: bad name"),
        ("INFO", "devd.io/x: registered"),
    ]


@pytest.mark.parametrize(
    ("text", "permanent"),
    [
        ('requested API version "v2" is not supported by kubelet. Supported version is ["v1beta1"]', True),
        ('the ResourceName "kubernetes.io/x" is invalid', True),
        ("validation failed with err: manager version, v1beta1, is not among plugin supported versions [v2]", True),
        ("failed to dial device plugin: context deadline exceeded", False),
        ("", False),
    ],
)
def test_only_configuration_errors_are_permanent(text: str, *, permanent: bool) -> None:
    """The kubelet's words for a wrong version or name are recognized; everything else is worth a retry."""
    assert is_permanent(text) is permanent
