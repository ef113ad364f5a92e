"""Signals that reach ``devd run`` before its event loop takes them: an end is an orderly one from the first moment on.

``take`` comes before everything that takes long to import. Until devd has something to clean up it just ends; from
``hold_back`` on a signal waits until somebody asks.
"""

import os
import signal
from types import FrameType

ENDS = (signal.SIGTERM, signal.SIGINT)

_held: list[int] = []


def take() -> None:
    """End with code 0 on whatever asks for an end. SIGHUP asks for what is about to be done, and ends nobody."""
    for number in ENDS:
        signal.signal(number, _end)
    # A handler, and not SIG_IGN, which the fork server would inherit.
    signal.signal(signal.SIGHUP, _pass)


def hold_back() -> None:
    """Have ends wait: there is something to clean up from now on."""
    for number in ENDS:
        signal.signal(number, _hold)


def held_back() -> tuple[int, ...]:
    """Return who asked since ``hold_back``."""
    return tuple(_held)


def _end(_number: int, _frame: FrameType | None) -> None:
    # Nothing was begun; an exception might be lost in an import's own handlers.
    os._exit(0)


def _hold(number: int, _frame: FrameType | None) -> None:
    _held.append(number)


def _pass(_number: int, _frame: FrameType | None) -> None:
    return
