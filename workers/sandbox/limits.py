"""How much of the node a worker may use up, and who goes first when there is too little of it."""

import os
import resource
from pathlib import Path

from devd.workers.sandbox import kernel
from devd.workers.sandbox.needs import WRITTEN_FILE_BYTES, SandboxNeeds

OOM_SCORE_ADJ = 500
"""Between the pods' guaranteed (-997) and best-effort (1000) classes: a worker goes before the front does."""
NICE = 5
"""A probe may be late; the front and the kubelet may not."""
RESERVED_BYTES = 1 << 30
"""Address space beyond ``memory_bytes``: the C library reserves 64 MiB a thread, drivers map their devices."""
EXEC_RESERVED_BYTES = 8 << 30
"""The same for commands: runtimes of other languages reserve gigabytes that they never touch."""

_IOPRIO_WHO_PROCESS = 1
_IOPRIO_LOWEST_BEST_EFFORT = 2 << 13 | 7
_CLONE_NEWNET = 0x40000000


def limit_core() -> None:
    """Leave no memory image behind: it may hold what the device told. Raises OSError."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def limit_use(needs: SandboxNeeds) -> None:
    """Bound memory, open files and the size of files. Raises OSError."""
    reserved = EXEC_RESERVED_BYTES if needs.executes else RESERVED_BYTES
    _lower(resource.RLIMIT_DATA, needs.memory_bytes)
    _lower(resource.RLIMIT_AS, needs.memory_bytes + reserved)
    _lower(resource.RLIMIT_NOFILE, needs.files)
    _lower(resource.RLIMIT_FSIZE, WRITTEN_FILE_BYTES if needs.writes_files else 0)
    _lower(resource.RLIMIT_MSGQUEUE, 0)


def limit_processes(most: int) -> None:
    """Bound the processes and threads of this uid: of use only where no other process has it. Raises OSError."""
    _lower(resource.RLIMIT_NPROC, most)


def die_first() -> None:
    """Raise the OOM score; lowering one that the container set higher would need a capability. Raises OSError."""
    fd = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)  # half a millisecond less than Path's two
    try:
        if int(os.read(fd, 16)) < OOM_SCORE_ADJ:
            os.pwrite(fd, str(OOM_SCORE_ADJ).encode(), 0)
    finally:
        os.close(fd)


def be_nice() -> None:
    """Yield the processor to others. Raises OSError."""
    os.setpriority(os.PRIO_PROCESS, 0, max(NICE, os.getpriority(os.PRIO_PROCESS, 0)))


def be_nice_to_disks() -> None:
    """Yield disks to others, where their scheduler looks at it. Raises OSError."""
    kernel.call("ioprio_set", _IOPRIO_WHO_PROCESS, 0, _IOPRIO_LOWEST_BEST_EFFORT)


def leave_network() -> None:
    """Enter a network namespace without interfaces. Raises OSError."""
    kernel.call("unshare", _CLONE_NEWNET)


def join_cgroup(folder: str, needs: SandboxNeeds) -> None:
    """Bound memory and processes by a cgroup (version 2) that the front made for this worker alone. Raises OSError."""
    group = Path(folder)
    (group / "memory.max").write_bytes(str(needs.memory_bytes).encode())
    (group / "pids.max").write_bytes(str(needs.processes).encode())
    (group / "cgroup.procs").write_bytes(b"0")


def _lower(which: int, most: int) -> None:
    """Set soft and hard limit; one that is lower already stays."""
    _soft, hard = resource.getrlimit(which)
    value = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(which, (value, value))
