"""Which ``{placeholders}`` a template may hold, and whether one does. Filling them in is the readers' business."""

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from devd.daemon.templates import PLACEHOLDERS, PROPERTY

CONTAINER_FIELDS: Mapping[str, str] = PLACEHOLDERS
"""For what a container gets: env, annotations, mounts, container_path; properties of the device as well."""
COMMAND_FIELDS: Mapping[str, str] = MappingProxyType(
    {
        "id": "the device's id",
        "path": "path of its first node",
        "paths": "paths of all its nodes, joined by commas",
        "name": "the kernel's name for it (`ttyUSB0`, also when it is found by a by-id link)",
    }
)
"""For the commands of exec probes and resets."""
ATTRIBUTE_FIELDS: Mapping[str, str] = MappingProxyType(
    {
        "name": "the kernel's name for the device",
        "major": "major number of its node",
        "minor": "minor number of its node",
    }
)
"""For the attributes of sysfs probes and resets."""
VALUE_FIELDS: Mapping[str, str] = MappingProxyType({"name": "the kernel's name for the device"})
"""For the value a sysfs reset writes."""

_PROPERTY = re.compile(PROPERTY)
_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def used(template: str) -> set[str]:
    """Return the names of the placeholders in a template."""
    return {match[1] for match in _PART.finditer(template) if match[1] is not None}


def fault(template: str, fields: Iterable[str], *, properties: bool = False) -> str:
    """Return what is wrong with a template whose placeholders are ``fields``; empty when it is sound.

    With ``properties`` anything that looks like the name of one passes: which there are is the driver's matter.
    """
    for match in _PART.finditer(template):
        if match[0] in ("{", "}"):
            return f"a lone {match[0]}: write {match[0] * 2} for a brace that stays"
        if match[1] is not None and match[1] not in fields and not (properties and _PROPERTY.fullmatch(match[1])):
            return f"{match[0]} is no placeholder: write {{{match[0]}}} for braces that stay"
    return ""


def shown(fields: Iterable[str]) -> str:
    """Return the placeholders as a list for a message."""
    return ", ".join(f"{{{name}}}" for name in fields)


def pattern(fields: Iterable[str], *, properties: bool = False) -> str:
    """Return the regular expression (JSON Schema's dialect) of sound templates."""
    names = PROPERTY if properties else "|".join(fields)
    return r"^([^{}]|\{\{|\}\}|\{(" + names + r")\})*$"
