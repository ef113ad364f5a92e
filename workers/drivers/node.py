"""Driver ``node``: each device node that a glob matches is a device, or a group of them is. Nothing is opened."""

import fnmatch
import os
import stat
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from devd.ipc.messages import Device, Node, NodeKind
from devd.ipc.patterns import matches
from devd.workers import sysfs
from devd.workers.drivers import globs
from devd.workers.drivers.base import Found, device_id
from devd.workers.errors import SpecError, explain
from devd.workers.hw import node_properties
from devd.workers.params import Params
from devd.workers.probes.base import identity
from devd.workers.sandbox.needs import PathNeed, SandboxNeeds

_KINDS: tuple[tuple[int, str], ...] = (
    (stat.S_IFREG, "regular file"),
    (stat.S_IFIFO, "pipe"),
    (stat.S_IFSOCK, "socket"),
)


class NodeDriver:
    """One resource's globs, or its groups of globs.

    ``type: any`` takes every file that is no directory, else only device nodes count. ``properties`` are what a node
    must have, ``exclude_properties`` what it must not. ``root`` is where sysfs and udev's database are looked for.
    """

    def __init__(self, match: Mapping[str, object], *, root: Path = Path("/")) -> None:
        params = Params("match", match)
        self._patterns = params.texts("path")
        self._groups = {one.text("name"): one.texts("path") for one in params.maps("groups")}
        self._exclude = params.texts("exclude")
        self._any = params.choice("type", ("device", "any"), "device") == "any"
        self._selection = _Selection(match)
        self._root = root
        every = [*self._patterns, *(one for patterns in self._groups.values() for one in patterns)]
        if bool(self._patterns) == bool(self._groups) or not all(self._groups.values()):
            raise SpecError("match: either path or groups, each with a path, is needed")
        for pattern in (*every, *self._exclude):
            if not pattern.startswith("/"):
                raise SpecError(f"match: {pattern!r} found, an absolute path is needed")
        self.leave_alone: frozenset[str] = frozenset()
        self.baseline: Mapping[str, object] = {}
        self.uevents: Collection[str] = ()
        self.watches = True
        self.what = every[0]
        folders = dict.fromkeys(globs.fixed_part(one) for one in every)
        paths = [PathNeed(folder, "l", vital=True) for folder in folders]
        more = [PathNeed(sysfs.ROOT, "r"), PathNeed(f"/{node_properties.UDEV}", "r")]
        self.needs = SandboxNeeds((*paths, *more), frozenset({"watch"}))

    def discover(self) -> Found:
        """Expand the globs in their order and look at each file."""
        expansion = globs.Expansion(self.leave_alone)
        scan = _Scan(expansion.problems, take_any=self._any)
        devices = self._grouped(expansion, scan) if self._groups else self._single(expansion, scan)
        directories = list(expansion.directories)
        if self._selection.asks_udev:
            # Its rules are done a moment after the node is there.
            directories.append(self._root / node_properties.UDEV)
        return Found(tuple(devices), tuple(dict.fromkeys(scan.problems)), tuple(directories))

    def _single(self, expansion: globs.Expansion, scan: "_Scan") -> list[Device]:
        for pattern in self._patterns:
            expansion.add(pattern)
        found = []
        for path in dict.fromkeys(expansion.paths):
            if path not in self.leave_alone and not self._excluded(path):
                node = scan.look(path, named=path in self._patterns)
                found += [] if node is None else self._device(device_id(path), (node,))
        return found

    def _grouped(self, expansion: globs.Expansion, scan: "_Scan") -> list[Device]:
        found = []
        for name, patterns in self._groups.items():
            paths = {pattern: self._expanded(expansion, pattern) for pattern in patterns}
            every = dict.fromkeys(path for some in paths.values() for path in some)
            if not self.leave_alone.isdisjoint(every):
                continue
            nodes = {path: node for path in every if (node := scan.look(path, named=path in patterns)) is not None}
            missing = [pattern for pattern, some in paths.items() if nodes.keys().isdisjoint(some)]
            if missing:
                scan.problems.append(f"{name}: {', '.join(missing)} is missing: not offered without it")
            else:
                found += self._device(name, tuple(nodes.values()))
        return found

    def _expanded(self, expansion: globs.Expansion, pattern: str) -> list[str]:
        before = len(expansion.paths)
        expansion.add(pattern)
        return [path for path in expansion.paths[before:] if not self._excluded(path)]

    def _excluded(self, path: str) -> bool:
        return any(matches(path, pattern) for pattern in self._exclude)

    def _device(self, name: str, nodes: tuple[Node, ...]) -> list[Device]:
        """Return a device if its first node has the properties that are wanted."""
        properties = node_properties.of_node(self._root, nodes[0], self._selection.names)
        if not self._selection.takes(properties):
            return []
        kept = {key: value for key, value in properties.items() if key not in self._selection.hidden}
        return [Device(name, nodes, kept, node_properties.numa_node(self._root, nodes[0]))]


class _Selection:
    """Globs on properties; one that a node does not have fits none."""

    def __init__(self, match: Mapping[str, object]) -> None:
        self._include = _globs(match, "properties")
        self._exclude = _globs(match, "exclude_properties")
        self.names = tuple(dict.fromkeys((*self._include, *self._exclude)))
        self.hidden = set(self._exclude) - set(self._include) - {"sysfs", "subsystem", "driver"}

    @property
    def asks_udev(self) -> bool:
        """Return whether udev's database counts."""
        return any(name.isupper() for name in self.names)

    def takes(self, properties: Mapping[str, str]) -> bool:
        """Return whether a node with these properties is meant."""
        return all(_fits(properties.get(key), globs) for key, globs in self._include.items()) and not any(
            _fits(properties.get(key), globs) for key, globs in self._exclude.items()
        )


def _globs(match: Mapping[str, object], key: str) -> dict[str, list[str]]:
    found = match.get(key) or {}
    if not isinstance(found, Mapping):
        raise SpecError(f"match.{key}: {found!r:.80} found, a map is needed")
    params = Params(f"match.{key}", found)
    return {name: params.texts(name) for name in found}


def _fits(value: str | None, patterns: Sequence[str]) -> bool:
    return value is not None and any(fnmatch.fnmatchcase(value, one) for one in patterns)


class _Scan:
    """The files of one scan: two paths to one node are one device, the first path's."""

    def __init__(self, problems: list[str], *, take_any: bool) -> None:
        self.problems = problems
        self._take_any = take_any
        self._seen: dict[tuple[NodeKind, int, int], str] = {}

    def look(self, path: str, *, named: bool) -> Node | None:
        """Return a file as a node, None (with a problem where somebody should know) if it does not count."""
        try:
            status = os.stat(path)  # noqa: PTH116 - the call's name stands in the problem
        except FileNotFoundError:
            return None  # vanished, or a dangling link: the next scan sees what becomes of it
        except OSError as error:
            self.problems.append(explain("stat", path, error))
            return None
        if not self._wanted(path, status, named=named):
            return None
        who = identity(status)
        first = self._seen.setdefault(who, path)
        if first != path:
            self.problems.append(f"{path} is the same device as {first}: offered once, as {first}")
            return None
        return Node(path, *who)

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
