"""``python -m devd``: the same entry point as the console script."""

import sys

from devd.daemon.cli import main

if __name__ == "__main__":
    sys.exit(main())
