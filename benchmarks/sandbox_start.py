"""What the sandbox adds to a worker's start: forks children that put it on, and children that do not, in turns.

``python -m benchmarks.sandbox_start COUNT`` prints one JSON object: for each kind of worker, the cheapest and those of
every driver with all of its resets, the seconds from fork to ready of each child, the seconds of processor time they
took it, and the level its sandbox reached; "bare" is a child without any. A process of its own, because it forks: it
must have no threads.
"""

import gc
import json
import os
import sys
import time
from dataclasses import dataclass, field

from devd.ipc.messages import Device, Node, WorkerSpec
from devd.workers.drivers import KINDS, make_driver
from devd.workers.hw.allowance import needs_of
from devd.workers.probes.base import node_needs
from devd.workers.probes.exec import command_needs
from devd.workers.sandbox import capabilities, seccomp
from devd.workers.sandbox.apply import Confinement
from devd.workers.sandbox.identity import FIRST_UID
from devd.workers.sandbox.needs import SandboxNeeds
from devd.workers.sandbox.runtime import python_runtime

NULL = Node("/dev/null", "char", 1, 3)
SYSFS = "/sys/devices/virtual/mem/null"
FUNCTION = {"address": "0000:00:00.0", "ids": "1:2", "driver": "planted"}
DEVICE = Device(
    "null",
    (NULL,),
    {"sysfs": SYSFS, "address": "0000:00:00.0", "minor": "9999"},
    params={
        "functions": [FUNCTION],
        "group": "9999",
        "controllers": [{"name": "nvme9999", "sysfs": SYSFS, "serial": "x"}],
        "name": "9-9",
        "ids": "1:2",
        "ttys": [],
    },
)
"""What every driver's discovery would have left for its workers: needs are made of it, no such device is there."""
SPEC = WorkerSpec("worker", "null", "r", "node", 1, "", "", 1.0, 1.0, {}, target=DEVICE)
OPTIONS = {"uid": FIRST_UID}
"""The front hands each worker its uid."""


@dataclass
class Starts:
    """The starts of one kind of worker, one entry each."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    level: str = "none"


def workers() -> dict[str, SandboxNeeds]:
    """Return the kinds of workers and what each declares."""
    found = {"open": node_needs(SPEC, "r"), "exec": command_needs(SPEC, "/bin/true")}
    for name, kind in KINDS.items():
        found[f"driver {name}"] = needs_of(kind.allowed(DEVICE), DEVICE)
        for reset in kind.resets.values():
            found[f"driver {name}"] |= needs_of(reset.allowed(DEVICE), DEVICE)
    found["scout"] = make_driver("node", {"path": ["/dev/null"]}).needs
    return {name: needs | SandboxNeeds(python_runtime("r")) for name, needs in found.items()}


def main() -> None:
    """Measure and print."""
    kinds = workers()
    for groups in seccomp.USUAL:
        seccomp.prepare(groups)
    capabilities.prepare()
    gc.collect()
    gc.freeze()  # as the fork server does
    starts = {name: Starts() for name in ("bare", *kinds)}
    for _ in range(int(sys.argv[1])):
        for name, found in starts.items():
            _start(kinds.get(name), found)
    json.dump({name: vars(found) for name, found in starts.items()}, sys.stdout)


def _start(needs: SandboxNeeds | None, found: Starts) -> None:
    """Fork one child and take note of what its start took."""
    said_read, said_write = os.pipe()
    began_s = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        level = "none"
        if needs is not None:
            confinement = Confinement("bench", needs, OPTIONS)
            confinement.before_connect()
            level = confinement.after_connect().level
        os.write(said_write, f"{time.process_time()} {level}".encode())
        os._exit(0)
    processor_s, found.level = os.read(said_read, 64).decode().split()
    found.wall.append(time.perf_counter() - began_s)
    found.processor.append(float(processor_s))
    os.waitpid(pid, 0)
    os.close(said_read)
    os.close(said_write)


if __name__ == "__main__":
    main()
