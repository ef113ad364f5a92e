"""``devd discover``: what a configuration would offer on this node, found by disposable processes; starts nothing."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from devd.daemon.claims import Claims
from devd.daemon.config import ConfigError, Resource, load
from devd.ipc.messages import Device, Node

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_CONFIG = 2


def run(config: Path) -> int:
    """Print the devices of each resource with their ids, nodes and offered names; return the exit code."""
    try:
        loaded = load(config)
    except ConfigError as error:
        print(error.render(), file=sys.stderr)
        return EXIT_CONFIG
    claims = Claims()
    # A list, so that every resource is looked at whatever the first one gives.
    return max([_show(resource, claims) for resource in loaded.resources], default=EXIT_OK)


def _show(resource: Resource, claims: Claims) -> int:
    print(f"{resource.name} ({resource.driver})")
    answer = _look(resource)
    if isinstance(answer, str):
        print(f"  could not look: {answer}")
        return EXIT_FAILED
    devices, problems = answer
    for device in devices:
        conflict = claims.claim(resource.name, device)
        print(f"  {_line(resource, device)}" if conflict is None else f"  not offered: {conflict}")
    for problem in problems:
        print(f"  note: {problem}")
    if not devices:
        print("  no devices now; they are offered when they appear")
    return EXIT_OK


def _line(resource: Resource, device: Device) -> str:
    nodes = ", ".join(f"{node.path} ({node.kind} {node.major}:{node.minor})" for node in device.nodes) or "no node"
    numa = "" if device.numa_node is None else f", NUMA node {device.numa_node}"
    shared = "" if resource.replicas == 1 else f", offered {resource.replicas} times"
    return f"{device.id}: {nodes}{numa}{shared}"


def _look(resource: Resource) -> tuple[list[Device], list[str]] | str:
    """Return the devices and problems, or why nobody could look."""
    question = json.dumps({"driver": resource.driver, "match": resource.match})
    command = [sys.executable, "-m", "devd.workers.discover"]
    timeout_s = resource.discovery.timeout_s
    try:
        done = subprocess.run(command, input=question, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        return f"no answer in {timeout_s:g} s: something on the bus hangs"
    if done.returncode != 0:
        return done.stderr.strip() or f"exit code {done.returncode}"
    answer = json.loads(done.stdout)
    return [_device(one) for one in answer["devices"]], list(answer["problems"])


def _device(plain: dict[str, Any]) -> Device:
    nodes = tuple(Node(**node) for node in plain["nodes"])
    return Device(**{**plain, "nodes": nodes})
