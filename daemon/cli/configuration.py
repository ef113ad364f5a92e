"""``devd check`` and ``devd schema``: the configuration's errors and its shape. No daemon, no device."""

import json
import sys
from pathlib import Path

from devd.daemon.cli import exits
from devd.daemon.cli.output import put
from devd.daemon.config import ConfigError, collisions, json_schema, load


def check(file: Path) -> int:
    """Print every error of a configuration to stderr, or one line that it is well; return the exit code."""
    try:
        config = load(file)
    except ConfigError as error:
        count = len(error.problems)
        print(error.render(), file=sys.stderr)
        print(f"{file}: {count} {'error' if count == 1 else 'errors'}", file=sys.stderr)
        return exits.USAGE
    for warning in collisions(config):
        print(f"{file}: warning: {warning}", file=sys.stderr)
    names = ", ".join(resource.name for resource in config.resources)
    put(f"{file}: ok, {len(config.resources)} {'resource' if len(config.resources) == 1 else 'resources'}: {names}")
    return exits.OK


def schema() -> int:
    """Print the configuration's JSON Schema."""
    put(json.dumps(json_schema(), indent=2))
    return exits.OK
