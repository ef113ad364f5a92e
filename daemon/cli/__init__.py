"""The command line. Each command imports what it needs when it runs: ``devd status`` must answer at once."""

from devd.daemon.cli.entry import main

__all__ = ["main"]
