"""Checks of what containers are given: properties in templates, and variables of two resources under one name.

Like ``cross``, the first works on raw values; ``collisions`` on a configuration that is right.
"""

import posixpath
from collections.abc import Iterator, Mapping

from devd.daemon import cdi, templates, variables
from devd.daemon.config.document import Place
from devd.daemon.config.errors import KeyPath, Problem
from devd.daemon.config.model import Config, Resource
from devd.daemon.config.overlap import overlaps
from devd.daemon.config.properties import CDI, PROPERTIES
from devd.daemon.config.rules import meant
from devd.daemon.config.translate import problem_at

Map = Mapping[str, object]

MAX_COUNTED = 64
"""Positions of devices that are tried: a container with more of one resource is rare."""
_COMMON = frozenset({"index", "resource"})
"""Placeholders that tell no two devices of different resources apart; what the others stand for is a device's own."""


def unknown_properties(root: Place, resource: Map, path: KeyPath) -> Iterator[Problem]:
    """Yield a problem for each property in a template that no device of the driver has."""
    driver = resource.get("driver")
    if not isinstance(driver, str) or driver not in PROPERTIES:
        return  # a third party's: Allocate says it
    known = [*PROPERTIES[driver], *CDI, *_own_properties(resource)]
    for where, text in _templates(resource):
        for name in sorted(_properties(text) - set(known)):
            allowed = ", ".join(f"{{{one}}}" for one in (*templates.PLACEHOLDERS, *known))
            hint = meant(name, [*templates.PLACEHOLDERS, *known])
            message = f"{{{name}}} is no placeholder and no property of driver {driver}{hint}"
            yield problem_at(root, (*path, *where), message, allowed)


def unspecifiable(root: Place, resource: Map, path: KeyPath) -> Iterator[Problem]:
    """Yield a problem for each path that no CDI specification of single devices can hold."""
    if resource.get("cdi") not in ("auto", "only"):
        return
    for where, text in _templates(resource):
        if where[0] in ("mounts", "container_path"):
            for name in sorted(cdi.shared_placeholders(_placeholders(text))):
                message = f"{{{name}}} depends on all devices of a container, a CDI specification has each by itself"
                yield problem_at(root, (*path, *where), message, "{id}, {path}, {name}, {resource}, or cdi: off")


def same_variable(root: Place, resource: Map, path: KeyPath, seen: dict[str, tuple[str, KeyPath]]) -> Iterator[Problem]:
    """Yield a problem if the variable named after a resource is another's already."""
    name = resource.get("name")
    if not isinstance(name, str):
        return
    variable = variables.devices_variable(name)
    other, first = seen.setdefault(variable, (name, path))
    if other != name:
        place = root.at(first)
        line = place.shown_line if place is not None else 1
        message = f"its containers get the variable {variable}, as those of {other} (line {line}) do"
        yield problem_at(root, (*path, "name"), message, "names that differ in letters and digits")


def collisions(config: Config) -> list[str]:
    """Return what goes wrong between two of the resources: in a container that takes both, or for both at once."""
    return [*_one_value(config), *_one_path(config), *overlaps(config)]


def _one_value(config: Config) -> list[str]:
    """Return what two resources give under one name: the kubelet keeps one value, any one."""
    found = []
    for what, texts in (("variable", _variables), ("annotation", _annotations)):
        holders: dict[str, tuple[str, str]] = {}
        for resource in config.resources:
            for key, text in texts(resource).items():
                other, before = holders.setdefault(key, (resource.name, text))
                if other != resource.name and (before != text or _varies(text)):
                    found.append(
                        f"{what} {key} comes from {other} and from {resource.name}: "
                        "a container that takes both gets one of them, no telling which"
                    )
    return found


def _one_path(config: Config) -> list[str]:
    """Return which two resources give their nodes the same path in a container."""
    found = []
    holders: dict[str, str] = {}
    for resource in config.resources:
        paths = _container_paths(resource)
        for path in paths:
            other = holders.setdefault(path, resource.name)
            if other != resource.name:
                found.append(
                    f"path {path} in the container comes from {other} and from {resource.name}: "
                    "a container that takes both gets one of the devices there, no telling which"
                )
                break
    return found


def _container_paths(resource: Resource) -> list[str]:
    """Return the paths that a resource's devices get in containers, as far as they are no device's own."""
    template = resource.container_path
    if template is None or templates.placeholders(template) - _COMMON:
        return []
    numbers = range(MAX_COUNTED if "index" in templates.placeholders(template) else 1)
    values = ({"resource": resource.name, "index": str(number)} for number in numbers)
    return [posixpath.normpath(templates.render(template, one)) for one in values]


def _variables(resource: Resource) -> dict[str, str]:
    return dict.fromkeys(variables.names(resource.name, resource.driver), "{ids}") | resource.env


def _annotations(resource: Resource) -> dict[str, str]:
    return resource.annotations


def _varies(text: str) -> bool:
    return bool(templates.placeholders(text))


def _own_properties(resource: Map) -> list[str]:
    """Return the properties that a resource's own selector gives its devices."""
    match = resource.get("match")
    selected = match.get("properties") if isinstance(match, dict) else None
    found = [str(key) for key in selected] if isinstance(selected, dict) else []
    devices = match.get("devices") if isinstance(match, dict) else None
    for one in devices if isinstance(devices, list) else []:
        properties = one.get("properties") if isinstance(one, dict) else None
        found += [str(key) for key in properties] if isinstance(properties, dict) else []
    return list(dict.fromkeys(found))


def _templates(resource: Map) -> Iterator[tuple[KeyPath, str]]:
    for section in ("env", "annotations"):
        texts = resource.get(section)
        for key, text in texts.items() if isinstance(texts, dict) else ():
            if isinstance(text, str):
                yield (section, str(key)), text
    mounts = resource.get("mounts")
    for index, mount in enumerate(mounts if isinstance(mounts, list) else ()):
        for key in ("host", "container"):
            if isinstance(mount, dict) and isinstance(mount.get(key), str):
                yield ("mounts", index, key), mount[key]
    if isinstance(path := resource.get("container_path"), str):
        yield ("container_path",), path


def _placeholders(text: str) -> frozenset[str]:
    try:
        return templates.placeholders(text)
    except templates.TemplateError:
        return frozenset()  # the model says it


def _properties(text: str) -> frozenset[str]:
    try:
        return templates.properties(text)
    except templates.TemplateError:
        return frozenset()  # the model says it
