"""Tries one forbidden thing from inside the sandbox, and from behind each of its layers alone.

``python -m tests.escape.inside`` reads JSON objects (attempt, arguments, kind, own, layers), one a line, and answers
each with one: for each mode ("nothing", "full", the layers' names) the errno's name, or "" where the attempt went well.
For each mode a child is forked, put behind the layers, and left to try. With ``--drop`` it has no capabilities itself.
"""

import errno
import json
import os
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from devd.ipc.messages import Device, Node, WorkerSpec
from devd.workers import linux
from devd.workers.command import CommandRunner
from devd.workers.drivers import KINDS, kind_of, make_driver
from devd.workers.hw import allowance
from devd.workers.probes.base import identity as node_identity
from devd.workers.probes.base import node_needs
from devd.workers.probes.exec import command_needs
from devd.workers.probes.registry import make_probe
from devd.workers.resets import make_reset
from devd.workers.sandbox import capabilities, identity, landlock, limits, seccomp
from devd.workers.sandbox.apply import Confinement
from devd.workers.sandbox.needs import PathNeed, SandboxNeeds
from tests.escape.attempts import ATTEMPTS
from tests.escape.scene import Scene

DEATH_S = 1.0
"""What a signalled process gets to die; it needs a millisecond."""
UID = identity.FIRST_UID + os.getpid() % identity.UIDS
"""Nobody else's: limits on processes count those of all that have the same."""


SELECTORS: dict[str, dict[str, object]] = {
    "node": {"path": ["/dev/tty*", "/dev/serial/by-id/*"]},
    "sim": {"devices": [{"name": "own", "path": "/dev/null"}]},
    "usb": {"vendor": "0403"},
    "pci": {"class": "0x030000"},
}
"""What a resource selects by; the other drivers need not be told."""
SYSFS = "/sys/devices/virtual/mem/null"
FUNCTION = {"address": "0000:00:00.0", "ids": "1:2", "driver": "planted"}
PARAMS: dict[str, dict[str, object]] = {
    "pci": {"functions": [FUNCTION]},
    "vfio": {"functions": [FUNCTION], "group": "9999"},
    "nvme": {"controllers": [{"name": "nvme9999", "sysfs": SYSFS, "serial": "x"}]},
    "usb": {"name": "9-9", "ids": "1:2", "ttys": []},
}
"""What discovery by a driver would have left for its workers; no such device is there, only the needs are looked at."""


def driver_needs(driver: str, node: Node) -> SandboxNeeds:
    """Return the needs of a worker that probes by its driver's signals and has all of the driver's resets."""
    properties = {"sysfs": SYSFS, "address": "0000:00:00.0", "minor": "9999"}
    device = Device("own", (node,), properties, params=PARAMS.get(driver, {}))
    kind = kind_of(driver)
    needs = allowance.needs_of(kind.allowed(device), device) | node_needs_of(node)
    for one in kind.resets.values():
        needs |= allowance.needs_of(one.allowed(device), device)
    return needs


GENERAL: dict[str, tuple[tuple[dict[str, object], ...], tuple[dict[str, object], ...]]] = {
    "node": (
        (
            {"kind": "exists"},
            {"kind": "open", "mode": "rw"},
            {"kind": "read"},
            {"kind": "ioctl", "request": 0x5401},
            {"kind": "sysfs", "attribute": "uevent", "matches": "DEVNAME"},
        ),
        ({"kind": "sysfs", "attribute": "uevent", "value": "change"},),
    ),
    "sim": (({"kind": "sim"},), ({"kind": "sim"},)),
}
"""Probes and resets of drivers without any of their own, all but commands, which are a worker kind of their own."""


def general_needs(driver: str, node: Node) -> SandboxNeeds:
    """Return the needs of a worker that had all these probes and resets."""
    device = Device("own", (node,), {"sysfs": SYSFS})
    needs = SandboxNeeds()
    probes, resets = GENERAL[driver]
    for probe in probes:
        for reset in (None, *resets):
            spec = WorkerSpec("worker", "own", "r", driver, 1, "", "", 1.0, 1.0, probe, reset, target=device)
            needs |= make_probe(spec, CommandRunner()).needs
            made = make_reset(spec, CommandRunner(), lambda: None)
            needs |= made.needs if made is not None else SandboxNeeds()
    return needs


def node_needs_of(node: Node) -> SandboxNeeds:
    """Return the need of one node, to read and write."""
    return SandboxNeeds((PathNeed(node.path, "rw", node, vital=True),))


def needs_of(kind: str, own: str) -> SandboxNeeds:
    """Return the needs of a worker with one node, of probe kind ``open`` or ``exec``, or of a driver, or its scout."""
    if kind.startswith("scout-"):
        driver = kind.removeprefix("scout-")
        return make_driver(driver, SELECTORS.get(driver, {})).needs
    node = Node(own, *node_identity(Path("/dev/null").stat()))
    if kind in KINDS:
        return driver_needs(kind, node)
    if kind in GENERAL:
        return general_needs(kind, node)
    spec = WorkerSpec("worker", "own", "r", "node", 1, "", "", 1.0, 1.0, {"kind": kind}, target=Device("own", (node,)))
    return command_needs(spec, "/bin/true") if kind == "exec" else node_needs(spec, "rw")


