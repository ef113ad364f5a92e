"""The measurements. Each returns rows of (what, value, unit); ratios compare within the same run."""

import asyncio
import json
import signal
import sys
import time
from pathlib import Path

from benchmarks.rig import PATIENT, allocate_latencies, config, percentile, sim_resource
from devd.daemon.demo.rig import Rig

Row = tuple[str, float, str]

CALLS = 3000
PAUSE_S = 0.001
"""Calls of a run, spread over some 6 s: rounds of hangs, kills and restarts fall into it."""
LISTS = 20
KUBELET_RESTARTS = 20
HANGS = 5
KILLS = 3
DEVICES_KILLED = 32
HANGS_S = 1.5
"""A probe this old, of a device that is probed each second, is not the last one: that one hangs."""
SANDBOXES = 100
SANDBOX_BOUND_MS = 3.0
"""What the sandbox may add to a start, of any worker."""


async def allocate_while_all_hang(devices: int) -> list[Row]:
    """Allocate on a healthy device: alone, in the seconds after every device of another resource hung, and later."""
    well, sick = "bench.devd.io/well", "bench.devd.io/sick"
    rows: list[Row] = []
    async with Rig(config(sim_resource("well", 1), sim_resource("sick", devices, restart=PATIENT))) as rig:
        await rig.healthy(well, 1)
        await rig.healthy(sick, devices)
        idle = await allocate_latencies(rig, well, "well-0", CALLS, PAUSE_S)
        rig.inject(sick, "hang")
        await rig.unhealthy(sick, devices)
        first = await allocate_latencies(rig, well, "well-0", CALLS, PAUSE_S)
        later = await allocate_latencies(rig, well, "well-0", CALLS, PAUSE_S)
        began_s = time.perf_counter()
        rig.status()
        status_s = time.perf_counter() - began_s
    for share, name in ((0.5, "p50"), (0.99, "p99")):
        calm_s = percentile(idle, share)
        rows.append((f"Allocate {name}, idle, {devices} devices", calm_s * 1e3, "ms"))
        for when, found in (("just hung", first), ("hung", later)):
            storm_s = percentile(found, share)
            rows.append((f"Allocate {name}, {devices} devices {when}", storm_s * 1e3, "ms"))
            rows.append((f"Allocate {name}, {devices} {when} / idle", storm_s / calm_s, "x"))
    rows.append((f"devd status, {devices} devices hung", status_s * 1e3, "ms"))
    return rows


async def verdict_to_kubelet() -> list[Row]:
    """Seconds from a probe's verdict in the worker to the list at the kubelet."""
    script = "[{for: 700ms, do: pass}, {for: 700ms, do: fail, reason: told to}]"
    resource = "bench.devd.io/flap"
    async with Rig(config(sim_resource("flap", 1, script=script, period="100ms"))) as rig:
        await rig.healthy(resource)
        await rig.kubelet.wait_for(lambda: len(rig.kubelet.resources[resource].lists) >= LISTS, 60.0)
        seen = [at_s for at_s, _health in rig.turns(resource, "flap-0")][1:]
        verdicts = await rig.journal_has("flap-0", "verdict", LISTS)
        made = sorted(float(one["probe_at_s"]) for one in verdicts if one["probe_at_s"])
    delays = [min(at_s - one for one in made if one <= at_s) for at_s in seen]
    return [
        ("verdict to kubelet, p50", percentile(delays, 0.5) * 1e3, "ms"),
        ("verdict to kubelet, worst", max(delays) * 1e3, "ms"),
    ]


