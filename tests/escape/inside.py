"""Tries one forbidden thing from inside the sandbox, and from behind each of its layers alone.

``python -m tests.escape.inside`` reads one JSON object (attempt, arguments, needs) from stdin and prints one: for each
mode ("nothing", "full", the layers' names) the errno's name, or "" where the attempt went well. For each mode a child
is forked, put behind the layers, and left to try.
"""

import errno
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from devd.ipc.messages import Device, Node, WorkerSpec
from devd.workers import linux
from devd.workers.probes.base import identity as node_identity
from devd.workers.probes.base import node_needs
from devd.workers.probes.exec import command_needs
from devd.workers.sandbox import capabilities, identity, landlock, limits, seccomp
from devd.workers.sandbox.apply import Confinement
from devd.workers.sandbox.needs import SandboxNeeds
from tests.escape.attempts import ATTEMPTS, Scene

UID = identity.FIRST_UID + 7


def needs_of(kind: str, own: str) -> SandboxNeeds:
    """Return the needs of a worker with one node, of probe kind ``open`` or ``exec``."""
    node = Node(own, *node_identity(Path("/dev/null").stat()))
    spec = WorkerSpec("worker", "own", "r", "node", 1, "", "", 1.0, 1.0, {"kind": kind}, target=Device("own", (node,)))
    return command_needs(spec, "/bin/true") if kind == "exec" else node_needs(spec, "rw")


def _no_new_privileges() -> None:
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)


def _landlock(needs: SandboxNeeds) -> None:
    _no_new_privileges()
    landlock.restrict(needs.paths, landlock.abi(), tcp=False)


def _seccomp(needs: SandboxNeeds) -> None:
    _no_new_privileges()
    seccomp.restrict(needs.groups)


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
    os.kill(victim, signal.SIGKILL)
    linux.kill(pid)
    for one in (victim, pid):
        os.waitpid(one, 0)
    scene.reset()
    if word == "ok" or (word == "" and ATTEMPTS[attempt].leaves):
        return ""
    return word or "ended without a word"


def main() -> None:
    """Answer one request."""
    request = json.load(sys.stdin)
    if request["drop"]:  # they were needed to read this code
        capabilities.keep_only(0, for_commands=False)
    found = {
        mode: _try(request["attempt"], mode, request["arguments"], request["kind"], request["own"])
        for mode in ("nothing", "full", *request["layers"])
    }
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
