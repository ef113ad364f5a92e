"""A real devd beside a stub kubelet, in a temporary directory, for one measurement."""

import asyncio
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc.aio

from devd.daemon.demo.kubelet import StubKubelet
from devd.ipc.control import control_call
from devd.ipc.endpoints import RuntimeLayout
from devd.ipc.messages import ControlRequest
from devd.proto.gen import deviceplugin_pb2 as pb
from devd.proto.gen import deviceplugin_pb2_grpc as rpc

READY_WITHIN_S = 120.0


class Rig:
    """One devd and one stub kubelet; everything of it is gone at exit."""

    def __init__(self, config: str) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="devd-bench-"))
        self.plugins = self.root / "plugins"
        self.plugins.mkdir()
        self.config = self.root / "devd.yaml"
        self.config.write_text(config, encoding="utf-8")
        self.kubelet = StubKubelet(self.plugins)
        self.started_s = 0.0
        self._daemon: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        """Start the kubelet, then devd."""
        await self.kubelet.start()
        self._start()
        return self

    def _start(self) -> None:
        command = [sys.executable, "-m", "devd", "run", "--config", str(self.config)]
        command += ["--kubelet-dir", str(self.plugins), "--runtime-dir", str(self.root / "run")]
        command += ["--state-dir", str(self.root / "state"), "--log-dir", str(self.root / "log")]
        self.started_s = time.monotonic()
        with (self.root / "devd.log").open("wb") as log:
            self._daemon = subprocess.Popen(command, stderr=log, stdout=log)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End both and remove the directory; on an error show devd's log."""
        if self._daemon is not None:
            self._daemon.send_signal(signal.SIGTERM)
            try:
                await asyncio.to_thread(self._daemon.wait, 15)
            except subprocess.TimeoutExpired:
                self._daemon.kill()
                await asyncio.to_thread(self._daemon.wait)
        if error is not None:
            sys.stderr.write((self.root / "devd.log").read_text(encoding="utf-8")[-4000:])
        await self.kubelet.stop()
        shutil.rmtree(self.root, ignore_errors=True)

    @property
    def pid(self) -> int:
        """The front's pid."""
        if self._daemon is None:
            raise RuntimeError("the rig has not started")
        return self._daemon.pid

    async def healthy(self, resource: str, count: int) -> float:
        """Wait until the kubelet sees ``count`` healthy devices; return the seconds since devd was started."""
        await self.kubelet.wait_for(lambda: self.kubelet.allocatable(resource) >= count, READY_WITHIN_S)
        return time.monotonic() - self.started_s

    async def unhealthy(self, resource: str, count: int) -> None:
        """Wait until the kubelet sees ``count`` unhealthy devices."""

        def gone() -> bool:
            return self.kubelet.capacity(resource) - self.kubelet.allocatable(resource) >= count

        await self.kubelet.wait_for(gone, READY_WITHIN_S)

    def status(self) -> dict[str, Any]:
        """Return ``devd status``."""
        layout = RuntimeLayout(self.root / "run")
        return dict(control_call(layout.control, ControlRequest("status"), 2.0).data)

    async def allocate_latencies(self, resource: str, device: str, calls: int) -> list[float]:
        """Return the seconds that each of ``calls`` Allocate calls in a row took, over a connection of its own."""
        endpoint = self.kubelet.resources[resource].endpoint
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
    match: {{count: {count}, prefix: {name}}}
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
