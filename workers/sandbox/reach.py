"""Where a scout's word may lead a worker: all links followed, below its driver's places and nowhere else.

A worker's paths are made of what discovery says of its device. A scout that was taken over must not choose what the
next worker may read or write by it, so each such path is looked at once more where it becomes a rule. What the operator
opened by name is his affair, and what a driver names whatever the device is stands among its places.
"""

import os
import re
from collections.abc import Iterable, Mapping

from devd.workers.errors import OutOfReachError
from devd.workers.params import Params
from devd.workers.sandbox.needs import PathNeed, SandboxNeeds

PLACES = ("/sys", "/dev")
"""Where the kernel shows devices: a driver's places unless it says more."""
NODES = "/dev"
FOR_ALL = ("/proc/sys/kernel/random/boot_id",)
"""What any driver may read: a counter's baseline holds for one boot."""
NOT_WRITTEN = ("/dev", "/proc")
"""Places in which no file is written for being a driver's: nodes are opened as such, the rest is the whole system's."""
NEVER = ("/etc", "/root", "/home", "/var", "/boot", "/usr")
"""Where nobody's device lies; an operator whose globs begin in there offers what is there."""
_A_PROCESS = re.compile(r"/proc/[0-9]+(/.*)?")


def check(needs: SandboxNeeds, options: Mapping[str, object]) -> None:
    """Raise OutOfReachError for the first path that leads where no device of its worker lies.

    ``options`` are the operator's (``WorkerSpec.sandbox``).
    """
    params = Params("sandbox", options)
    writes = [os.path.realpath(path) for path in params.texts("write")]
    reads = [*writes, *(os.path.realpath(path) for path in params.texts("read"))]
    for need in needs.paths:
        if need.places is None and need.node is None:
            continue  # nothing that a scout said
        real = os.path.realpath(need.path)
        opened = writes if "w" in need.rights else reads
        if not _is_below(real, opened) and not _may_lead_to(need, real):
            leads = "" if real == need.path else f", which leads to {real}"
            raise OutOfReachError(f"discovery named {need.path}{leads}: no device lies there, it is not opened")


def _may_lead_to(need: PathNeed, real: str) -> bool:
    if _A_PROCESS.fullmatch(real):
        return False
    if need.places is None:
        return _is_its_node(need.path, real)
    if "i" in need.rights:
        return _is_below(real, (NODES,))
    if "w" in need.rights:
        return _is_below(real, (place for place in need.places if not _is_below(place, NOT_WRITTEN)))
    return _is_below(real, (*need.places, *FOR_ALL))


def _is_its_node(path: str, real: str) -> bool:
    """Return whether a node that the selector names may lie there: below /dev, or where the operator's glob begins."""
    if _is_below(real, (NODES,)):
        return True
    folder = os.path.realpath(os.path.dirname(path))  # noqa: PTH120 - text paths throughout
    strange = [place for place in NEVER if _is_below(real, (place,)) and not _is_below(folder, (place,))]
    return not strange and not _is_below(path, (NODES,))


def _is_below(path: str, places: Iterable[str]) -> bool:
    return any(path == place or path.startswith(f"{place.rstrip('/')}/") for place in places)
