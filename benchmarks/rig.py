"""What the measurements share: configurations of simulated devices, calls in a row, ranks."""

import time

import grpc.aio

from devd.daemon.demo.rig import Rig
from devd.proto.gen import deviceplugin_pb2 as pb
from devd.proto.gen import deviceplugin_pb2_grpc as rpc


async def allocate_latencies(rig: Rig, resource: str, device: str, calls: int) -> list[float]:
    """Return the seconds that each of ``calls`` Allocate calls in a row took, over a connection of its own."""
    endpoint = rig.kubelet.resources[resource].endpoint
    if endpoint is None:
        raise RuntimeError(f"{resource} is not registered")
    request = pb.AllocateRequest(container_requests=[pb.ContainerAllocateRequest(devices_ids=[device])])
    took: list[float] = []
    async with grpc.aio.insecure_channel(f"unix:{endpoint.path}") as channel:
        stub = rpc.DevicePluginStub(channel)
        for _ in range(calls):
            began_s = time.perf_counter()
            await stub.Allocate(request)
            took.append(time.perf_counter() - began_s)
    return took


def sim_resource(name: str, count: int, *, script: str = "", period: str = "1s", timeout: str = "500ms") -> str:
    """Return the YAML of one resource of simulated devices."""
    probe = f"{{kind: sim, period: {period}, timeout: {timeout}{', script: ' + script if script else ''}}}"
    return f"""
  - name: bench.devd.io/{name}
    driver: sim
    match: {{count: {count}, prefix: {name}-}}
    probe: {probe}
    restart: {{intensity: 1000, backoff_max: 2s}}
"""


def config(*resources: str) -> str:
    """Return a whole configuration."""
    return "resources:" + "".join(resources)


def percentile(values: list[float], share: float) -> float:
    """Return the value below which ``share`` (0 to 1) of the values lie: the nearest rank."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]
