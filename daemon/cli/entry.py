"""``devd``: arguments in, exit code out. Interrupts, closed pipes and errors end in one line and a code."""

import argparse
import grp
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from devd.daemon.cli import exits
from devd.daemon.cli.exits import CommandError
from devd.daemon.cli.output import drop_output, put
from devd.daemon.options import (
    DEFAULT_CDI_DIR,
    DEFAULT_LOG_DIR,
    DEFAULT_RUNTIME_DIR,
    DEFAULT_STATE_DIR,
    RUNTIME_DIR_VARIABLE,
)

DEFAULT_INTERVAL_S = 2.0
MIN_INTERVAL_S = 0.1
MAX_INTERVAL_S = 3600.0
DEFAULT_DEMO_S = 60.0
MAX_DEMO_S = 86400.0
MAX_GID = 2**32 - 2
RESET_WITHIN_S = 28.0
"""devd itself answers a reset inside 25 s."""
MAX_FAULT_S = 30 * 86400.0

EPILOG = (
    "exit codes: 0 done, 1 failed or refused, 2 wrong arguments or configuration, 3 no daemon runs, "
    "4 the daemon does not answer"
)

Command = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (argparse itself exits with 2 on wrong arguments)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that lacks a character gets an escape, never an exception.
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _dispatch(argv)
        # What other modules printed may still wait in the buffer.
        put("", end="")
    except CommandError as error:
        _complain(str(error))
        return error.code
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except BrokenPipeError:
        drop_output()
        return exits.BROKEN_PIPE
    return code


def _dispatch(argv: Sequence[str] | None) -> int:
    parser = build_parser()
    arguments = parser.parse_args(argv)
    command: Command | None = arguments.command
    if command is None:
        parser.print_help(sys.stderr)
        return exits.USAGE
    return command(arguments)


def _complain(text: str) -> None:
    # The pipe may be closed on this side as well; then the code alone has to say it.
    try:
        print(f"devd: {text}", file=sys.stderr, flush=True)
    except (OSError, AttributeError):
        return


