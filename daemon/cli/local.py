"""Commands that ask no running daemon. Each imports what it needs when it runs: most need little."""

import argparse
import json
import sys

from devd import __version__
from devd.daemon.options import RunOptions

EXIT_OK = 0
EXIT_CONFIG = 2


def run(options: argparse.Namespace) -> int:
    """Be the daemon."""
    from devd.daemon import app  # noqa: PLC0415 - gRPC, pydantic and asyncio are for this command

    return app.run(
        RunOptions(
            config=options.config,
            kubelet_dir=options.kubelet_dir,
            registry_dir=options.registry_dir,
            runtime_dir=options.runtime_dir,
            state_dir=options.state_dir,
            log_dir=options.log_dir,
            log_format=options.log_format,
            log_level=options.log_level,
        )
    )


def check(options: argparse.Namespace) -> int:
    """Print every error of a configuration."""
    from devd.daemon.config import ConfigError, load  # noqa: PLC0415 - slow to import, few commands need it

    try:
        config = load(options.file)
    except ConfigError as error:
        print(error.render(), file=sys.stderr)
        return EXIT_CONFIG
    print(f"{options.file}: good, {len(config.resources)} resources")
    return EXIT_OK


def discover(options: argparse.Namespace) -> int:
    """Print what would be offered."""
    from devd.daemon import discover as discovery  # noqa: PLC0415 - slow to import, few commands need it

    return discovery.run(options.config)


def schema(options: argparse.Namespace) -> int:
    """Print the JSON Schema."""
    from devd.daemon.config import json_schema  # noqa: PLC0415 - slow to import, few commands need it

    del options
    print(json.dumps(json_schema(), indent=2))
    return EXIT_OK


def demo(options: argparse.Namespace) -> int:
    """Show devd at work."""
    from devd.daemon.demo import show  # noqa: PLC0415 - gRPC is for this command

    return show.run(options.seconds)


def version(options: argparse.Namespace) -> int:
    """Print the version."""
    del options
    print(f"devd {__version__}")
    return EXIT_OK
