"""Commands that ask the running daemon over its control socket."""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Mapping
from typing import Any

from devd.daemon.cli import render
from devd.ipc.control import control_call
from devd.ipc.endpoints import RuntimeLayout
from devd.ipc.errors import IpcError, PeerSilentError, PeerUnavailableError
from devd.ipc.messages import ControlReply, ControlRequest

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_NO_DAEMON = 3
EXIT_SILENT = 4

ANSWER_WITHIN_S = 1.5
"""A daemon answers in milliseconds; with the command's own start this keeps "does not answer" inside 2 s."""
NARROWEST_COLUMNS = 80
PIPE_COLUMNS = 120


class AskError(Exception):
    """Raised when there is no answer to show; has the command's exit code."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


def status(options: argparse.Namespace) -> int:
    """Show the status once, or until Ctrl-C."""
    while True:
        try:
            tree = _narrowed(_ask(options, "status", {}).data, options.filters)
            text = _shown(tree, options.output)
        except AskError as error:
            if not options.watch:
                return _failed(error)
            text = f"devd: {error}"
        if not options.watch:
            print(text)
            return EXIT_OK
        clear = "\x1b[H\x1b[J" if sys.stdout.isatty() else ""
        print(f"{clear}{text}", flush=True)
        time.sleep(options.interval)


def order(options: argparse.Namespace) -> int:
    """Give an order about one device."""
    try:
        _ask(options, options.verb, {"device": options.device})
    except AskError as error:
        return _failed(error)
    print(f"{options.device}: {options.verb} ordered")
    return EXIT_OK


def health(options: argparse.Namespace) -> int:
    """Say whether the daemon is well."""
    try:
        _ask(options, "health", {})
    except AskError as error:
        return _failed(error)
    print("ok")
    return EXIT_OK


def _ask(options: argparse.Namespace, verb: str, args: Mapping[str, object]) -> ControlReply:
    """Return the daemon's good answer. Raises AskError."""
    root = options.runtime_dir
    try:
        reply = control_call(RuntimeLayout(root).control, ControlRequest(verb, args), ANSWER_WITHIN_S)
    except PeerUnavailableError:
        text = f"no daemon runs on {root}: start 'devd run', or name its directory with --runtime-dir"
        raise AskError(text, EXIT_NO_DAEMON) from None
    except PeerSilentError:
        text = f"the daemon on {root} does not answer: it is stopped or its loop is blocked; its log tells more"
        raise AskError(text, EXIT_SILENT) from None
    except IpcError as error:
        raise AskError(str(error), EXIT_FAILED) from None
    if not reply.ok:
        raise AskError(reply.error, EXIT_FAILED)
    return reply


def _failed(error: AskError) -> int:
    print(f"devd: {error}", file=sys.stderr)
    return error.code


def _narrowed(tree: Mapping[str, Any], filters: list[str]) -> dict[str, Any]:
    """Return the tree with the named resources and devices only. Raises AskError when a name fits nothing."""
    found = dict(tree)
    if not filters:
        return found
    names = {one["name"] for one in found["resources"]} | {one["id"] for one in found["devices"]}
    unknown = [one for one in filters if one not in names]
    if unknown:
        raise AskError(f"no resource or device {', '.join(unknown)}: 'devd status' lists them", EXIT_FAILED)
    found["devices"] = [one for one in found["devices"] if one["id"] in filters or one["resource"] in filters]
    kept = {one["resource"] for one in found["devices"]} | set(filters)
    found["resources"] = [one for one in found["resources"] if one["name"] in kept]
    return found


def _shown(tree: dict[str, Any], output: str) -> str:
    if output == "json":
        return json.dumps(tree, indent=2)
    if output == "yaml":
        import yaml  # noqa: PLC0415 - for this format alone

        return str(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)).rstrip()
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size((PIPE_COLUMNS, 24)).columns if terminal else PIPE_COLUMNS
    return render.status(
        tree, max(width, NARROWEST_COLUMNS), wide=output == "wide", colour=terminal and render.colour_wanted()
    )
