"""``devd status`` as people read it: a pure function of the status tree."""

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

GREEN, RED, YELLOW, BOLD, PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[33m", "\x1b[1m", "\x1b[0m"
SHADES = {"Healthy": GREEN, "Unhealthy": RED}

LEAST_WHY_CHARS = 20
GAP = "  "


def colour_wanted() -> bool:
    """Return whether the environment allows colour (https://no-color.org)."""
    return not os.environ.get("NO_COLOR")


def status(tree: Mapping[str, Any], width: int, *, wide: bool = False, colour: bool = False) -> str:
    """Return the table; ``wide`` is as wide as it needs and tells all, otherwise no line passes ``width``."""
    parts = [_headline(tree), ""]
    parts += _wide_table(tree, colour=colour) if wide else _table(tree, width, colour=colour)
    parts += _resources(tree, colour=colour) if wide else []
    notes = _notes(tree)
    if notes:
        parts += ["", *(note if wide else cut(note, width) for note in notes)]
    return "\n".join(line.rstrip() for line in parts)


def age(seconds: float) -> str:
    """Return a duration in the two largest units: ``850ms``, ``12s``, ``3m12s``, ``5h02m``, ``9d04h``."""
    if seconds < 1:
        return f"{max(0, round(seconds * 1000))}ms"
    whole = round(seconds)
    for unit, size, small, part in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // part:02d}{small}"
    return f"{whole}s"


def cut(text: str, room: int) -> str:
    """Return the text, shortened to ``room`` characters with an ellipsis."""
    return text if len(text) <= room else text[: max(0, room - 1)] + "…"


def _headline(tree: Mapping[str, Any]) -> str:
    daemon, devices = tree["daemon"], tree["devices"]
    well = sum(one["health"] == "Healthy" for one in devices)
    return (
        f"devd {daemon['version']}, pid {daemon['pid']}, up {age(daemon['uptime_s'])}: "
        f"{well} of {len(devices)} devices healthy, {len(tree['resources'])} resources"
    )


def _since(device: Mapping[str, Any]) -> str:
    since = datetime.fromisoformat(device["since"])
    return age(max(0.0, (datetime.now(UTC) - since).total_seconds()))


def _probed(device: Mapping[str, Any]) -> str:
    probe = device["last_probe"]
    return "-" if probe is None else f"{age(probe['age_s'])} ago"


def _common(device: Mapping[str, Any]) -> list[str]:
    sandbox = device["sandbox"]
    pid = device["pid"]
    return [
        _since(device),
        "-" if pid is None else str(pid),
        str(device["restarts"]),
        _probed(device),
        "-" if sandbox is None else str(sandbox["level"]),
    ]


def _table(tree: Mapping[str, Any], width: int, *, colour: bool) -> list[str]:
    head = ["RESOURCE", "DEVICE", "HEALTH", "WHY", "SINCE", "WORKER", "RESTARTS", "LAST PROBE", "SANDBOX"]
    rows = [[one["resource"], one["id"], one["health"], one["reason"] or "-", *_common(one)] for one in tree["devices"]]
    others = [max(map(len, column)) for index, column in enumerate(zip(head, *rows, strict=True)) if index != 3]
    # Resource and device give way first to a readable WHY, the resource from its front (the name stands at its end).
    room = width - sum(others) - len(GAP) * len(others)
    if room < LEAST_WHY_CHARS and others[0] > LEAST_WHY_CHARS:
        give = min(others[0] - LEAST_WHY_CHARS, LEAST_WHY_CHARS - room)
        keep = others[0] - give
        rows = [[_cut_front(row[0], keep), *row[1:]] for row in rows]
        room += give
    rows = [[*row[:3], cut(row[3], max(room, 4)), *row[4:]] for row in rows]
    return [cut(line, width) if not colour else line for line in _columns(head, rows, colour=colour)]


def _wide_table(tree: Mapping[str, Any], *, colour: bool) -> list[str]:
    head = ["RESOURCE", "DEVICE", "HEALTH", "SINCE", "WORKER", "RESTARTS", "LAST PROBE", "SANDBOX"]
    head += ["PHASE", "INC", "LEASE", "NUMA", "REPLICAS", "PROBE", "TOOK", "PATHS", "WHY"]
    rows = [[one["resource"], one["id"], one["health"], *_common(one), *_extra(one)] for one in tree["devices"]]
    lines = _columns(head, rows, colour=colour)
    for one in tree["devices"]:
        missing = (one["sandbox"] or {}).get("missing", {})
        lines += [f"{one['id']}: sandbox without {layer}: {why}" for layer, why in missing.items()]
    return lines


def _extra(device: Mapping[str, Any]) -> list[str]:
    probe, lease_s, numa = device["last_probe"], device["lease_s"], device["numa_node"]
    return [
        device["phase"] + (" (wedged)" if device["wedged"] else ""),
        str(device["incarnation"]),
        "-" if lease_s is None else age(lease_s),
        "-" if numa is None else str(numa),
        str(device["replicas"]),
        "-" if probe is None else probe["kind"],
        "-" if probe is None else age(probe["duration_s"]),
        ",".join(device["paths"]) or "-",
        device["reason"] or "-",
    ]


def _columns(head: Sequence[str], rows: Sequence[Sequence[str]], *, colour: bool) -> list[str]:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [GAP.join(f"{cell:<{room}}" for cell, room in zip(row, widths, strict=True)) for row in (head, *rows)]
    if not colour:
        return lines
    painted = [f"{BOLD}{lines[0]}{PLAIN}"]
    for row, line in zip(rows, lines[1:], strict=True):
        shade = SHADES.get(row[2], "")
        padded = f"{row[2]:<{widths[2]}}"
        painted.append(line.replace(padded, f"{shade}{padded}{PLAIN}", 1) if shade else line)
    return painted


def _resources(tree: Mapping[str, Any], *, colour: bool) -> list[str]:
    head = ["RESOURCE", "DRIVER", "HEALTHY", "OFFERED", "KUBELET", "STREAM", "REGISTRATIONS", "DISCOVERED", "SOCKET"]
    rows = []
    for one in tree["resources"]:
        registration = one["registration"] or {}
        found_s = one["discovery"]["age_s"]
        rows.append(
            [
                one["name"],
                one["driver"],
                f"{one['healthy']}/{one['devices']}",
                str(one["offered"]),
                str(registration.get("state", "-")),
                "open" if registration.get("stream_open") else "closed",
                str(registration.get("registrations", 0)),
                "-" if found_s is None else f"{age(found_s)} ago",
                str(registration.get("socket", "-")),
            ]
        )
    return ["", *_columns(head, rows, colour=colour)]


def _notes(tree: Mapping[str, Any]) -> list[str]:
    """Return what an operator should know beside the devices."""
    notes = []
    if tree["daemon"].get("config_error"):
        notes.append(f"configuration: {tree['daemon']['config_error']}")
    for one in tree["resources"]:
        registration, discovery = one["registration"] or {}, one["discovery"]
        if registration.get("last_error"):
            notes.append(f"{one['name']}: kubelet: {registration['last_error']}")
        if discovery["health"] != "Healthy" and discovery["reason"]:
            notes.append(f"{one['name']}: discovery: {discovery['reason']}")
        notes += [f"{one['name']}: {problem}" for problem in discovery["problems"]]
        if not one["devices"]:
            notes.append(f"{one['name']}: no devices match")
    return notes


def _cut_front(text: str, room: int) -> str:
    return text if len(text) <= room else "…" + text[len(text) - room + 1 :]
