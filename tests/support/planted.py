"""devd with a planted bug: SIGUSR1 blocks its event loop until SIGUSR2, as a call that does not return would."""

import signal
import sys
import threading
import time

from devd.daemon.cli.entry import main

MOST_S = 120.0
"""Whoever forgets the SIGUSR2 waits no longer than this."""
LOOK_EVERY_S = 0.05
released = threading.Event()


def stand_still(_number: int, _frame: object) -> None:
    """Block the thread that runs the event loop."""
    until_s = time.monotonic() + MOST_S
    while not released.is_set() and time.monotonic() < until_s:
        time.sleep(LOOK_EVERY_S)


def let_go(_number: int, _frame: object) -> None:
    """Have it go on."""
    released.set()


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, stand_still)
    signal.signal(signal.SIGUSR2, let_go)
    sys.exit(main())