async def hang_to_kubelet() -> list[Row]:
    """Seconds from the start of a probe that hangs to Unhealthy at the kubelet, beyond the probe's own timeout."""
    timeout_s, passes_s = 0.5, 1.5
    script = f"[{{for: {passes_s}s, do: pass}}, {{do: hang}}]"
    resource = "bench.devd.io/hang"
    delays: list[float] = []
    async with Rig(config(sim_resource("hang", 1, script=script, period="500ms", timeout=f"{timeout_s}s"))) as rig:
        await rig.healthy(resource)

        def falls() -> list[float]:
            return [at_s for at_s, health in rig.turns(resource, "hang-0") if health != "Healthy"]

        await rig.kubelet.wait_for(lambda: len(falls()) >= HANGS, 60.0)
        seen = falls()[:HANGS]
        kills = await rig.journal_has("hang-0", "kill", HANGS)
        began = [float(one["activity_at_s"]) for one in kills if one.get("activity_at_s")]
    delays = [min(at_s - one for one in began if one <= at_s) - timeout_s for at_s in seen]
    return [
        ("hung probe to kubelet, past its timeout, p50", percentile(delays, 0.5) * 1e3, "ms"),
        ("hung probe to kubelet, past its timeout, worst", max(delays) * 1e3, "ms"),
    ]


async def kubelet_restarts() -> list[Row]:
    """Seconds from a restarted kubelet's socket to every device being back."""
    devices, took = 8, []
    async with Rig(config(sim_resource("steady", devices))) as rig:
        await rig.healthy("bench.devd.io/steady", devices)
        for _ in range(KUBELET_RESTARTS):
            await rig.kubelet.restart()
            began_s = time.monotonic()
            await rig.healthy("bench.devd.io/steady", devices)
            took.append(time.monotonic() - began_s)
    return [
        ("kubelet restart to all devices back, p50", percentile(took, 0.5) * 1e3, "ms"),
        (f"kubelet restart to all devices back, worst of {KUBELET_RESTARTS}", max(took) * 1e3, "ms"),
    ]


async def sandbox_start() -> list[Row]:
    """Milliseconds the sandbox adds to the start of one worker, for each kind, and whether that is within bounds.

    The bound is on processor time: on a busy machine the time on the wall is mostly that of others.
    """
    arguments = ["-m", "benchmarks.sandbox_start", str(SANDBOXES)]
    child = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
    printed, _ = await child.communicate()
    found = json.loads(printed)
    bare = found.pop("bare")
    rows: list[Row] = [("fork to ready, no sandbox, p50", percentile(bare["wall"], 0.5) * 1e3, "ms")]
    shares_ms = {}
    for name, starts in found.items():
        wall_ms, processor_ms = (
            (percentile(starts[clock], 0.5) - percentile(bare[clock], 0.5)) * 1e3 for clock in ("wall", "processor")
        )
        shares_ms[name] = processor_ms
        rows.append((f"sandbox {starts['level']}, share of a start, {name}, p50", wall_ms, "ms"))
        rows.append((f"sandbox {starts['level']}, processor time, {name}, p50", processor_ms, "ms"))
    dearest = max(shares_ms, key=lambda name: shares_ms[name])
    within = float(shares_ms[dearest] < SANDBOX_BOUND_MS)
    rows.append((f"the dearest sandbox ({dearest}) takes less than {SANDBOX_BOUND_MS:g} ms", within, "(1: yes)"))
    return rows


async def start_up(devices: int) -> list[Row]:
    """Seconds from devd's start to all devices healthy at the kubelet, and memory once there."""
    async with Rig(config(sim_resource("many", devices, period="5s"))) as rig:
        ready_s = await rig.healthy("bench.devd.io/many", devices)
        status = await asyncio.to_thread(rig.status)
        pids = [device["pid"] for device in status["devices"] if device["pid"]]
        rows: list[Row] = [(f"start to registered, {devices} devices", ready_s, "s")]
        pss = [kib for pid in pids if (kib := _pss_kib(pid)) is not None]
        if pss:
            rows.append((f"PSS a worker, {devices} workers", sum(pss) / len(pss) / 1024, "MiB"))
        front = _pss_kib(rig.pid)
        if front is not None:
            rows.append((f"PSS of the front, {devices} devices", front / 1024, "MiB"))
    return rows


async def replaced(devices: int) -> list[Row]:
    """Seconds of an upgrade without the pod's own: SIGTERM to the end, and from the next start to all healthy again."""
    async with Rig(config(sim_resource("kept", devices, period="5s"))) as rig:
        await rig.healthy("bench.devd.io/kept", devices)
        code, end_s = await rig.end_daemon()
        if code != 0:
            raise RuntimeError(f"devd ended with code {code}")
        rig.start_daemon()
        back_s = await rig.healthy("bench.devd.io/kept", devices)
    return [
        (f"replaced, {devices} devices: SIGTERM to the end", end_s, "s"),
        (f"replaced, {devices} devices: start to all healthy", back_s, "s"),
    ]


