"""The basic layers every worker puts itself behind before it touches its device, and a report of how that went.

Each layer is tried; one that is refused is reported, never fatal: a worker in a default container is worth more than
none. What a layer takes from the worker is taken from its probes' commands as well.
"""

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path

from devd.ipc.messages import Sandbox
from devd.workers import linux

OOM_SCORE_ADJ = 500
"""Between the pods' guaranteed (-997) and best-effort (1000) classes: a worker goes before the front does."""
MEMORY_BYTES = 512 * 1024 * 1024
"""Private writable memory, getrlimit(2) RLIMIT_DATA: thread stacks count whole, and a vendor library has its own."""
NICE = 5
"""A probe may be late; the front and the kubelet may not."""


def apply_basic() -> Sandbox:
    """Apply all basic layers to this process and report them."""
    active: list[str] = []
    missing: dict[str, str] = {}
    for name, layer in _LAYERS:
        try:
            layer()
        except OSError as error:
            missing[name] = f"{errno.errorcode.get(error.errno or 0, 'error')}: {error.strerror or error}"
        else:
            active.append(name)
    return Sandbox(level="basic", active=tuple(active), missing=missing)


def _no_core() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _bound_memory() -> None:
    """Bound what the worker itself may take, short of what would set the kernel looking for a victim."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))


def _die_first() -> None:
    """Raise the OOM score; lowering one that the container set higher would need a capability."""
    path = Path("/proc/self/oom_score_adj")
    if int(path.read_text()) < OOM_SCORE_ADJ:
        path.write_text(str(OOM_SCORE_ADJ))


def _be_nice() -> None:
    os.setpriority(os.PRIO_PROCESS, 0, max(NICE, os.getpriority(os.PRIO_PROCESS, 0)))


def _no_new_privileges() -> None:
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)


def _undumpable() -> None:
    linux.prctl(linux.PR_SET_DUMPABLE, 0)


_LAYERS: tuple[tuple[str, Callable[[], None]], ...] = (
    ("no_core", _no_core),
    ("memory", _bound_memory),
    ("oom_score", _die_first),
    ("nice", _be_nice),
    ("no_new_privs", _no_new_privileges),
    # Last: it hands /proc/self to root, and the OOM score is written there.
    ("undumpable", _undumpable),
)
