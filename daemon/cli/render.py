"""``devd status`` as people read it: a pure function of the status tree, the time, the width and the wish for colour.

The tree comes from a daemon that may be newer or older than this command: a missing value shows as ``-``.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from devd.daemon.cli.tree import devices, mapping, number, resources, text, texts

GREEN, RED, BOLD, PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[1m", "\x1b[0m"
SHADES = {"Healthy": GREEN, "Unhealthy": RED}
HEALTHY = "Healthy"

GAP = "  "
LEAST_CHARS = {"RESOURCE": 16, "DEVICE": 14, "WHY": 24}
"""These columns give way when the terminal is narrow, down to so much each."""
DROPPED = ("SANDBOX", "RESTARTS", "PID", "LAST PROBE", "SINCE")
"""And these go altogether, in this order, when that is not enough."""
LEAST_WIDTH = 72
"""What is left then needs this much; a narrower terminal has to wrap it."""


@dataclass(frozen=True, slots=True)
class Column:
    """A head and a cell for each device."""

    head: str
    cells: tuple[str, ...]

    @property
    def width(self) -> int:
        """Characters the column needs."""
        return max(len(self.head), *(len(cell) for cell in self.cells), 0)


def render(status: Mapping[str, object], width: int, *, colour: bool, wide: bool = False, now_s: float) -> str:
    """Return the whole text, no line wider than ``width``, or LEAST_WIDTH (``wide`` cuts nothing).

    ``now_s`` is the wall clock in seconds that ages are counted to.
    """
    width = max(width, LEAST_WIDTH)
    columns = _columns(status, now_s) + (_wide_columns(status) if wide else [])
    if not wide:
        columns = _fitted(columns, width)
    lines = [*_header(status, wide=wide), "", *(_table(columns, colour=colour) if devices(status) else ["no devices"])]
    if wide:
        lines += ["", *_registrations(status, now_s), *_signals(status), *_sandboxes(status)]
    problems = _problems(status)
    if problems:
        lines += ["", "Problems:", *(f"  {one}" for one in problems)]
    # Table lines fit already, and their colours have no width.
    whole = lines if wide else [part for line in lines for part in _wrapped(line, width)]
    return "\n".join(line.rstrip() for line in whole)


def age(seconds: float) -> str:
    """Return a duration as people say it: ``0s``, ``12s``, ``3m12s``, ``2h05m``, ``3d04h``; below zero it is 0."""
    whole = max(0, int(seconds))
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02}h"
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


def brief(seconds: float) -> str:
    """Return how long a call took, three digits of it: ``0.12ms``, ``34.0ms``, ``1.2s``."""
    return f"{seconds:.3g}s" if seconds >= 1 else f"{seconds * 1e3:.3g}ms"


# ---- header -----------------------------------------------------------------------------------------------------


def _header(status: Mapping[str, object], *, wide: bool) -> list[str]:
    daemon, shown, named = mapping(status, "daemon"), devices(status), resources(status)
    well = sum(text(one, "health") == HEALTHY for one in shown)
    registered = sum(text(mapping(one, "registration"), "state") == "registered" for one in named)
    summary = (
        f"devd {text(daemon, 'version')}, pid {text(daemon, 'pid')}, up {_age(daemon, 'uptime_s')}, on "
        f"{text(daemon, 'runtime_dir')}: {well} of {len(shown)} devices Healthy, "
        f"{registered} of {len(named)} resources registered"
    )
    if not wide:
        return [summary]
    forks = mapping(daemon, "forkserver")
    counters = ", ".join(f"{name} {_flat(one)}" for name, one in mapping(daemon, "counters").items())
    return [
        summary,
        f"config {text(daemon, 'config')}, kubelet {text(daemon, 'kubelet_dir')} by {text(daemon, 'registration')}",
        f"started {text(daemon, 'started')}, fork server {text(forks, 'pid')}, restarts {text(forks, 'restarts')}",
        f"counters: {counters or '-'}",
    ]


def _flat(value: object) -> str:
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{key} {_flat(one)}" for key, one in value.items()) + ")"
    return text({"value": value}, "value")


# ---- table ------------------------------------------------------------------------------------------------------


def _columns(status: Mapping[str, object], now_s: float) -> list[Column]:
    shown = devices(status)
    cells = {
        "RESOURCE": [text(one, "resource") for one in shown],
        "DEVICE": [text(one, "id") for one in shown],
        "HEALTH": [text(one, "health") for one in shown],
        "WHY": [text(one, "reason") for one in shown],
        "SINCE": [_since(one, now_s) for one in shown],
        "PID": [text(one, "pid") for one in shown],
        "RESTARTS": [text(one, "restarts") for one in shown],
        "LAST PROBE": [_last_probe(mapping(one, "last_probe")) for one in shown],
        "SANDBOX": [text(mapping(one, "sandbox"), "level") for one in shown],
    }
    return [Column(head, tuple(column)) for head, column in cells.items()]


def _wide_columns(status: Mapping[str, object]) -> list[Column]:
    shown = devices(status)
    cells = {
        "PROBE": [text(mapping(one, "last_probe"), "kind") for one in shown],
        "TOOK": [_took(mapping(one, "last_probe")) for one in shown],
        "PHASE": [text(one, "phase") + (" (wedged)" if one.get("wedged") is True else "") for one in shown],
        "INCARNATION": [text(one, "incarnation") for one in shown],
        "LEASE": [_age(one, "lease_s") for one in shown],
        "NUMA": [text(one, "numa_node") for one in shown],
        "REPLICAS": [text(one, "replicas") for one in shown],
        "PATHS": [",".join(texts(one, "paths")) or "-" for one in shown],
    }
    return [Column(head, tuple(column)) for head, column in cells.items()]


def _fitted(columns: Sequence[Column], width: int) -> list[Column]:
    """Return the columns within ``width``: WHY is cut first, then the names, then whole columns are left out."""
    kept = list(columns)
    dropped = list(DROPPED)
    while _least(kept) > width and dropped:
        gone = dropped.pop(0)
        kept = [one for one in kept if one.head != gone]
    for head in ("WHY", "RESOURCE", "DEVICE"):
        over = _total(kept) - width
        kept = [_cut_column(one, one.width - over) if one.head == head and over > 0 else one for one in kept]
    return kept


def _total(columns: Sequence[Column]) -> int:
    return sum(one.width for one in columns) + len(GAP) * (len(columns) - 1)


def _least(columns: Sequence[Column]) -> int:
    widths = (min(one.width, LEAST_CHARS.get(one.head, one.width)) for one in columns)
    return sum(widths) + len(GAP) * (len(columns) - 1)


def _cut_column(column: Column, room: int) -> Column:
    room = max(room, LEAST_CHARS[column.head])
    # A resource's domain tells the least of it; of all else the beginning tells the most.
    front = column.head == "RESOURCE"
    return Column(column.head, tuple(_cut(cell, room, front=front) for cell in column.cells))


def _cut(cell: str, room: int, *, front: bool) -> str:
    if len(cell) <= room:
        return cell
    return f"…{cell[len(cell) - room + 1 :]}" if front else f"{cell[: room - 1]}…"


def _table(columns: Sequence[Column], *, colour: bool) -> list[str]:
    head = GAP.join(f"{one.head:<{one.width}}" for one in columns).rstrip()
    count = len(columns[0].cells)
    rows = (GAP.join(_cell(one, index, colour=colour) for one in columns).rstrip() for index in range(count))
    return [f"{BOLD}{head}{PLAIN}" if colour else head, *rows]


def _cell(column: Column, index: int, *, colour: bool) -> str:
    cell = column.cells[index]
    padding = " " * (column.width - len(cell))
    shade = SHADES.get(cell, "") if colour and column.head == "HEALTH" else ""
    return f"{shade}{cell}{PLAIN}{padding}" if shade else cell + padding


def _since(device: Mapping[str, object], now_s: float) -> str:
    try:
        since_s = datetime.fromisoformat(text(device, "since")).timestamp()
    except (ValueError, OverflowError):
        return "-"
    return age(now_s - since_s)


def _last_probe(probe: Mapping[str, object]) -> str:
    return f"{text(probe, 'verdict')} {_age(probe, 'age_s')} ago" if probe else "-"


def _took(probe: Mapping[str, object]) -> str:
    duration_s = number(probe, "duration_s")
    return "-" if duration_s is None else brief(duration_s)


def _age(facts: Mapping[str, object], name: str) -> str:
    seconds = number(facts, name)
    return "-" if seconds is None else age(seconds)


# ---- beneath the table ------------------------------------------------------------------------------------------


def _registrations(status: Mapping[str, object], now_s: float) -> list[str]:
    """Return a line for each resource: how it stands with the kubelet, and how old its list of devices is."""
    lines = []
    for one in resources(status):
        registration, discovery = mapping(one, "registration"), mapping(one, "discovery")
        stream = "stream open" if registration.get("stream_open") is True else "no stream"
        lines.append(
            f"{text(one, 'name')} ({text(one, 'driver')}): {text(one, 'healthy')} of {text(one, 'devices')} devices "
            f"Healthy, {text(one, 'offered')} offered; {text(registration, 'state')} for {_since(registration, now_s)} "
            f"by {text(registration, 'mode')}, {text(registration, 'registrations')} times, {stream}, "
            f"{text(registration, 'socket')}; discovery pid {text(discovery, 'pid')}, list {_age(discovery, 'age_s')} "
            "old"
        )
    return lines


def _sandboxes(status: Mapping[str, object]) -> list[str]:
    """Return the sandboxes in use, each with who stands behind it: devices' workers, scouts, the scribe."""
    found: dict[str, list[str]] = {}
    behind = [(text(one, "id"), mapping(one, "sandbox")) for one in devices(status)]
    behind += [
        (f"discovery of {text(one, 'name')}", mapping(mapping(one, "discovery"), "sandbox"))
        for one in resources(status)
    ]
    behind.append(("CDI", mapping(mapping(mapping(status, "daemon"), "cdi"), "sandbox")))
    for who, sandbox in behind:
        if sandbox:
            missing = "; ".join(f"{layer}: {why}" for layer, why in sorted(_pairs(mapping(sandbox, "missing"))))
            active = ", ".join(texts(sandbox, "active")) or "nothing"
            lack = f"; missing: {missing}" if missing else ""
            found.setdefault(f"sandbox {text(sandbox, 'level')}: {active}{lack}", []).append(who)
    return [f"{what} ({', '.join(names)})" for what, names in found.items()]


