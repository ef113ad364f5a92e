"""Prints every finding, one a line. Exits 0 for none but warnings, 1 for some, 2 for what cannot be read."""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from packaging.requirements import InvalidRequirement

from deploy.audit import online, project, rules

ROOT = Path(__file__).parents[2]


def main() -> int:
    """Check, print, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deploy.audit", description="Check what devd depends on.")
    parser.add_argument("--root", type=Path, default=ROOT, help="the source tree (default: this one)")
    parser.add_argument("--no-installed", action="store_true", help="do not look at what is installed")
    parser.add_argument("--online", action="store_true", help="ask pip-audit as well, where it can be asked")
    options = parser.parse_args()
    environment = None if options.no_installed else project.installed()
    try:
        found = rules.check(options.root, datetime.now(tz=UTC).date(), environment)
    except (OSError, KeyError, ValueError, InvalidRequirement) as error:
        print(f"cannot be checked: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    for one in found:
        print(one)
    failed = any(one.fatal for one in found)
    if options.online:
        files = (rules.CONSTRAINTS, rules.RUNTIME_LOCK, rules.BUILD_LOCK, rules.TOOLS_LOCK)
        failed = online.ask(options.root, files) != 0 or failed
    if not failed:
        print("Dependencies: pinned, hashed, as installed, none with a known advisory")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
