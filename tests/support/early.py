"""devd that is sent signals as soon as its first module is there: ``python early.py SIGHUP,SIGTERM run ...``."""

import os
import signal
import sys

numbers = [signal.Signals[name] for name in sys.argv.pop(1).split(",")]

# As the console script does: only then is the rest imported.
from devd.daemon.cli import main  # noqa: E402 - the arguments come first

if __name__ == "__main__":
    for number in numbers:
        os.kill(os.getpid(), number)
    sys.exit(main())
