"""Heaps of work in slices, and the row of those that died together."""

import asyncio
import logging
import time
from functools import partial

import pytest

from devd.daemon.crowd import AT_ONCE, RESTARTS_PER_S, Crowd
from devd.daemon.turns import SLICE_S, Turns

PIECE_S = 0.0004
PIECES = 300
ROUNDING_S = 1e-6


def busy(seconds: float) -> None:
    """Use the processor, as a piece of work does."""
    until_s = time.perf_counter() + seconds
    while time.perf_counter() < until_s:
        pass


async def emptied(turns: Turns) -> None:
    """Wait until nothing waits any more."""
    while len(turns):  # noqa: ASYNC110 - the loop's own turns are what is looked at
        await asyncio.sleep(0)


def test_others_have_the_loop_between_slices() -> None:
    """While a heap is done, a task that only wants one turn after another gets many of them."""

    async def play() -> tuple[int, int]:
        turns = Turns(asyncio.get_running_loop())
        done: list[int] = []

        def piece(number: int) -> bool:
            busy(PIECE_S)
            done.append(number)
            return False

        for number in range(PIECES):
            turns.put(number, partial(piece, number))
        seen = 0
        while len(done) < PIECES:
            await asyncio.sleep(0)
            seen += 1
        assert done == list(range(PIECES))
        assert len(turns) == 0
        return seen, len(done)

    seen, done = asyncio.run(play())
    # A slice holds three such pieces; the loop turns at least once between two slices.
    assert seen >= done * PIECE_S / (SLICE_S + PIECE_S)


def test_one_key_waits_once_and_more_work_comes_after_others() -> None:
    """A key that is put twice is done once; work that has more waits behind what others have."""

    async def play() -> list[str]:
        turns = Turns(asyncio.get_running_loop())
        done: list[str] = []
        left = {"greedy": 2}

        def greedy() -> bool:
            done.append("greedy")
            left["greedy"] -= 1
            return left["greedy"] > 0

        def modest() -> bool:
            done.append("modest")
            return False

        turns.put("greedy", greedy)
        turns.put("greedy", greedy)
        turns.put("modest", modest)
        await emptied(turns)
        return done

    assert asyncio.run(play()) == ["greedy", "modest", "greedy"]


def test_bug_in_one_piece_is_told_and_costs_the_others_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """An exception is logged with its key; what waits behind it is done."""

    async def play() -> list[str]:
        turns = Turns(asyncio.get_running_loop())
        done: list[str] = []

        def broken() -> bool:
            raise RuntimeError("a bug")

        def sound() -> bool:
            done.append("sound")
            return False

        turns.put("broken", broken)
        turns.put("sound", sound)
        await emptied(turns)
        return done

    with caplog.at_level(logging.ERROR):
        assert asyncio.run(play()) == ["sound"]
    assert "work for 'broken' failed" in caplog.text


def test_closed_queue_does_nothing_more() -> None:
    """What waits is dropped at the end, and nothing is taken any more."""

    async def play() -> list[str]:
        turns = Turns(asyncio.get_running_loop())
        done: list[str] = []

        def work() -> bool:
            done.append("late")
            return False

        turns.put("early", work)
        turns.close()
        turns.put("late", work)
        for _ in range(5):
            await asyncio.sleep(0)
        return done

    assert asyncio.run(play()) == []


def test_few_deaths_wait_for_nothing_and_many_stand_in_a_row() -> None:
    """Up to AT_ONCE come back at their own pauses; after them one follows the other; an hour later all is forgotten."""
    crowd = Crowd()
    waits = [crowd.wait_s(1000.0) for _ in range(AT_ONCE + 20)]
    assert waits[:AT_ONCE] == pytest.approx([0.0] * AT_ONCE, abs=ROUNDING_S)
    rest = waits[AT_ONCE:]
    assert rest == pytest.approx([(number + 1) / RESTARTS_PER_S for number in range(20)])
    assert [crowd.wait_s(4600.0) for _ in range(AT_ONCE)] == pytest.approx([0.0] * AT_ONCE, abs=ROUNDING_S)


def test_row_never_waits_longer_than_its_length() -> None:
    """Deaths at the rate itself never wait, however long it goes on."""
    crowd = Crowd()
    assert max(crowd.wait_s(second / RESTARTS_PER_S) for second in range(10_000)) < ROUNDING_S
