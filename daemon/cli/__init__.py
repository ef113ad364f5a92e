"""The command line. Each command imports what it needs when it runs: ``devd status`` must answer at once."""

import sys

if sys.argv[1:2] == ["run"]:
    # Before anything that takes long: a daemon may be told to end while it is being started.
    from devd.daemon import early_signals

    early_signals.take()

from devd.daemon.cli.entry import main

__all__ = ["main"]
