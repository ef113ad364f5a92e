"""The measurements. Each returns rows of (what, value, unit); ratios compare within the same run."""

import asyncio
import json
import time
from pathlib import Path

from benchmarks.rig import Rig, config, percentile, sim_resource

Row = tuple[str, float, str]

CALLS = 2000
WARM_UP = 200
HANG_AFTER_S = 12
LISTS = 20


async def allocate_while_all_hang(devices: int) -> list[Row]:
    """Allocate on a healthy device, alone and while every device of another resource hangs."""
    script = f"[{{for: {HANG_AFTER_S}s, do: pass}}, {{do: hang}}]"
    rows: list[Row] = []
    async with Rig(config(sim_resource("well", 1), sim_resource("sick", devices, script=script))) as rig:
        await rig.healthy("bench.devd.io/well", 1)
        await rig.healthy("bench.devd.io/sick", devices)
        await rig.allocate_latencies("bench.devd.io/well", "well-0", WARM_UP)
        idle = await rig.allocate_latencies("bench.devd.io/well", "well-0", CALLS)
        await rig.unhealthy("bench.devd.io/sick", devices)
        hung = await rig.allocate_latencies("bench.devd.io/well", "well-0", CALLS)
        began_s = time.perf_counter()
        rig.status()
        status_s = time.perf_counter() - began_s
    for share, name in ((0.5, "p50"), (0.99, "p99")):
        calm_s, storm_s = percentile(idle, share), percentile(hung, share)
        rows.append((f"Allocate {name}, idle, {devices} devices", calm_s * 1e3, "ms"))
        rows.append((f"Allocate {name}, {devices} devices hung", storm_s * 1e3, "ms"))
        rows.append((f"Allocate {name}, {devices} hung / idle", storm_s / calm_s, "x"))
    rows.append((f"devd status, {devices} devices hung", status_s * 1e3, "ms"))
    return rows


async def verdict_to_kubelet() -> list[Row]:
    """Seconds from a probe's verdict in the worker to the list at the kubelet."""
    script = "[{for: 700ms, do: pass}, {for: 700ms, do: fail, reason: told to}]"
    async with Rig(config(sim_resource("flap", 1, script=script, period="100ms"))) as rig:
        await rig.healthy("bench.devd.io/flap", 1)
        state = rig.kubelet.resources["bench.devd.io/flap"]
        await rig.kubelet.wait_for(lambda: len(state.lists) >= LISTS, 60.0)
        seen = [one.at_s for one in state.lists][1:]
        verdicts = _verdicts(rig.root / "log", "flap-0")
    delays = [min(stamp - one for one in verdicts if one <= stamp) for stamp in seen if verdicts[0] <= stamp]
    return [
        ("verdict to kubelet, p50", percentile(delays, 0.5) * 1e3, "ms"),
        ("verdict to kubelet, worst", max(delays) * 1e3, "ms"),
    ]


def _verdicts(log_dir: Path, device: str) -> list[float]:
    """Return when each change of verdict was made in the worker (CLOCK_MONOTONIC), from its journal."""
    made = []
    for file in log_dir.glob("*"):
        for line in file.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if record.get("device") == device and record.get("event") == "verdict" and record.get("probe_at_s"):
                made.append(float(record["probe_at_s"]))
    return sorted(made)


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


def _pss_kib(pid: int) -> int | None:
    """Return a process's proportional set size; None where this user may not read it (workers, without root)."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return None
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
