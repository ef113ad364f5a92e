"""A real devd beside the stub kubelet, below one directory: what the demo, the tests and the benchmarks run."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from devd.daemon.demo.kubelet import StubKubelet
from devd.ipc.control import control_call
from devd.ipc.endpoints import RuntimeLayout
from devd.ipc.messages import ControlRequest

READY_WITHIN_S = 60.0
END_WITHIN_S = 15.0
STATUS_WITHIN_S = 5.0
LOOK_EVERY_S = 0.02
LOG_TAIL_CHARS = 6000


class Rig:
    """One stub kubelet and at most one devd at a time; everything of them is gone at exit."""

    def __init__(self, config: str, log: Callable[[str], None] | None = None) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="devd-"))
        self.plugins = self.root / "plugins"
        self.registry = self.root / "registry"
        self.pod_resources = self.root / "pod-resources/kubelet.sock"
        self.log_dir = self.root / "log"
        self.state_dir = self.root / "state"
        self.cdi_dir = self.root / "cdi"
        self.program: tuple[str, ...] = ("-m", "devd")
        """What the interpreter is told to run; tests put a devd with a planted bug there."""
        self.environment: dict[str, str] = {}
        """Variables devd gets beside this process's own."""
        self.layout = RuntimeLayout(self.root / "run")
        self.config = self.root / "devd.yaml"
        for directory in (self.plugins, self.registry):
            directory.mkdir()
        self.config.write_text(config, encoding="utf-8")
        self.kubelet = StubKubelet(self.plugins, self.registry, self.pod_resources, log=log)
        self.started_s = 0.0
        self.daemon: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        """Start the kubelet, then devd."""
        await self.kubelet.start()
        self.start_daemon()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End both and remove the directory; on an error show how devd's log ends."""
        await self.end_daemon()
        if error is not None:
            sys.stderr.write(self.log_text())
        await self.kubelet.stop()
        shutil.rmtree(self.root, ignore_errors=True)

    # ---- devd -------------------------------------------------------------------------------------------------------

    def command(self, *extra: str) -> list[str]:
        """Return the command line of devd here."""
        directories = {
            "--kubelet-dir": self.plugins,
            "--registry-dir": self.registry,
            "--runtime-dir": self.layout.root,
            "--state-dir": self.state_dir,
            "--log-dir": self.log_dir,
            "--cdi-dir": self.cdi_dir,
        }
        options = [str(word) for pair in directories.items() for word in pair]
        return [sys.executable, *self.program, "run", "--config", str(self.config), *options, *extra]

    def start_daemon(self, *extra: str) -> subprocess.Popen[bytes]:
        """Start devd in a process group of its own: the terminal's Ctrl-C is not meant for it."""
        self.started_s = time.monotonic()
        with (self.root / "devd.log").open("ab") as log:
            environment = {**os.environ, **self.environment}
            self.daemon = subprocess.Popen(
                self.command(*extra), stdout=log, stderr=log, process_group=0, env=environment
            )
        return self.daemon

    @property
    def pid(self) -> int:
        """The front's pid."""
        if self.daemon is None:
            raise RuntimeError("devd was not started")
        return self.daemon.pid

    async def end_daemon(self, number: int = signal.SIGTERM) -> tuple[int, float]:
        """End devd by a signal, by SIGKILL past END_WITHIN_S; return its exit code and the seconds it took."""
        if self.daemon is None:
            return 0, 0.0
        began_s = time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            self.daemon.send_signal(number)
        try:
            code = await asyncio.to_thread(self.daemon.wait, END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.daemon.kill()
            code = await asyncio.to_thread(self.daemon.wait)
        self.daemon = None
        took_s = time.monotonic() - began_s
        await self._let_go()
        return code, took_s

    async def _let_go(self) -> None:
        """Wait until the kubelet has seen the end of what it heard from devd, lest it be taken for the next one's word.

        Raises TimeoutError.
        """
        states = self.kubelet.resources.values()
        await self.kubelet.wait_for(
            lambda: not any(state.streams_open for state in states), END_WITHIN_S, "the end of devd's streams"
        )

    def log_text(self) -> str:
        """Return the end of devd's log."""
        file = self.root / "devd.log"
        return file.read_text(encoding="utf-8", errors="replace")[-LOG_TAIL_CHARS:] if file.exists() else ""

    # ---- what it says -----------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Return ``devd status``. Raises IpcError when devd does not answer."""
        return dict(control_call(self.layout.control, ControlRequest("status"), STATUS_WITHIN_S).data)

    def order(self, verb: str, device: str, **more: object) -> None:
        """Give devd an order about a device. Raises IpcError, or RuntimeError with devd's refusal."""
        self._ask(ControlRequest(verb, {"device": device, **more}))

    def inject(self, target: str, fault: str, **more: str) -> None:
        """Have simulated devices misbehave. Raises as ``order`` does."""
        self._ask(ControlRequest("inject", {"target": target, "fault": fault, **more}))

    def _ask(self, order: ControlRequest) -> None:
        reply = control_call(self.layout.control, order, STATUS_WITHIN_S)
        if not reply.ok:
            raise RuntimeError(reply.error)

    def device(self, device: str) -> dict[str, Any]:
        """Return one device of the status. Raises LookupError."""
        for one in self.status()["devices"]:
            if one["id"] == device:
                return dict(one)
        raise LookupError(f"devd status has no {device}")

    def journal(self, device: str, event: str = "") -> list[dict[str, Any]]:
        """Return a device's journal, oldest first; only lines of one event if it is named.

        A line that is being written is not there yet: a reader may see its beginning alone.
        """
        records = [
            json.loads(line)
            for file in sorted(self.log_dir.glob("*"))
            for line in file.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()
        ]
        return [one for one in records if one.get("device") == device and event in {"", one.get("event")}]

    async def journal_has(self, device: str, event: str, count: int) -> list[dict[str, Any]]:
        """Return a device's lines of an event once there are ``count``: a thread of devd writes them a little later.

        Raises TimeoutError.
        """
        async with asyncio.timeout(READY_WITHIN_S):
            while len(records := self.journal(device, event)) < count:  # noqa: ASYNC110 - a file tells of no event
                await asyncio.sleep(LOOK_EVERY_S)
        return records

    def worker_pids(self) -> list[int]:
        """Return the pids of all workers and scouts, of the scribe if there is one, and of the fork server."""
        status = self.status()
        pids = [one["pid"] for one in status["devices"]]
        pids += [(status["daemon"]["cdi"] or {}).get("pid")]
        pids += [one["discovery"]["pid"] for one in status["resources"]]
        return [pid for pid in (*pids, status["daemon"]["forkserver"]["pid"]) if pid]

    # ---- what the kubelet sees --------------------------------------------------------------------------------------

    async def healthy(self, resource: str, count: int = 1, timeout_s: float = READY_WITHIN_S) -> float:
        """Wait until the kubelet sees ``count`` healthy devices; return the seconds since devd was started."""
        what = f"{count} healthy of {resource}"
        await self.kubelet.wait_for(lambda: self.kubelet.allocatable(resource) >= count, timeout_s, what)
        return time.monotonic() - self.started_s

    async def unhealthy(self, resource: str, count: int = 1, timeout_s: float = READY_WITHIN_S) -> None:
        """Wait until the kubelet sees ``count`` devices that it may not give out."""

        def enough() -> bool:
            return self.kubelet.capacity(resource) - self.kubelet.allocatable(resource) >= count

        await self.kubelet.wait_for(enough, timeout_s, f"{count} unhealthy of {resource}")

    def turns(self, resource: str, device: str) -> Sequence[tuple[float, str]]:
        """Return when (monotonic) and to what the device's health changed at the kubelet, its first word included."""
        found: list[tuple[float, str]] = []
        state = self.kubelet.resources.get(resource)
        for received in state.lists if state is not None else ():
            record = received.devices.get(device)
            if record is not None and (not found or found[-1][1] != record.health):
                found.append((received.at_s, record.health))
        return found
