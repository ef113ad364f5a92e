"""Driver ``node``: every device node that a glob matches is a device. Nothing is opened."""

import os
import stat
from collections.abc import Collection, Mapping
from pathlib import Path

from devd.ipc.messages import Device, Node, NodeKind
from devd.ipc.patterns import matches
from devd.workers import sysfs
from devd.workers.drivers import globs
from devd.workers.drivers.base import Found, device_id
from devd.workers.errors import SpecError, explain
from devd.workers.params import Params
from devd.workers.probes.base import identity
from devd.workers.sandbox.needs import PathNeed, SandboxNeeds

_KINDS: tuple[tuple[int, str], ...] = (
    (stat.S_IFREG, "regular file"),
    (stat.S_IFIFO, "pipe"),
    (stat.S_IFSOCK, "socket"),
)


class NodeDriver:
    """One resource's globs. ``type: any`` takes every file that is no directory, else only device nodes count."""

    def __init__(self, match: Mapping[str, object]) -> None:
        params = Params("match", match)
        self._patterns = params.texts("path")
        self._exclude = params.texts("exclude")
        self._any = params.choice("type", ("device", "any"), "device") == "any"
        if not self._patterns:
            raise SpecError("match.path: nothing found, a glob or a list of globs is needed")
        for pattern in (*self._patterns, *self._exclude):
            if not pattern.startswith("/"):
                raise SpecError(f"match: {pattern!r} found, an absolute path is needed")
        self.leave_alone: frozenset[str] = frozenset()
        self.uevents: Collection[str] = ()
        self.what = self._patterns[0]
        folders = dict.fromkeys(globs.fixed_part(one) for one in self._patterns)
        paths = [PathNeed(folder, "r", vital=True) for folder in folders]
        self.needs = SandboxNeeds((*paths, PathNeed(sysfs.ROOT, "r")), frozenset({"watch"}))

    def discover(self) -> Found:
        """Expand the globs in their order and look at each file."""
        expansion = globs.Expansion(self.leave_alone)
        for pattern in self._patterns:
            expansion.add(pattern)
        scan = _Scan(expansion.problems, take_any=self._any)
        for path in dict.fromkeys(expansion.paths):
            if path not in self.leave_alone and not any(matches(path, pattern) for pattern in self._exclude):
                scan.look(path, named=path in self._patterns)
        return Found(tuple(scan.devices), tuple(dict.fromkeys(scan.problems)), tuple(expansion.directories))


class _Scan:
    """The files of one scan: two paths to one node are one device, the first path's."""

    def __init__(self, problems: list[str], *, take_any: bool) -> None:
        self.devices: list[Device] = []
        self.problems = problems
        self._take_any = take_any
        self._seen: dict[tuple[NodeKind, int, int], str] = {}

    def look(self, path: str, *, named: bool) -> None:
        try:
            status = os.stat(path)  # noqa: PTH116 - the call's name stands in the problem
        except FileNotFoundError:
            return  # vanished, or a dangling link: the next scan sees what becomes of it
        except OSError as error:
            self.problems.append(explain("stat", path, error))
            return
        if not self._wanted(path, status, named=named):
            return
        who = identity(status)
        first = self._seen.setdefault(who, path)
        if first != path:
            self.problems.append(f"{path} is the same device as {first}: offered once, as {first}")
            return
        self.devices.append(_device(path, Node(path, *who)))

    def _wanted(self, path: str, status: os.stat_result, *, named: bool) -> bool:
        if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            return True
        if stat.S_ISDIR(status.st_mode):
            if named:
                self.problems.append(f"{path} is a directory: skipped")
            return False
        if self._take_any:
            return True
        # Often a stray file that someone wrote while the node was away.
        kind = next((name for mode, name in _KINDS if stat.S_IFMT(status.st_mode) == mode), "file")
        self.problems.append(f"{path} is a {kind}, no device node: skipped ('type: any' would take it)")
        return False


def _device(path: str, node: Node) -> Device:
    properties: dict[str, str] = {}
    numa_node = None
    if node.kind != "other":
        folder = sysfs.folder_of(node)
        properties = _properties(folder)
        numa_node = _numa_node(folder)
    return Device(device_id(path), (node,), properties, numa_node)


def _properties(folder: str) -> dict[str, str]:
    """Return what sysfs tells: kernel directory, subsystem, driver. Empty for a node without an entry there."""
    if not Path(folder).exists():
        return {}
    found = {"sysfs": os.path.realpath(folder)}
    for name, link in (("subsystem", f"{folder}/subsystem"), ("driver", f"{folder}/device/driver")):
        try:
            found[name] = os.readlink(link).rpartition("/")[2]  # noqa: PTH115 - text is wanted
        except OSError:
            continue  # this device has none
    return found


def _numa_node(folder: str) -> int | None:
    """Return the NUMA node of the device's parent; None where there is none, which the kernel writes as -1."""
    try:
        number = int(sysfs.read(f"{folder}/device/numa_node"))
    except (OSError, ValueError):
        return None
    return number if number >= 0 else None
