"""``devd demo``: a real devd against the stub kubelet, on this machine's devices. Leaves nothing behind."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from devd.daemon.demo import scenario, screen
from devd.daemon.demo.kubelet import AdmissionError, ContainerStartError
from devd.daemon.demo.rig import Rig
from devd.ipc.errors import IpcError

REFRESH_S = 0.5
PLAIN_TABLE_EVERY_S = 10.0
"""Without a terminal the story is printed as it happens, and the table this often."""
FIRST_POD_S = 1.0
POD_EVERY_S = 6.0
RESTART_AT_SHARE = 0.55
"""The kubelet restarts once, this far into the demo; only if there is time to see it."""
RESTART_MIN_S = 10
MIN_SIZE = (100, 24)

EXIT_OK = 0
EXIT_FAILED = 1


def run(seconds: float) -> int:
    """Run the demo for ``seconds``; Ctrl-C ends it early and in order. Return the exit code."""
    rig = Rig(scenario.configuration())
    rig.program = ("-m", "devd.daemon.demo.tied", str(os.getpid()))
    try:
        return asyncio.run(_Demo(rig, seconds).run())
    finally:
        shutil.rmtree(rig.root, ignore_errors=True)


class _Demo:
    """One run: its directory, kubelet, daemon and story."""

    def __init__(self, rig: Rig, seconds: float) -> None:
        self._rig = rig
        self._kubelet = rig.kubelet
        self._seconds = seconds
        self._began_s = time.monotonic()
        self._live = sys.stdout.isatty()
        self._story: list[str] = []
        self._health: dict[str, str] = {}
        self._turned: dict[str, int] = {}
        self._read_s: dict[str, float] = {}
        self._restarts: dict[str, int] = {}
        self._unseen = 0
        self._pods = self._refused = self._back_after_ms = 0
        self._status: dict[str, Any] | None = None
        self._status_ms: list[float] = []
        self._ended = asyncio.Event()

    async def run(self) -> int:
        """Start everything, tell the story, take everything down, sum up."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._ended.set)
        await self._kubelet.start()
        daemon = self._rig.start_daemon()
        self._tell(f"devd runs as process {daemon.pid}; config, sockets and logs are below {self._rig.root}")
        self._tell("sim-flapping will fail its probe and recover, sim-hanging hang, sim-crashing's worker crash")
        acts = [asyncio.create_task(act) for act in (self._watch(daemon), self._pods_come(), self._kubelet_restarts())]
        try:
            async with asyncio.timeout(self._seconds):
                await self._ended.wait()
        except TimeoutError:
            pass
        for act in acts:
            act.cancel()
        await asyncio.gather(*acts, return_exceptions=True)
        died = daemon.poll()
        last = self._lines()
        code, took_s = await self._rig.end_daemon()
        left = self._left_behind()
        await self._kubelet.stop()
        return self._sum_up(last, code if died is None else died, took_s, left, died=died is not None)

    # ---- the acts ----

    async def _watch(self, daemon: subprocess.Popen[bytes]) -> None:
        """Compare both views twice a second and show them."""
        shown_s = -PLAIN_TABLE_EVERY_S
        while True:
            self._status = await self._ask_status()
            self._note_turns()
            self._note_replacements()
            if daemon.poll() is not None:
                self._tell(f"devd ended by itself with code {daemon.returncode}")
                self._ended.set()
            elapsed_s = time.monotonic() - self._began_s
            if self._live:
                self._draw(elapsed_s)
            elif elapsed_s - shown_s >= PLAIN_TABLE_EVERY_S and self._status is not None:
                shown_s = elapsed_s
                print("\n".join(["", *screen.table(self._lines(), MIN_SIZE[0] + 20, colour=False), ""]), flush=True)
            await asyncio.sleep(REFRESH_S)

    async def _ask_status(self) -> dict[str, Any] | None:
        began_s = time.perf_counter()
        try:
            status = await asyncio.to_thread(self._rig.status)
        except IpcError:
            return None
        self._status_ms.append((time.perf_counter() - began_s) * 1e3)
        return status

    def _note_turns(self) -> None:
        """Tell of each device that turned at the kubelet, with devd's reason."""
        lines = {line.device: line for line in self._lines()}
        for name, state in self._kubelet.resources.items():
            for received in state.lists:
                if received.at_s > self._read_s.get(name, 0.0):
                    self._read_s[name] = received.at_s
                    self._note_list(name, {one: record.health for one, record in received.devices.items()}, lines)

    def _note_list(self, resource: str, healths: Mapping[str, str], lines: Mapping[str, screen.Line]) -> None:
        for device, health in healths.items():
            before = self._health.get(device)
            self._health[device] = health
            if before is None or before == health:
                continue
            self._turned[device] = self._turned.get(device, 0) + 1
            line = lines.get(device)
            why = f": {line.reason}" if line and line.reason and health != "Healthy" else ""
            self._tell(f"kubelet sees {resource}/{device} {health}{why}")

    def _note_replacements(self) -> None:
        """Tell of each worker that was replaced without the kubelet noticing: the point of a lease."""
        for device in (self._status or {}).get("devices", []):
            name, restarts = str(device["id"]), int(device["restarts"])
            before = self._restarts.get(name, 0)
            self._restarts[name] = restarts
            if restarts > before and device["health"] == "Healthy" and device["last_exit"] != "killed by SIGKILL":
                self._unseen += 1
                self._tell(f"{name}'s worker was {device['last_exit']} and is replaced; the kubelet sees no change")

    async def _pods_come(self) -> None:
        """Have a pod come as soon as there is a device, and others now and then; each takes one, starts, and goes."""
        ready = scenario.SIMULATED
        await self._kubelet.wait_for(lambda: self._kubelet.allocatable(ready) > 0, self._seconds, "a device")
        while True:
            await asyncio.sleep(POD_EVERY_S if self._pods else FIRST_POD_S)
            offers = [name for name in sorted(self._kubelet.resources) if self._kubelet.allocatable(name)]
            if not offers:
                continue
            # Every other pod takes a simulated device: those are reset before a container starts.
            ordinary = [name for name in offers if name != scenario.SIMULATED] or offers
            simulated = scenario.SIMULATED in offers and self._pods % 2 == 0
            await self._pod(scenario.SIMULATED if simulated else ordinary[self._pods // 2 % len(ordinary)])

    async def _pod(self, resource: str) -> None:
        self._pods += 1
        pod = f"pod-{self._pods}"
        began_s = time.monotonic()
        try:
            given = await self._kubelet.allocate(resource, 1, pod=pod)
            allocated_s = time.monotonic()
            await self._kubelet.pre_start(resource, given.ids)
        except (AdmissionError, ContainerStartError) as error:
            self._refused += 1
            self._tell(f"{pod} was refused {resource}: {error}")
        else:
            reset = "" if resource != scenario.SIMULATED else f", reset and probed in {_ms(allocated_s)}"
            took_ms = (allocated_s - began_s) * 1e3
            self._tell(f"{pod} got {resource}/{', '.join(given.ids)} (allocated in {took_ms:.1f} ms{reset})")
        finally:
            self._kubelet.free(pod)

    async def _kubelet_restarts(self) -> None:
        """Restart the kubelet once and measure until everything is back."""
        if self._seconds < RESTART_MIN_S:
            return
        await asyncio.sleep(self._seconds * RESTART_AT_SHARE)
        known = list(self._kubelet.resources)
        self._tell("the kubelet restarts; what it knew of devices is gone")
        await self._kubelet.restart()
        began_s = time.monotonic()
        with contextlib.suppress(TimeoutError):
            await self._kubelet.wait_for(
                lambda: all(self._kubelet.capacity(name) > 0 for name in known if name in self._kubelet.resources), 20.0
            )
            self._back_after_ms = round((time.monotonic() - began_s) * 1e3)
            self._tell(f"all resources are back {self._back_after_ms} ms after its socket")

    # ---- the end ----

    def _left_behind(self) -> list[str]:
        """Return sockets and workers that outlived devd."""
        pids = [device["pid"] for device in (self._status or {}).get("devices", []) if device["pid"]]
        workers = [f"worker {pid}" for pid in pids if os.path.exists(f"/proc/{pid}")]  # noqa: PTH110 - a plain test
        sockets = [str(one) for one in self._rig.root.rglob("*") if one.is_socket() and one.name != "kubelet.sock"]
        return workers + sockets

    def _sum_up(self, last: list[screen.Line], code: int, took_s: float, left: list[str], *, died: bool) -> int:
        """Print the summary; return the demo's exit code."""
        median_ms = sorted(self._status_ms)[len(self._status_ms) // 2] if self._status_ms else 0.0
        violations = self._kubelet.violations
        restart = f"{self._back_after_ms} ms until all was back" if self._back_after_ms else "not shown"
        print("\n".join(["", "", "Summary", "-------", *screen.table(last, MIN_SIZE[0] + 20, colour=self._live)]))
        facts = {
            "devices that turned": ", ".join(f"{name} {n}x" for name, n in sorted(self._turned.items())) or "none",
            "workers replaced": f"{sum(self._restarts.values())}, {self._unseen} of them unseen by the kubelet",
            "pods": f"{self._pods} came, {self._refused} refused",
            "kubelet restart": restart,
            "devd status": f"{len(self._status_ms)} answers, median {median_ms:.1f} ms",
            "protocol violations": "; ".join(violations) or "none",
            "devd's end": f"{'by itself, ' if died else ''}exit code {code} after {took_s:.1f} s",
            "left behind": ", ".join(left) or "nothing",
        }
        print("\n".join(["", *(f"{what:>20}: {word}" for what, word in facts.items())]))
        well = code == 0 and not died and not left and not violations
        if not well:
            print("\ndevd's log ends with:\n" + self._rig.log_text())
        return EXIT_OK if well else EXIT_FAILED

    # ---- telling ----

    def _lines(self) -> list[screen.Line]:
        return screen.lines(self._views(), self._status)

    def _views(self) -> Mapping[str, Mapping[str, str]]:
        return {name: self._kubelet.resources[name].health for name in sorted(self._kubelet.resources)}

    def _tell(self, text: str) -> None:
        line = f"{time.monotonic() - self._began_s:5.1f} s  {text}"
        self._story.append(line)
        del self._story[: -screen.STORY_LINES]
        if not self._live:
            print(line, flush=True)

    def _draw(self, elapsed_s: float) -> None:
        columns, rows = shutil.get_terminal_size(MIN_SIZE)
        title = f"devd demo  {elapsed_s:4.0f} of {self._seconds:.0f} s   (Ctrl-C ends it)"
        text = screen.frame(title, self._lines(), self._story, (columns, rows), colour=True)
        # Home, each line cleared to its end, then the rest of the screen: no flicker.
        print("\x1b[H" + text.replace("\n", "\x1b[K\n") + "\x1b[K\x1b[J", end="", flush=True)


def _ms(since_s: float) -> str:
    return f"{(time.monotonic() - since_s) * 1e3:.0f} ms"
