"""Device nodes that two resources name: what a file's text alone can tell of it.

Two paths that lead to one node through links, or a driver's own nodes, are seen once they are there: ``Claims`` keeps
them apart then, and the status shows it.
"""

from collections.abc import Iterator
from itertools import combinations

from devd.daemon.config.model import Config, Resource
from devd.ipc.patterns import matches


def overlaps(config: Config) -> list[str]:
    """Return a line for each two resources of driver node that name the same device nodes."""
    nodes = [one for one in config.resources if one.driver == "node" and not _chooses(one)]
    return [line for first, second in combinations(nodes, 2) for line in _shared(first, second)]


def _shared(first: Resource, second: Resource) -> Iterator[str]:
    """Yield the first pair of globs that name the same, if there is one: more of them say no more."""
    for one in _globs(first):
        for other in _globs(second):
            # A glob that fits another's text fits whatever the other does.
            narrow = one if matches(one, other) else other if matches(other, one) else ""
            if narrow and not any(matches(narrow, each) for each in (*_excluded(first), *_excluded(second))):
                same = one if one == other else f"{one} and {other}"
                yield (
                    f"{first.name} and {second.name} name the same device nodes ({same}): "
                    "each is offered by the resource that lists it first, and by it alone"
                )
                return


def _chooses(resource: Resource) -> bool:
    """Return whether the selector asks for more than a path: that cannot be told from the text."""
    return bool(resource.match.get("properties") or resource.match.get("exclude_properties"))


def _globs(resource: Resource) -> list[str]:
    groups = resource.match.get("groups")
    found = _texts(resource.match.get("path"))
    for one in groups if isinstance(groups, list) else ():
        found += _texts(one.get("path")) if isinstance(one, dict) else []
    return found


def _excluded(resource: Resource) -> list[str]:
    return _texts(resource.match.get("exclude"))


def _texts(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else []
