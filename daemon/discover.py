"""``devd discover``: what this node has, or what a configuration would offer of it; starts nothing."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from devd.daemon.claims import Claims
from devd.daemon.cli import exits
from devd.daemon.cli.exits import CommandError
from devd.daemon.cli.output import put
from devd.daemon.cli.tree import printable
from devd.daemon.config import ConfigError, Resource, load
from devd.daemon.look import Looked, look
from devd.daemon.suggest import suggestion
from devd.daemon.survey import Surveyed, survey
from devd.ipc.messages import Device

Output = Literal["text", "json"]
DISCOVER_VERSION = 1
"""Of the JSON; grows when a field changes its meaning."""
SHOWN = ("model", "hca_type", "vendor", "device", "product", "product_name", "serial", "address", "class", "driver")
"""Properties that tell people what a device is."""


def run(config: Path | None, output: Output, *, suggest: bool) -> int:
    """Print what was asked for; return the exit code. Raises CommandError for a configuration with errors."""
    if suggest:
        put(suggestion(survey()))
        return exits.OK
    if config is None:
        return _whole_node(output)
    try:
        loaded = load(config)
    except ConfigError as error:
        raise CommandError(error.render(), exits.USAGE) from error
    return _offered(loaded.resources, output)


# ---- the whole node ---------------------------------------------------------------------------------------------


def _whole_node(output: Output) -> int:
    found = survey()
    if output == "json":
        plain = [{"driver": one.driver, "kind": one.kind, **_plain(one.looked)} for one in found]
        put(json.dumps({"version": DISCOVER_VERSION, "drivers": plain}, indent=2))
        return exits.OK
    for one in found:
        if one.looked.devices or one.looked.problems or one.looked.error:
            put("\n".join(_surveyed(one)))
    silent = sorted({one.driver for one in found} - {one.driver for one in found if one.looked.devices})
    if silent:
        put(f"found nothing: {', '.join(silent)}")
    put("a configuration to begin with: devd discover --suggest")
    return exits.OK


def _surveyed(one: Surveyed) -> list[str]:
    looked = one.looked
    lines = [f"{one.driver}{f' ({one.kind})' if one.kind else ''}: {_count(looked.devices)}"]
    if looked.error:
        lines = [f"{one.driver}: could not look: {printable(looked.error)}"]
    for device in looked.devices:
        used = looked.usage.get(device.id)
        lines.append(f"  {_line(device)}{_facts(device)}{f'; in use: {printable(used)}' if used else ''}")
    return [*lines, *(f"  note: {printable(problem)}" for problem in looked.problems)]


# ---- what a configuration would offer ---------------------------------------------------------------------------


def _offered(resources: Iterable[Resource], output: Output) -> int:
    claims = Claims()
    looks = [(one, look(one.driver, one.match, one.discovery.timeout_s)) for one in resources]
    if output == "json":
        plain = [{"name": one.name, "driver": one.driver, **_plain(looked)} for one, looked in looks]
        put(json.dumps({"version": DISCOVER_VERSION, "resources": plain}, indent=2))
    else:
        for one, looked in looks:
            put("\n".join(_resource(one, looked, claims)))
    return exits.FAILED if any(looked.error for _one, looked in looks) else exits.OK


def _resource(resource: Resource, looked: Looked, claims: Claims) -> list[str]:
    lines = [f"{resource.name} ({resource.driver})"]
    if looked.error:
        return [*lines, f"  could not look: {printable(looked.error)}"]
    shared = "" if resource.replicas == 1 else f", offered {resource.replicas} times"
    for device in looked.devices:
        conflict = claims.claim(resource.name, device)
        lines.append(f"  {_line(device)}{shared}" if conflict is None else f"  not offered: {printable(conflict)}")
    lines += [f"  note: {printable(problem)}" for problem in looked.problems]
    if not looked.devices:
        lines.append("  no devices now; they are offered when they appear")
    return lines


# ---- both -------------------------------------------------------------------------------------------------------


def _plain(looked: Looked) -> Mapping[str, object]:
    devices = [
        {
            "id": one.id,
            "nodes": [asdict(node) for node in one.nodes],
            "properties": dict(one.properties),
            "numa_node": one.numa_node,
            "in_use": looked.usage.get(one.id),
        }
        for one in looked.devices
    ]
    return {"devices": devices, "problems": list(looked.problems), "error": looked.error or None}


def _count(devices: Sequence[Device]) -> str:
    return "1 device" if len(devices) == 1 else f"{len(devices)} devices"


def _line(device: Device) -> str:
    nodes = ", ".join(f"{node.path} ({node.kind} {node.major}:{node.minor})" for node in device.nodes) or "no node"
    numa = "" if device.numa_node is None else f", NUMA node {device.numa_node}"
    return printable(f"{device.id}: {nodes}{numa}")


def _facts(device: Device) -> str:
    facts = [f"{name} {device.properties[name]}" for name in SHOWN if device.properties.get(name)]
    return printable(f"; {', '.join(facts)}") if facts else ""
