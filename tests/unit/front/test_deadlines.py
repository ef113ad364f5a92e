"""The clock of all lifecycles: an absence of the front is given back by its length, whatever was due in it."""

import asyncio
import time

from devd.daemon import events as ev
from devd.daemon import lifecycle
from devd.daemon.charge import Charge
from devd.daemon.deadlines import BEAT_S, STALL_S, Deadlines
from devd.daemon.device_state import Policy
from devd.daemon.turns import Turns
from devd.ipc.messages import WorkerSpec

AWAY_S = 0.6
POLICY = Policy(period_s=30.0, timeout_s=5.0)


def no_worker(_incarnation: int, _health: str, _command: str) -> WorkerSpec:
    """Make no worker: none is asked for here."""
    raise AssertionError("a worker was asked for")


def test_absence_is_given_back_by_its_length_though_nothing_was_due_in_it() -> None:
    """The loop stands still far from any deadline: one absence is told, nearly as long as it was, and only once."""
    told: list[ev.Event] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()
        state, _ = lifecycle.birth("dev", time.monotonic(), POLICY)
        charges = {"dev": Charge("r", state, POLICY, no_worker)}
        turns = Turns(loop)
        deadlines = Deadlines(loop, turns, charges, lambda _device, event: told.append(event))
        deadlines.arm(charges["dev"])
        await asyncio.sleep(2 * BEAT_S)
        time.sleep(AWAY_S)  # noqa: ASYNC251 - the fault itself
        await asyncio.sleep(3 * BEAT_S)
        assert deadlines.stalls == 1
        deadlines.close()
        turns.close()

    asyncio.run(run())
    [stalled] = told
    assert isinstance(stalled, ev.Stalled)
    assert stalled.for_s > AWAY_S - BEAT_S - 0.01
    assert stalled.for_s > STALL_S