def _no_new_privileges() -> None:
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)


def _landlock(needs: SandboxNeeds) -> None:
    _no_new_privileges()
    landlock.restrict(needs.paths, landlock.abi(), tcp=False)


def _seccomp(needs: SandboxNeeds) -> None:
    _no_new_privileges()
    seccomp.restrict(needs.groups, needs.requests)


def _process_limit(needs: SandboxNeeds) -> None:
    """Limit the uid's processes: without a uid of its own that means nothing."""
    identity.become(identity.Identity(UID))
    limits.limit_processes(needs.processes)


def _full(needs: SandboxNeeds) -> None:
    confinement = Confinement("own", needs, {"uid": UID})
    confinement.before_connect()
    confinement.after_connect()


LAYERS: dict[str, Callable[[SandboxNeeds], None]] = {
    "nothing": lambda _needs: None,
    "full": _full,
    "landlock": _landlock,
    "seccomp": _seccomp,
    "identity": lambda _needs: identity.become(identity.Identity(UID)),
    "capabilities": lambda _needs: capabilities.keep_only(0, for_commands=False),
    "limits": limits.limit_use,
    "process_limit": _process_limit,
    "network_namespace": lambda _needs: limits.leave_network(),
    "undumpable": lambda _needs: linux.prctl(linux.PR_SET_DUMPABLE, 0),
}


def _child(scene: Scene, attempt: str, layer: Callable[[SandboxNeeds], None], ready: int, go: int, said: int) -> None:
    """Be the worker: confine, wait for the outside's move, try, tell the errno. An exec that works tells nothing."""
    try:
        linux.die_with_parent(scene.parent)
        scene.prepare()
        layer(scene.needs)
        os.write(ready, b"r")
        os.read(go, 1)
        ATTEMPTS[attempt].inside(scene)
        os.write(said, b"ok")
    except OSError as error:
        os.write(said, errno.errorcode.get(error.errno or 0, str(error)).encode())
    except BaseException as error:  # noqa: BLE001 - whatever it was is told
        os.write(said, repr(error).encode())
    finally:
        os._exit(0)


def _victim() -> int:
    """Return the pid of a process that waits to be a sibling's victim."""
    pid = os.fork()
    if pid == 0:
        linux.die_with_parent(os.getppid())
        signal.pause()
        os._exit(0)
    return pid


def _dies(victim: int) -> bool:
    """Return whether the victim ends; it was signalled, if at all, before the attempt's last call returned."""
    pidfd = os.pidfd_open(victim)
    try:
        return bool(select.select([pidfd], [], [], DEATH_S)[0])
    finally:
        os.close(pidfd)


def _try(attempt: str, mode: str, arguments: dict[str, str], kind: str, own: str) -> str:
    """Return the errno's name of one attempt in one mode, "" for success."""
    victim = _victim()
    scene = Scene(arguments, needs_of(kind, arguments[own]), os.getpid(), victim)
    scene.reset()
    ready_read, ready_write = os.pipe()
    go_read, go_write = os.pipe()
    said_read, said_write = os.pipe()  # none of them inheritable
    pid = os.fork()
    if pid == 0:
        os.close(ready_read)
        _child(scene, attempt, LAYERS[mode], ready_write, go_read, said_write)
    os.close(ready_write)
    os.close(said_write)
    if not os.read(ready_read, 1):
        word = f"no layer: {os.read(said_read, 4096).decode()}"
    else:
        ATTEMPTS[attempt].outside(scene)
        os.write(go_write, b"g")
        word = os.read(said_read, 4096).decode()
    for fd in (ready_read, go_read, go_write, said_read):
        os.close(fd)
    if word == "ok" and ATTEMPTS[attempt].kills and not _dies(victim):
        word = "no effect"
    os.kill(victim, signal.SIGKILL)
    linux.kill(pid)
    os.waitpid(victim, 0)
    status = os.waitpid(pid, 0)[1]
    scene.reset()
    if not word and os.WIFSIGNALED(status) and os.WTERMSIG(status) != signal.SIGKILL:
        return signal.Signals(os.WTERMSIG(status)).name
    if word == "ok" or (word == "" and ATTEMPTS[attempt].leaves):
        return ""
    return word or "ended without a word"


def main() -> None:
    """Answer requests until there are no more."""
    if "--drop" in sys.argv:  # they were needed to read this code
        capabilities.keep_only(0, for_commands=False)
    requests = os.fdopen(os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # what a victim has open is nobody's pipe
    for line in requests:
        request = json.loads(line)
        found = {
            mode: _try(request["attempt"], mode, request["arguments"], request["kind"], request["own"])
            for mode in ("nothing", "full", *request["layers"])
        }
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
