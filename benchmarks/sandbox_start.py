"""What the sandbox adds to a worker's start: forks children that put it on, and children that do not, in turns.

``python -m benchmarks.sandbox_start COUNT`` prints one JSON object: the seconds from fork to ready of each child, and
the level the sandbox reached. A process of its own, because it forks: it must have no threads.
"""

import gc
import json
import os
import sys
import time

from devd.ipc.messages import Device, Node, WorkerSpec
from devd.workers.probes.base import node_needs
from devd.workers.sandbox import capabilities, seccomp
from devd.workers.sandbox.apply import Confinement
from devd.workers.sandbox.needs import SandboxNeeds
from devd.workers.sandbox.runtime import python_runtime

NULL = Node("/dev/null", "char", 1, 3)
SPEC = WorkerSpec("worker", "null", "r", "node", 1, "", "", 1.0, 1.0, {}, target=Device("null", (NULL,)))


def main() -> None:
    """Measure and print."""
    needs = node_needs(SPEC, "r") | SandboxNeeds(python_runtime("r"))
    seccomp.prepare(frozenset())
    capabilities.prepare()
    gc.collect()
    gc.freeze()  # as the fork server does
    took: dict[str, list[float]] = {"bare": [], "sandboxed": []}
    levels = set()
    for _ in range(int(sys.argv[1])):
        took["bare"].append(_start(None)[0])
        seconds, level = _start(needs)
        took["sandboxed"].append(seconds)
        levels.add(level)
    json.dump({**took, "level": ", ".join(sorted(levels))}, sys.stdout)


def _start(needs: SandboxNeeds | None) -> tuple[float, str]:
    """Return the seconds until a child was ready, and the level it reached."""
    said_read, said_write = os.pipe()
    began_s = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        level = "none"
        if needs is not None:
            confinement = Confinement("bench", needs, {})
            confinement.before_connect()
            level = confinement.after_connect().level
        os.write(said_write, level.encode())
        os._exit(0)
    level = os.read(said_read, 64).decode()
    took_s = time.perf_counter() - began_s
    os.waitpid(pid, 0)
    os.close(said_read)
    os.close(said_write)
    return took_s, level


if __name__ == "__main__":
    main()
