"""What can be said on the command line, and which function carries it out."""

import argparse
from pathlib import Path

from devd.daemon.cli import ask, local
import os
from devd.daemon.options import (
    DEFAULT_LOG_DIR as LOG_DIR,
    DEFAULT_STATE_DIR as STATE_DIR,
    DEFAULT_RUNTIME_DIR,
    RUNTIME_DIR_VARIABLE,
)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser; each command's namespace has ``run``, a function of the namespace that returns an exit code."""
    parser = argparse.ArgumentParser(
        prog="devd",
        description="Kubernetes device plugin daemon: offers a node's devices, keeps their health true, resets them.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_run(commands)
    _add_status(commands)
    _add_orders(commands)
    _add_local(commands)
    return parser


Commands = argparse._SubParsersAction  # noqa: SLF001 - argparse has no public name for it


def _add_run(commands: "Commands[argparse.ArgumentParser]") -> None:
    run = commands.add_parser("run", help="run the daemon", description="Run the daemon until SIGTERM or SIGINT.")
    run.add_argument("--config", type=Path, required=True, metavar="FILE", help="the configuration, YAML")
    run.add_argument("--kubelet-dir", type=Path, metavar="DIR", help="overrides kubelet.dir of the configuration")
    run.add_argument("--registry-dir", type=Path, metavar="DIR", help="overrides kubelet.registry_dir")
    _add_runtime_dir(run)
    run.add_argument("--state-dir", type=Path, default=STATE_DIR, metavar="DIR", help="default: %(default)s")
    run.add_argument("--log-dir", type=Path, default=LOG_DIR, metavar="DIR", help="journals; default: %(default)s")
    run.add_argument("--log-format", choices=("auto", "json", "text"), default="auto", help="auto: text on a terminal")
    run.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    run.set_defaults(run=local.run)


def _add_status(commands: "Commands[argparse.ArgumentParser]") -> None:
    status = commands.add_parser("status", help="show what is offered, and why something is not")
    status.add_argument("filters", nargs="*", metavar="RESOURCE|DEVICE", help="show these only")
    status.add_argument("-o", "--output", choices=("table", "wide", "json", "yaml"), default="table")
    status.add_argument("-w", "--watch", action="store_true", help="show it again and again until Ctrl-C")
    status.add_argument("--interval", type=_seconds, default=2.0, metavar="SECONDS", help="of --watch; default 2")
    _add_runtime_dir(status)
    status.set_defaults(run=ask.status)


def _add_orders(commands: "Commands[argparse.ArgumentParser]") -> None:
    for verb, text in (
        ("probe", "have a device probed at once"),
        ("restart", "give a device a fresh worker; one that was given up is tried again"),
    ):
        order = commands.add_parser(verb, help=text)
        order.add_argument("device", metavar="DEVICE", help="id as devd status shows it")
        _add_runtime_dir(order)
        order.set_defaults(run=ask.order, verb=verb)
    health = commands.add_parser("health", help="exit 0 when the daemon answers; for liveness probes")
    _add_runtime_dir(health)
    health.set_defaults(run=ask.health)


def _add_local(commands: "Commands[argparse.ArgumentParser]") -> None:
    check = commands.add_parser("check", help="check a configuration: every error at once")
    check.add_argument("file", type=Path, metavar="FILE")
    check.set_defaults(run=local.check)
    discover = commands.add_parser("discover", help="show what a configuration would offer here; starts nothing")
    discover.add_argument("--config", type=Path, required=True, metavar="FILE")
    discover.set_defaults(run=local.discover)
    schema = commands.add_parser("schema", help="print the configuration's JSON Schema")
    schema.set_defaults(run=local.schema)
    demo = commands.add_parser("demo", help="show devd at work against a stub kubelet; no cluster, no root")
    demo.add_argument("--seconds", type=_seconds, default=60.0, metavar="N", help="default 60")
    demo.set_defaults(run=local.demo)
    version = commands.add_parser("version", help="print the version")
    version.set_defaults(run=local.version)


def _add_runtime_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--runtime-dir",
        type=Path,
        default=Path(os.environ.get(RUNTIME_DIR_VARIABLE) or DEFAULT_RUNTIME_DIR),
        metavar="DIR",
        help="where the daemon's sockets are; default: %(default)s, or DEVD_RUNTIME_DIR",
    )


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value
