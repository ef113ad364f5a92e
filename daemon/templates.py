"""The little language of env, mount, annotation and path templates: ``{name}`` and the doubled braces, nothing else."""

import re
from collections.abc import Mapping

PLACEHOLDERS: dict[str, str] = {
    "id": "id of the first device of the container",
    "ids": "ids of all devices, sorted, joined by commas",
    "path": "host path of the first device's first node",
    "paths": "host paths of all nodes of all devices, in the devices' order, joined by commas",
    "name": "last part of that path (the id, for a device without a node)",
    "names": "last parts of all those paths, joined by commas",
    "index": "position among the container's devices, from 0 (the node's position, in container_path)",
    "resource": "the resource's name",
}
"""Placeholder -> what it stands for. In ``container_path`` and ``mounts``, each device (or node) stands for itself."""

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def check_template(text: str) -> str | None:
    """Return what is wrong with a template, or None."""
    for match in _TOKEN.finditer(text):
        token, name = match.group(0), match.group(1)
        if name is not None and name not in PLACEHOLDERS:
            return f"unknown placeholder {token}: known are {', '.join('{' + one + '}' for one in PLACEHOLDERS)}"
        if token in ("{", "}"):
            return f"a single {token}: write {token * 2} for the character itself"
    return None


def expand(text: str, values: Mapping[str, str]) -> str:
    """Return a checked template with its placeholders filled in. Raises KeyError for one that has no value."""

    def one(match: re.Match[str]) -> str:
        name = match.group(1)
        return match.group(0)[0] if name is None else values[name]

    return _TOKEN.sub(one, text)