# ---- arguments --------------------------------------------------------------------------------------------------


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; its ``command`` is the function to call, None when none was named."""
    parser = argparse.ArgumentParser(
        prog="devd", description="Kubernetes device plugin daemon.", epilog=EPILOG, allow_abbrev=False
    )
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    add = _Adder(commands)
    _run_arguments(add("run", _run, "offer this node's devices to the kubelet"))
    _status_arguments(add("status", _status, "show what is offered, and why something is not"))
    _discover_arguments(add("discover", _discover, "show what this node has to offer; starts nothing"))
    add("check", _check, "report every error of a configuration").add_argument("file", type=Path, metavar="FILE")
    add("schema", _schema, "print the configuration's JSON Schema")
    for verb, text in (
        ("probe", "have a device probed at once"),
        ("restart", "replace a device's worker, and try again where it was given up"),
        ("reset", "reset a device that no container has, and tell how it went"),
        ("cordon", "withhold a device from new containers; outlives restarts"),
        ("uncordon", "give a cordoned device back"),
    ):
        one = add(verb, _order, text)
        one.set_defaults(verb=verb)
        one.add_argument("device", metavar="DEVICE", help="id as 'devd status' shows it")
        if verb == "cordon":
            one.add_argument("--reason", default="", metavar="TEXT", help="shown wherever the device's health is")
        if verb == "restart":
            one.add_argument("--forget", action="store_true", help="count its errors from now on: what it had is known")
        if verb == "reset":
            one.add_argument("--force", action="store_true", help="whoever has it; a driver's own checks still hold")
        _runtime_argument(one)
    _inject_arguments(add("inject", _inject, "have simulated devices misbehave, to rehearse a fault"))
    _runtime_argument(add("reload", _reload, "have the configuration read again, as SIGHUP does"))
    _health_arguments(add("health", _health, "exit 0 when the daemon runs and is well"))
    demo = add("demo", _demo, "run devd against a stub kubelet, in a temporary directory")
    demo.add_argument("--seconds", type=_seconds(1.0, MAX_DEMO_S), default=DEFAULT_DEMO_S, metavar="N")
    add("version", _version, "print the version")
    return parser


class _Adder:
    def __init__(self, commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
        self._commands = commands

    def __call__(self, name: str, command: Command, text: str) -> argparse.ArgumentParser:
        """Add a command."""
        described = f"{text[0].upper()}{text[1:]}."
        parser = self._commands.add_parser(name, help=text, description=described, epilog=EPILOG, allow_abbrev=False)
        parser.set_defaults(command=command)
        return parser


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    _config_argument(parser)
    parser.add_argument("--kubelet-dir", type=Path, metavar="DIR", help="goes before kubelet.dir of the configuration")
    parser.add_argument("--registry-dir", type=Path, metavar="DIR", help="goes before kubelet.registry_dir")
    _runtime_argument(parser)
    for what, default in (("state", DEFAULT_STATE_DIR), ("log", DEFAULT_LOG_DIR), ("cdi", DEFAULT_CDI_DIR)):
        parser.add_argument(f"--{what}-dir", type=Path, default=default, metavar="DIR", help="default: %(default)s")
    parser.add_argument(
        "--cgroup",
        action="store_true",
        help="bound each worker by a cgroup below devd's own, which has to be delegated (systemd: Delegate=yes)",
    )
    parser.add_argument(
        "--control-group",
        type=_group,
        metavar="NAME|GID",
        help="whose members may use 'devd status' and the verbs, beside root and devd's own user; default: nobody's",
    )
    parser.add_argument(
        "--log-format", choices=("auto", "json", "text"), default="auto", help="auto: text on a terminal, else JSON"
    )
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")


def _status_arguments(parser: argparse.ArgumentParser) -> None:
    _runtime_argument(parser)
    parser.add_argument(
        "filters",
        nargs="*",
        metavar="RESOURCE|DEVICE",
        help="only these: names, ids, or patterns with * and ?",
    )
    parser.add_argument(
        "-o", "--output", choices=("table", "wide", "json", "yaml"), default="table", help="default: %(default)s"
    )
    parser.add_argument("-w", "--watch", action="store_true", help="show again and again, until Ctrl-C")
    parser.add_argument(
        "--interval",
        type=_seconds(MIN_INTERVAL_S, MAX_INTERVAL_S),
        default=DEFAULT_INTERVAL_S,
        metavar="SECONDS",
        help="of --watch; default: %(default)g",
    )


def _discover_arguments(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--config", type=Path, metavar="FILE", help="show what this configuration would offer")
    which.add_argument("--suggest", action="store_true", help="print a configuration to begin with")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="default: %(default)s")


def _inject_arguments(parser: argparse.ArgumentParser) -> None:
    _runtime_argument(parser)
    parser.add_argument("target", metavar="DEVICE|RESOURCE", help="id or name as 'devd status' shows it")
    parser.add_argument(
        "fault", metavar="FAULT", help="fail, hang, slow, crash, exit, exception, oom or flood; none takes it back"
    )
    parser.add_argument(
        "--for",
        dest="for_s",
        type=_seconds(MIN_INTERVAL_S, MAX_FAULT_S),
        metavar="SECONDS",
        help="default: until it is taken back",
    )
    parser.add_argument("--reason", default="", metavar="TEXT", help="what a probe that fails says")


def _health_arguments(parser: argparse.ArgumentParser) -> None:
    _runtime_argument(parser)
    parser.add_argument(
        "--ready", action="store_true", help="and the kubelet has every resource of the configuration; 1 says which not"
    )


def _config_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, required=True, metavar="FILE")


def _runtime_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--runtime-dir",
        type=Path,
        default=Path(os.environ.get(RUNTIME_DIR_VARIABLE) or DEFAULT_RUNTIME_DIR),
        metavar="DIR",
        help=f"the daemon's sockets; default: {RUNTIME_DIR_VARIABLE}, else {DEFAULT_RUNTIME_DIR}",
    )


def _group(text: str) -> int:
    if text.isdecimal() and int(text) <= MAX_GID:
        return int(text)
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        raise argparse.ArgumentTypeError(f"{text!r}: there is no group of this name; a gid does as well") from None


def _seconds(least: float, most: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        # Not a number compares false with everything.
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text!r}: seconds from {least:g} to {most:g} are needed")
        return value

    return number


# ---- commands: each imports what it runs --------------------------------------------------------------------------


def _run(arguments: argparse.Namespace) -> int:
    from devd.daemon import app  # noqa: PLC0415 - gRPC and asyncio are for the daemon alone
    from devd.daemon.options import RunOptions  # noqa: PLC0415 - as above

    return app.run(
        RunOptions(
            config=arguments.config,
            kubelet_dir=arguments.kubelet_dir,
            registry_dir=arguments.registry_dir,
            runtime_dir=arguments.runtime_dir,
            state_dir=arguments.state_dir,
            log_dir=arguments.log_dir,
            cdi_dir=arguments.cdi_dir,
            log_format=arguments.log_format,
            log_level=arguments.log_level,
            cgroup=arguments.cgroup,
            control_group=arguments.control_group,
        )
    )


def _status(arguments: argparse.Namespace) -> int:
    from devd.daemon.cli.status import Wish, run  # noqa: PLC0415 - ZeroMQ is for those who ask

    return run(
        Wish(
            runtime_dir=arguments.runtime_dir,
            output=arguments.output,
            filters=tuple(arguments.filters),
            interval_s=arguments.interval if arguments.watch else None,
        )
    )


def _order(arguments: argparse.Namespace) -> int:
    from devd.daemon.cli.client import ask  # noqa: PLC0415 - ZeroMQ is for those who ask

    order: dict[str, object] = {"device": arguments.device}
    if arguments.verb == "restart" and arguments.forget:
        order["forget"] = True
    if arguments.verb == "cordon":
        order["reason"] = arguments.reason
    if arguments.verb == "reset":
        ask(arguments.runtime_dir, "reset", {**order, "force": arguments.force}, RESET_WITHIN_S)
        put(f"{arguments.device}: reset, and well")
        return exits.OK
    waits = ask(arguments.runtime_dir, arguments.verb, order).get("waits")
    ordered = f"{arguments.verb} ordered, and not done {waits}" if waits else f"{arguments.verb} ordered"
    put(f"{arguments.device}: {ordered}; 'devd status {arguments.device}' shows what comes of it")
    return exits.OK


def _inject(arguments: argparse.Namespace) -> int:
    from devd.daemon.cli.client import ask  # noqa: PLC0415 - ZeroMQ is for those who ask

    wish = {"target": arguments.target, "fault": arguments.fault, "reason": arguments.reason}
    if arguments.for_s is not None:
        wish["for_s"] = arguments.for_s
    devices = ask(arguments.runtime_dir, "inject", wish).get("devices")
    count = len(devices) if isinstance(devices, list | tuple) else 0
    devices_text = f"{count} {'device' if count == 1 else 'devices'}"
    put(f"{arguments.target}: {arguments.fault} ordered for {devices_text}; 'devd status' shows what comes of it")
    return exits.OK


def _reload(arguments: argparse.Namespace) -> int:
    from devd.daemon.cli.client import ask  # noqa: PLC0415 - ZeroMQ is for those who ask

    ask(arguments.runtime_dir, "reload")
    put("reload ordered; 'devd status' shows it when the file cannot be taken")
    return exits.OK


def _health(arguments: argparse.Namespace) -> int:
    from devd.daemon.cli.client import ask  # noqa: PLC0415 - ZeroMQ is for those who ask

    ask(arguments.runtime_dir, "health", {"ready": True} if arguments.ready else {})
    put("ok")
    return exits.OK


def _discover(arguments: argparse.Namespace) -> int:
    from devd.daemon import discover  # noqa: PLC0415 - pydantic is for those who read a configuration

    if arguments.suggest and arguments.output == "json":
        raise CommandError("--suggest prints YAML: leave out -o json", exits.USAGE)
    return discover.run(arguments.config, arguments.output, suggest=arguments.suggest)


def _check(arguments: argparse.Namespace) -> int:
    from devd.daemon.cli.configuration import check  # noqa: PLC0415 - as above

    return check(arguments.file)


def _schema(_arguments: argparse.Namespace) -> int:
    from devd.daemon.cli.configuration import schema  # noqa: PLC0415 - as above

    return schema()


def _demo(arguments: argparse.Namespace) -> int:
    from devd.daemon.demo import show  # noqa: PLC0415 - the stub kubelet is for the demo alone

    return show.run(arguments.seconds)


def _version(_arguments: argparse.Namespace) -> int:
    from devd import __version__  # noqa: PLC0415 - as above

    put(f"devd {__version__}")
    return exits.OK
