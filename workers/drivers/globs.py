"""Glob patterns, telling what the standard library's do not: which directories decided, and which were refused.

``*``, ``?`` and ``[...]`` match within one path component, ``**`` alone in a component matches any depth of
directories. A name that begins with a dot is matched by a pattern that does so too.
"""

import fnmatch
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from devd.ipc.patterns import has_magic
from devd.workers.errors import explain

MAX_DEPTH = 16
"""How deep ``**`` goes."""


@dataclass
class Expansion:
    """What patterns matched. Paths are sorted within each pattern; a dangling link is matched as well."""

    leave_alone: frozenset[str] = frozenset()
    """Paths that are matched without a look at them."""
    paths: list[str] = field(default_factory=list)
    directories: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def add(self, pattern: str) -> None:
        """Expand one absolute pattern and add what it matches."""
        parts = [part for part in pattern.split("/") if part]
        self.paths.extend(sorted(set(self._expand("/", parts))))

    def _expand(self, base: str, parts: list[str]) -> Iterable[str]:
        if not parts:
            yield base
            return
        part, rest = parts[0], parts[1:]
        if part == "**":
            for directory in self._walk(base, MAX_DEPTH):
                yield from self._expand(directory, rest or ["*"])
            return
        if not has_magic(part):
            yield from self._literal(base, part, rest)
            return
        for name in self._names(base):
            if fnmatch.fnmatchcase(name, part) and (part[0] == "." or name[0] != "."):
                yield from self._expand(os.path.join(base, name), rest)  # noqa: PTH118 - links stay as written

    def _literal(self, base: str, part: str, rest: list[str]) -> Iterable[str]:
        path = os.path.join(base, part)  # noqa: PTH118 - links stay as written
        try:
            if path not in self.leave_alone:
                os.lstat(path)
        except FileNotFoundError:
            self._watch(base)
            return
        except NotADirectoryError:
            return
        except OSError as error:
            self._watch(base)
            self.problems.append(explain("lstat", path, error))
            return
        if not rest:
            self._watch(base)
        yield from self._expand(path, rest)

    def _names(self, directory: str) -> list[str]:
        self._watch(directory)
        try:
            return os.listdir(directory)  # noqa: PTH208 - names are wanted, not paths
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            self.problems.append(explain("read directory", directory, error))
            return []

    def _walk(self, directory: str, depth: int) -> Iterable[str]:
        yield directory
        if depth == 0:
            return
        for name in self._names(directory):
            path = os.path.join(directory, name)  # noqa: PTH118 - links stay as written
            if name[0] != "." and os.path.isdir(path) and not os.path.islink(path):  # noqa: PTH112, PTH114 - text paths
                yield from self._walk(path, depth - 1)

    def _watch(self, directory: str) -> None:
        path = Path(directory)
        if path not in self.directories:
            self.directories.append(path)


def fixed_part(pattern: str) -> str:
    """Return the nearest directory there is now below which all matches of an absolute pattern lie."""
    folder = Path("/")
    for part in [one for one in pattern.split("/") if one][:-1]:
        if has_magic(part) or not _is_directory(folder / part):
            break
        folder /= part
    return str(folder)


def _is_directory(path: Path) -> bool:
    """Return whether one is there and answers: of a dead mount, or one that is shut, the scan tells."""
    try:
        return path.is_dir()
    except OSError:
        return False
