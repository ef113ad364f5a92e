"""devd that ends with the demo that started it: ``python -m devd.daemon.demo.tied DEMO_PID run ...``.

A demo that is killed cannot end anything itself; the kernel then sends its devd a SIGTERM.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""prctl(2): a signal for this process when the thread that started it ends, here the demo's main thread."""

if __name__ == "__main__":
    demo = int(sys.argv.pop(1))

    # Only now: what it does first of all depends on its arguments.
    from devd.daemon.cli import main

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    # It may have ended before that.
    sys.exit(main() if os.getppid() == demo else 0)
