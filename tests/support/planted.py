"""devd with a planted bug: SIGUSR1 blocks its event loop, as a call that does not return would."""

import signal
import sys
import time

from devd.daemon.cli.entry import main

BLOCKED_S = 6.0


def stand_still(_number: int, _frame: object) -> None:
    """Block the thread that runs the event loop."""
    time.sleep(BLOCKED_S)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, stand_still)
    sys.exit(main())
