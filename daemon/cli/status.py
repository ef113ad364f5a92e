"""``devd status``: asks the daemon, keeps what was asked for, prints it once or again and again."""

import fnmatch
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

from devd.daemon.cli import exits
from devd.daemon.cli.client import ask
from devd.daemon.cli.exits import CommandError
from devd.daemon.cli.output import put
from devd.daemon.cli.render import render
from devd.daemon.cli.tree import devices, resources, text

Output = Literal["table", "wide", "json", "yaml"]

PIPE_SIZE = (120, 50)
"""Columns and rows where the output is no terminal and COLUMNS does not say."""
REPLICA_SEPARATOR = "::"


@dataclass(frozen=True, slots=True)
class Wish:
    """What to show: ``interval_s`` None is once; no filters is everything."""

    runtime_dir: Path
    output: Output = "table"
    filters: tuple[str, ...] = ()
    interval_s: float | None = None


def run(wish: Wish) -> int:
    """Print the status. Raises CommandError when the daemon cannot be asked or a filter fits nothing."""
    if wish.interval_s is not None:
        _watch(wish, wish.interval_s)
    put(shown(asked(wish), wish.output))
    return exits.OK


def asked(wish: Wish) -> dict[str, object]:
    """Return the status tree, narrowed to the filters."""
    return narrowed(ask(wish.runtime_dir, "status"), wish.filters)


def narrowed(status: Mapping[str, object], filters: Sequence[str]) -> dict[str, object]:
    """Return the tree with the named resources and devices only: ids, replica ids, names, name parts, or patterns.

    Raises CommandError naming the filters that fit nothing.
    """
    if not filters:
        return dict(status)
    idle = [one for one in filters if not any(_fits(one, names) for names in _all_names(status))]
    if idle:
        raise CommandError(f"no resource or device fits {', '.join(map(repr, idle))}; 'devd status' lists them all")
    kept = [one for one in devices(status) if any(_fits(wish, _device_names(one)) for wish in filters)]
    owners = {text(one, "resource") for one in kept}
    shown_resources = [
        one
        for one in resources(status)
        if text(one, "name") in owners or any(_fits(wish, _resource_names(text(one, "name"))) for wish in filters)
    ]
    return {**status, "resources": shown_resources, "devices": kept}


def _all_names(status: Mapping[str, object]) -> list[tuple[str, ...]]:
    names = [_resource_names(text(one, "name")) for one in resources(status)]
    return names + [_device_names(one) for one in devices(status)]


def _resource_names(name: str) -> tuple[str, ...]:
    return name, name.rpartition("/")[2]


def _device_names(device: Mapping[str, object]) -> tuple[str, ...]:
    return text(device, "id"), *_resource_names(text(device, "resource"))


def _fits(wish: str, names: Sequence[str]) -> bool:
    # A replica's id is the device's and a number: people copy it from a pod's status.
    device, separator, replica = wish.rpartition(REPLICA_SEPARATOR)
    wishes = [wish, device] if separator and replica.isdecimal() else [wish]
    return any(fnmatch.fnmatchcase(name, one) for one in wishes for name in names)


# ---- showing ----------------------------------------------------------------------------------------------------


def shown(status: Mapping[str, object], output: Output) -> str:
    """Return the status as text."""
    if output == "json":
        return json.dumps(status, indent=2)
    if output == "yaml":
        import yaml  # noqa: PLC0415 - most never ask for it

        return yaml.safe_dump(status, sort_keys=False, allow_unicode=True).rstrip()
    width = shutil.get_terminal_size(PIPE_SIZE).columns
    return render(status, width, colour=_colour(), wide=output == "wide", now_s=time.time())


def _colour() -> bool:
    """Return whether to paint: a terminal that can, and an operator who did not say no (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


# ---- watching ---------------------------------------------------------------------------------------------------


def _watch(wish: Wish, interval_s: float) -> NoReturn:
    """Show the status until Ctrl-C. A daemon that is not there at first is an error; one that goes away may return."""
    _show(_one_of_many(asked(wish), wish.output), wish)
    while True:
        time.sleep(interval_s)
        try:
            _show(_one_of_many(asked(wish), wish.output), wish)
        except CommandError as error:
            _show(f"devd: {error}", wish, trouble=True)


def _one_of_many(status: Mapping[str, object], output: Output) -> str:
    # One line a document: a reader of a stream splits it there.
    return json.dumps(status) if output == "json" else shown(status, output)


def _show(content: str, wish: Wish, *, trouble: bool = False) -> None:
    if trouble and wish.output in {"json", "yaml"}:
        print(content, file=sys.stderr, flush=True)
    elif wish.output == "yaml":
        put(f"---\n{content}")
    elif wish.output == "json":
        put(content)
    elif sys.stdout.isatty():
        put(_page(content), end="")
    else:
        put(f"{content}\n")


def _page(content: str) -> str:
    """Return what puts a text on the screen in place of the last one: drawn over it, so that nothing flickers."""
    lines = content.split("\n")
    rows = max(2, shutil.get_terminal_size(PIPE_SIZE).lines)
    if len(lines) >= rows:
        lines = [*lines[: rows - 2], f"… {len(lines) - rows + 2} more lines: name what to show, or use a higher window"]
    return "\x1b[H" + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J"
