"""A cgroup (version 2) for each worker, below the one that was delegated to this devd.

The front makes and removes the directories; a worker bounds its own and moves itself in before it gives up its rights
(``workers.sandbox.limits.join_cgroup``). It is done only where ``--cgroup`` says so: in a container the kubelet's exec
probes join the container's own cgroup, which may hold no processes once its children are bounded.
"""

import hashlib
import logging
import os
from contextlib import suppress
from pathlib import Path

HIERARCHY = Path("/sys/fs/cgroup")
CONTROLLERS = ("memory", "pids")
FRONT = "front"
"""The leaf of devd itself and its fork server: a cgroup with bounded children has no processes of its own."""
_NAME_BYTES = 8

log = logging.getLogger("devd")


class Cgroups:
    """The workers' cgroups. ``problem`` says why there are none."""

    def __init__(self, own: Path | None, problem: str = "") -> None:
        self._own = own
        self._made: set[str] = set()
        self.problem = problem

    @classmethod
    def here(cls, hierarchy: Path = HIERARCHY, membership: Path = Path("/proc/self/cgroup")) -> "Cgroups":
        """Take this process's cgroup over; where it was not delegated, each worker lacks the layer for that reason.

        To be called before there is a second process. Never raises.
        """
        try:
            own = _own(hierarchy, membership)
            _divide(own)
        except OSError as error:
            problem = f"{error.filename or hierarchy}: {error.strerror or error}"
            log.warning("workers have no cgroups of their own: %s (systemd: Delegate=yes)", problem)
            return cls(None, problem)
        return cls(own)

    def options(self, device: str) -> dict[str, object]:
        """Return what the sandbox of a device's worker is told; the directory is made."""
        if self._own is None:
            return {"no_cgroup": self.problem} if self.problem else {}
        folder = self._own / _name(device)
        # What fails here the worker meets again, and tells.
        with suppress(OSError):
            folder.mkdir(exist_ok=True)
            self._made.add(device)
        return {"cgroup": str(folder)}

    def remove(self, device: str) -> None:
        """Remove a device's cgroup; one that a process is still in stays for the next devd's use."""
        if self._own is not None and device in self._made:
            self._made.discard(device)
            with suppress(OSError):
                (self._own / _name(device)).rmdir()

    def close(self) -> None:
        """Remove all of them."""
        for device in tuple(self._made):
            self.remove(device)


def _own(hierarchy: Path, membership: Path) -> Path:
    """Return this process's cgroup of version 2, that of devd as a whole. Raises OSError."""
    lines = membership.read_text(encoding="utf-8").splitlines()
    path = next((line[3:] for line in lines if line.startswith("0::")), None)
    if path is None or not (hierarchy / "cgroup.controllers").exists():
        raise OSError(0, "no cgroup hierarchy of version 2 is mounted there", str(hierarchy))
    own = hierarchy / path.lstrip("/")
    return own.parent if own.name == FRONT else own


def _divide(own: Path) -> None:
    """Move this process into a leaf of its own and have the children bounded. Raises OSError."""
    offered = (own / "cgroup.controllers").read_text(encoding="utf-8").split()
    if missing := [one for one in CONTROLLERS if one not in offered]:
        raise OSError(0, f"the controllers {' and '.join(missing)} are not delegated", str(own))
    front = own / FRONT
    front.mkdir(exist_ok=True)
    (front / "cgroup.procs").write_text(str(os.getpid()), encoding="utf-8")
    (own / "cgroup.subtree_control").write_text(" ".join(f"+{one}" for one in CONTROLLERS), encoding="utf-8")


def _name(device: str) -> str:
    """Return a directory's name for a device, which may be called anything."""
    return f"worker-{hashlib.blake2b(device.encode(), digest_size=_NAME_BYTES).hexdigest()}"
