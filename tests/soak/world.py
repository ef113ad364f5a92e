"""The world of a soak: 32 devices of three kinds, their configuration, and how devd stands in it."""

import os
from dataclasses import dataclass
from pathlib import Path

from devd.daemon.demo.rig import Rig
from tests.faults.worlds import alive

WELL = "soak.devd.io/well"
SICK = "soak.devd.io/sick"
FILES = "soak.devd.io/files"
WELL_COUNT, FILE_COUNT = 16, 6

QUICK = "restart: {intensity: 1000, backoff: 50ms, backoff_max: 500ms}"
SICKNESSES = (
    "[{for: 3s, do: pass}, {for: 1s, do: fail, reason: as told}]",
    "[{for: 5s, do: pass}, {do: hang}]",
    "[{for: 4s, do: pass}, {do: segv}]",
    "[{for: 4s, do: pass}, {do: exit}]",
    "[{for: 6s, do: pass}, {do: exception}]",
    "[{for: 7s, do: pass}, {do: oom}]",
    "[{for: 6s, do: pass}, {for: 2s, do: flood}]",
    "[{for: 5s, do: pass}, {do: misbehave, how: garbage}]",
    "[{for: 6s, do: pass}, {do: misbehave, how: spoof, reason: well-0}]",
    "[{for: 3s, do: pass}, {for: 2s, do: slow}]",
)


def config(files: Path, *, calm: bool = False) -> str:
    """Return the configuration; ``calm``: the same devices, all of them well."""
    sick = ", ".join(
        f"{{name: sick-{number}" + ("" if calm else f", script: {script}") + "}"
        for number, script in enumerate(SICKNESSES)
    )
    return f"""resources:
  - name: {WELL}
    driver: sim
    match: {{count: {WELL_COUNT}, prefix: well-}}
    replicas: 2
    probe: {{kind: sim, period: 300ms, timeout: 2s}}
    reset: {{kind: sim, takes: 20ms, timeout: 5s}}
    flap: {{count: 50, within: 10s, hold: 1s}}
    {QUICK}
  - name: {SICK}
    driver: sim
    match: {{devices: [{sick}]}}
    probe: {{kind: sim, period: 300ms, timeout: 700ms}}
    {QUICK}
  - name: {FILES}
    driver: node
    match: {{path: "{files}/dev-*", type: any}}
    probe: {{kind: exists, period: 300ms, timeout: 2s}}
    discovery: {{period: 2s, linger: 1s}}
    {QUICK}
"""


@dataclass(frozen=True, slots=True)
class Stand:
    """What devd holds: descriptors and threads of the front, processes, sockets, resident memory in MiB."""

    descriptors: int
    threads: int
    processes: int
    sockets: int
    resident_mib: float


def stand(rig: Rig) -> Stand:
    """Return how devd stands now."""
    status = Path(f"/proc/{rig.pid}/status").read_text(encoding="utf-8")
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return Stand(
        descriptors=len(os.listdir(f"/proc/{rig.pid}/fd")),  # noqa: PTH208 - a count is all that is wanted
        threads=int(fields["Threads"]),
        processes=len(family(rig.pid)),
        sockets=len(list(rig.layout.commands.iterdir())),
        resident_mib=int(fields["VmRSS"].split()[0]) / 1024,
    )


def family(pid: int) -> list[int]:
    """Return the pids of all descendants of a process, zombies included."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            parents[int(entry.name)] = int(text.rpartition(")")[2].split()[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def doubled(rig: Rig) -> list[str]:
    """Return devices that have more than one live process, by the names of devd's processes."""
    names: list[str] = []
    for pid in family(rig.pid):
        try:
            name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
        except OSError:
            continue
        # Names are cut to 14 characters: those of files begin alike.
        if name.startswith(("devd-well", "devd-sick")) and alive(pid):
            names.append(name)
    return sorted({name for name in names if names.count(name) > 1})
