"""A fork server that does nothing is given up; one that answers, or is not waited for, is not."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from devd.daemon.fork_watch import ASK_AFTER_S, LOST_AFTER_S, STEP_S, ForkWatch

WITHIN_S = 30.0


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that says nothing."""
    with subprocess.Popen(["sleep", "600"]) as one:
        yield one
        one.kill()


def watch(process: subprocess.Popen[bytes], *, answers: bool) -> tuple[ForkWatch, list[str], list[float]]:
    """Return the watch over a process that has said its first word, what was lost, and when it was asked."""
    lost: list[str] = []
    asked: list[float] = []

    def ask() -> None:
        asked.append(time.monotonic())
        if answers:
            asyncio.get_running_loop().call_soon(made.heard)

    def gone(why: str) -> None:
        made.end()
        lost.append(why)

    made = ForkWatch(asyncio.get_running_loop(), ask, gone)
    made.begin(process.pid)
    made.heard()
    return made, lost, asked


async def until_any(things: list[str] | list[float], count: int = 1) -> None:
    """Wait until a list has so many."""
    async with asyncio.timeout(WITHIN_S):
        while len(things) < count:  # noqa: ASYNC110 - a list tells of no event
            await asyncio.sleep(0.02)


def test_process_that_hangs_is_asked_and_then_lost(process: subprocess.Popen[bytes]) -> None:
    """Nothing is heard of it, though it was asked once: it is given up, and its state is told."""

    async def run() -> None:
        made, lost, asked = watch(process, answers=False)
        made.awaits("order")
        await until_any(lost)
        assert len(asked) == 1
        assert f"not answered for {LOST_AFTER_S:g} s: process {process.pid} is sleeping (S)" in lost[0]

    asyncio.run(run())


def test_stopped_process_is_lost_without_being_asked(process: subprocess.Popen[bytes]) -> None:
    """A process that is stopped cannot answer: it is given up at the first look."""

    async def run() -> None:
        made, lost, asked = watch(process, answers=False)
        os.kill(process.pid, signal.SIGSTOP)
        made.awaits("end")
        await until_any(lost)
        assert asked == []
        assert f"not answered for {ASK_AFTER_S:g} s: process {process.pid} is stopped (T)" in lost[0]

    asyncio.run(run())


def test_process_that_answers_is_waited_for(process: subprocess.Popen[bytes]) -> None:
    """An end may be held up by what a worker left behind: as long as the fork server answers it is asked, and kept."""

    async def run() -> None:
        made, lost, asked = watch(process, answers=True)
        made.awaits("end")
        await until_any(asked, 3)
        assert lost == []
        made.heard("end")
        before = len(asked)
        made.awaits("another")
        await until_any(asked, before + 1)
        assert asked[-1] - asked[-2] >= ASK_AFTER_S - STEP_S
        made.end()

    asyncio.run(run())


def test_front_that_was_away_blames_nobody(process: subprocess.Popen[bytes]) -> None:
    """An absence of the front counts as one step, and not as the silence of whoever had nobody to speak to."""

    async def run() -> None:
        made, lost, asked = watch(process, answers=False)
        made.awaits("order")
        time.sleep(LOST_AFTER_S + 1)  # noqa: ASYNC251 - the fault itself
        await asyncio.sleep(STEP_S / 2)
        assert (lost, asked) == ([], [])
        made.heard("order")

    asyncio.run(run())
