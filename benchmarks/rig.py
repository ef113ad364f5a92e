"""What the measurements share: configurations of simulated devices, calls in a row, ranks."""

import asyncio
import json
import sys

from devd.daemon.demo.rig import Rig

PATIENT = "{intensity: 1000}"
"""The pauses a user has, and no end of the restarts."""
OFTEN = "{intensity: 1000, backoff_max: 2s}"
"""Restarts that never give up."""


async def allocate_latencies(rig: Rig, resource: str, device: str, calls: int, pause_s: float) -> list[float]:
    """Return the seconds that each of ``calls`` Allocate calls took, made by a process of its own."""
    endpoint = rig.kubelet.resources[resource].endpoint
    if endpoint is None:
        raise RuntimeError(f"{resource} is not registered")
    arguments = [str(endpoint.path), device, str(calls), str(pause_s)]
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.allocate_client", *arguments, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await client.communicate()
    return [float(one) for one in json.loads(printed)]


def sim_resource(
    name: str, count: int, *, script: str = "", period: str = "1s", timeout: str = "500ms", restart: str = OFTEN
) -> str:
    """Return the YAML of one resource of simulated devices."""
    probe = f"{{kind: sim, period: {period}, timeout: {timeout}{', script: ' + script if script else ''}}}"
    return f"""
  - name: bench.devd.io/{name}
    driver: sim
    match: {{count: {count}, prefix: {name}-}}
    probe: {probe}
    restart: {restart}
"""


def config(*resources: str) -> str:
    """Return a whole configuration."""
    return "resources:" + "".join(resources)


def percentile(values: list[float], share: float) -> float:
    """Return the value below which ``share`` (0 to 1) of the values lie: the nearest rank."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]