async def front_killed() -> list[Row]:
    """SIGKILL to the front: until its processes are gone, and until the next start is registered again."""
    gone_ms, back_ms = [], []
    async with Rig(config(sim_resource("killed", DEVICES_KILLED))) as rig:
        for _ in range(KILLS):
            await rig.healthy("bench.devd.io/killed", DEVICES_KILLED)
            family = [*rig.worker_pids()]
            began_s = time.monotonic()
            await rig.end_daemon(signal.SIGKILL)
            await asyncio.to_thread(_wait_gone, family)
            gone_ms.append((time.monotonic() - began_s) * 1e3)
            rig.kubelet.cancel_streams()
            rig.start_daemon()
            took_s = await rig.healthy("bench.devd.io/killed", DEVICES_KILLED)
            back_ms.append(took_s * 1e3)
    return [
        (f"front killed, {DEVICES_KILLED} workers gone, worst", max(gone_ms), "ms"),
        (f"started after a kill, {DEVICES_KILLED} devices Healthy, worst", max(back_ms), "ms"),
    ]


async def orderly_end() -> list[Row]:
    """SIGTERM to a devd one of whose probes hangs: until it has ended."""
    script = "[{for: 1s, do: pass}, {do: hang}]"
    took_ms = []
    text = config(sim_resource("ended", DEVICES_KILLED), sim_resource("hung", 1, timeout="30s", script=script))
    async with Rig(text) as rig:
        for _ in range(KILLS):
            await rig.healthy("bench.devd.io/ended", DEVICES_KILLED)
            await rig.healthy("bench.devd.io/hung")
            while rig.device("hung-0")["last_probe"]["age_s"] < HANGS_S:  # noqa: ASYNC110 - a status tells of no event
                await asyncio.sleep(0.05)
            code, took_s = await rig.end_daemon()
            if code != 0:
                raise RuntimeError(f"devd ended with code {code}")
            took_ms.append(took_s * 1e3)
            rig.start_daemon()
    return [(f"SIGTERM to the end, {DEVICES_KILLED} devices and one that hangs, worst", max(took_ms), "ms")]


def _wait_gone(pids: list[int]) -> None:
    while any(_lives(pid) for pid in pids):
        time.sleep(0.002)


def _lives(pid: int) -> bool:
    """Return whether a process still has anything; a zombie, which the machine's init reaps in its time, has not."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"


async def flood_beside() -> list[Row]:
    """How late a neighbour's probes are told while another worker floods, over a quiet time in the same run."""
    script = "[{for: 6s, do: pass}, {for: 60s, do: flood}]"
    resources = config(sim_resource("calm", 1, period="200ms"), sim_resource("loud", 1, script=script, period="50ms"))
    async with Rig(resources) as rig:
        await rig.healthy("bench.devd.io/calm", 1)
        quiet_s = await _worst_age(rig, 4.0)
        await rig.journal_has("loud-0", "kill", 1)
        loud_s = await _worst_age(rig, 4.0)
    return [
        ("neighbour's last report, oldest seen in quiet", quiet_s * 1e3, "ms"),
        ("neighbour's last report, oldest seen beside floods", loud_s * 1e3, "ms"),
        ("reports late by a flood beside", max(0.0, loud_s - quiet_s) * 1e3, "ms"),
    ]


async def _worst_age(rig: Rig, seconds: float) -> float:
    """Return the largest age of the calm device's last probe, looked at for some seconds."""
    until_s = time.monotonic() + seconds
    worst_s = 0.0
    while time.monotonic() < until_s:
        worst_s = max(worst_s, float(rig.device("calm-0")["last_probe"]["age_s"]))
        await asyncio.sleep(0.02)
    return worst_s


def _pss_kib(pid: int) -> int | None:
    """Return a process's proportional set size; None where this user may not read it (workers, without root)."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return None
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