def _signals(status: Mapping[str, object]) -> list[str]:
    """Return what each driver's probe checks, has beside that, and has to tell."""
    lines = []
    for one in devices(status):
        signals = mapping(one, "signals")
        if not signals:
            continue
        checked = texts(signals, "checked")
        others = [name for name in texts(signals, "offered") if name not in checked]
        line = f"{text(one, 'id')} checks {', '.join(checked) or 'nothing yet'}"
        line += f"; also has {', '.join(others)}" if others else ""
        notes = "; ".join(f"{name}: {note}" for name, note in _pairs(mapping(signals, "notes")))
        lines.append(f"{line}; notes: {notes}" if notes else line)
    return lines


def _pairs(facts: Mapping[str, object]) -> list[tuple[str, str]]:
    return [(name, text(facts, name)) for name in facts]


def _problems(status: Mapping[str, object]) -> list[str]:
    """Return what an operator should know beside the devices' own health, once each."""
    found = []
    if error := text(mapping(status, "daemon"), "config_error", none=""):
        found.append(f"configuration: {error}")
    fences = mapping(status, "daemon").get("fences")
    found += [
        f"{text(one, 'device')} is not listed: {text(one, 'reason')}"
        for one in (fences if isinstance(fences, list) else [])
        if isinstance(one, Mapping)
    ]
    for one in resources(status):
        name, registration, discovery = text(one, "name"), mapping(one, "registration"), mapping(one, "discovery")
        if error := text(registration, "last_error", none=""):
            found.append(f"{name}: {text(registration, 'state')}: {error}")
        reason = text(discovery, "reason", none="")
        if text(discovery, "health") != HEALTHY and reason:
            found.append(f"{name}: discovery: {reason}; the list of devices is {_age(discovery, 'age_s')} old")
        found += [f"{name}: {problem}" for problem in texts(discovery, "problems")]
        if error := text(mapping(one, "cdi"), "problem", none=""):
            found.append(f"{name}: CDI: {error}")
        if one.get("devices") == 0:
            found.append(f"{name}: no devices")
    found += [
        f"{text(one, 'id')}: wedged: its worker cannot be ended, nothing else may touch the device until it is gone"
        for one in devices(status)
        if one.get("wedged") is True
    ]
    return list(dict.fromkeys(found))


def _wrapped(line: str, width: int) -> list[str]:
    if "\x1b" in line or len(line) <= width:
        return [line]
    return textwrap.wrap(line, width, subsequent_indent="    ") or [""]
