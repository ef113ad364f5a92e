"""The demo's picture: what the kubelet sees next to what devd says. Pure: values in, lines out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

GREEN, RED, DIM, BOLD, PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[2m", "\x1b[1m", "\x1b[0m"

DEVICE_CHARS = 16
RESOURCE_CHARS = 22
HEALTH_CHARS = 10
STORY_LINES = 12


@dataclass(frozen=True, slots=True)
class Line:
    """One device: the kubelet's word and devd's."""

    resource: str
    device: str
    kubelet: str
    devd: str
    phase: str
    pid: int | None
    restarts: int
    reason: str


def lines(kubelet: Mapping[str, Mapping[str, str]], status: Mapping[str, object] | None) -> list[Line]:
    """Join the kubelet's view (resource -> device -> health) with a status tree of devd (None: no answer)."""
    devices = status.get("devices", []) if status else []
    said = {str(one["id"]): one for one in devices} if isinstance(devices, list) else {}
    names = [(resource, device) for resource, health in kubelet.items() for device in health]
    names += [(str(one["resource"]), device) for device, one in said.items() if ("", device) not in names]
    found: dict[str, Line] = {}
    for resource, device in names:
        one = said.get(device, {})
        found[device] = Line(
            resource=resource.partition("/")[2],
            device=device,
            kubelet=kubelet.get(resource, {}).get(device, "-"),
            devd=str(one.get("health", "-")),
            phase=str(one.get("phase", "-")),
            pid=one.get("pid"),
            restarts=int(one.get("restarts", 0)),
            reason=str(one.get("reason", "")),
        )
    return list(found.values())


def table(rows: Sequence[Line], width: int, *, colour: bool) -> list[str]:
    """Return the table's lines, none wider than ``width`` characters."""
    head = (
        f"{'RESOURCE':<{RESOURCE_CHARS}} {'DEVICE':<{DEVICE_CHARS}} {'KUBELET':<{HEALTH_CHARS}} "
        f"{'DEVD':<{HEALTH_CHARS}} {'WORKER':>7} {'RESTARTS':>8}  WHY"
    )
    return [_paint(head[:width], BOLD, colour=colour), *(_row(row, width, colour=colour) for row in rows)]


def _row(row: Line, width: int, *, colour: bool) -> str:
    pid = "-" if row.pid is None else str(row.pid)
    start = f"{_cut(row.resource, RESOURCE_CHARS):<{RESOURCE_CHARS}} {_cut(row.device, DEVICE_CHARS):<{DEVICE_CHARS}} "
    middle = f" {pid:>7} {row.restarts:>8}  "
    room = width - len(start) - 2 * HEALTH_CHARS - 1 - len(middle)
    why = _cut(row.reason if row.devd != "Healthy" else "", max(0, room))
    return (
        f"{start}{_health(row.kubelet, colour=colour)} {_health(row.devd, colour=colour)}"
        f"{middle}{_paint(why, DIM, colour=colour)}"
    ).rstrip()


def _health(word: str, *, colour: bool) -> str:
    padded = f"{word:<{HEALTH_CHARS}}"
    shade = {"Healthy": GREEN, "Unhealthy": RED}.get(word)
    return padded if shade is None else _paint(padded, shade, colour=colour)


def _paint(text: str, shade: str, *, colour: bool) -> str:
    return f"{shade}{text}{PLAIN}" if colour and text else text


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: max(0, room - 1)] + "…"


def frame(title: str, rows: Sequence[Line], story: Sequence[str], size: tuple[int, int], *, colour: bool) -> str:
    """Return a whole screen of ``size`` (columns, rows); the newest of the story stand at the bottom."""
    width, height = size
    above = [_paint(_cut(title, width), BOLD, colour=colour), "", *table(rows, width, colour=colour), ""]
    room = max(0, min(STORY_LINES, height - len(above) - 1))
    told = [_cut(line, width) for line in story[-room:]] if room else []
    return "\n".join([*above, *told])
