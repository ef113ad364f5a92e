"""The daemon's knowledge as a page of metrics, from the status tree and the numbers of calls and process alone."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from devd.daemon.health_feed import REFUSALS as HEALTH_REFUSALS
from devd.daemon.metrics import catalog as m
from devd.daemon.metrics.process import ProcessUse
from devd.daemon.metrics.text import Distribution, Metric, Page, labels
from devd.daemon.rpc_times import BOUNDS_S, RpcTimes
from devd.daemon.sandbox_words import LAYERS, LEVELS, OTHER
from devd.daemon.workforce import REFUSALS as COMMAND_REFUSALS
from devd.ipc.identity import REFUSALS as PEER_REFUSALS

Tree = Mapping[str, Any]


DEVICES_A_TURN = 32
"""Devices printed before the loop gets its turn again: half a millisecond's work."""


async def page(status: Tree, calls: RpcTimes, process: ProcessUse) -> str:
    """Return the metrics of a status tree (``StatusReport.build``) in Prometheus' text format.

    It waits for nothing; it is a coroutine to leave the event loop its turns.
    """
    out = Page(m.CATALOG)
    _daemon(out, status["daemon"])
    _lacking(out, status)
    sandboxes: dict[str, list[Tree]] = {}
    for device in status["devices"]:
        sandboxes.setdefault(device["resource"], []).append(device["sandbox"])
    for resource in status["resources"]:
        _resource(out, resource, sandboxes.get(resource["name"], []))
    for at, device in enumerate(status["devices"]):
        if at % DEVICES_A_TURN == 0:
            await asyncio.sleep(0)
        _device(out, device)
    await asyncio.sleep(0)
    _calls(out, calls)
    _counters(out, status["daemon"]["counters"])
    _process(out, process)
    return out.render()


def _daemon(out: Page, daemon: Tree) -> None:
    out.add(m.BUILD_INFO, 1, labels({"version": daemon["version"]}))
    out.add(m.CONFIG_ERROR, bool(daemon["config_error"]))
    out.add(m.CONFIG_TAKEN, _unix_s(daemon["config_taken"]))
    out.add(m.RELOADS, daemon["reloads"])
    out.add(m.FORKSERVER_UP, daemon["forkserver"]["pid"] is not None)
    out.add(m.FORKSERVER_RESTARTS, daemon["forkserver"]["restarts"])
    _sandboxes(out, [(daemon.get("cdi") or {}).get("sandbox")], {"role": "scribe", "resource": ""})


def _resource(out: Page, resource: Tree, sandboxes: Iterable[Tree | None]) -> None:
    name = {"resource": resource["name"]}
    of = labels(name)
    out.add(m.RESOURCE_DEVICES, resource["devices"], of)
    out.add(m.RESOURCE_HEALTHY, resource["healthy"], of)
    out.add(m.RESOURCE_OFFERED, resource["offered"], of)
    discovery = resource["discovery"]
    _sandboxes(out, [discovery.get("sandbox")], {"role": "scout", **name})
    _sandboxes(out, sandboxes, {"role": "worker", **name})
    out.add(m.DISCOVERY_HEALTHY, discovery["health"] == "Healthy", of)
    out.add(m.DISCOVERY_AGE, discovery["age_s"], of)
    out.add(m.DISCOVERY_PROBLEMS, len(discovery["problems"]), of)
    registration = resource["registration"]
    if registration is not None:
        out.add(m.RESOURCE_REGISTERED, registration["state"] == "registered", of)
        out.add(m.REGISTRATION_STATE, 1, labels({**name, "state": registration["state"]}))
        out.add(m.REGISTRATIONS, registration["registrations"], of)
        out.add(m.STREAM_OPEN, registration["stream_open"], of)


def _device(out: Page, device: Tree) -> None:
    ids = {"resource": device["resource"], "device": device["id"]}
    of = labels(ids)
    out.add(m.DEVICE_HEALTHY, device["health"] == "Healthy", of)
    out.add(m.DEVICE_CHANGED, _unix_s(device["since"]), of)
    out.add(m.DEVICE_PHASE, 1, labels({**ids, "phase": device["phase"]}))
    out.add(m.DEVICE_WEDGED, device["wedged"], of)
    out.add(m.DEVICE_CORDONED, device["cordon"] is not None, of)
    out.add(m.DEVICE_HELD, device["held"], of)
    out.add(m.DEVICE_FALLS, device["falls"], of)
    out.add(m.DEVICE_LEASE, max(0.0, device["lease_s"] or 0.0), of)
    out.add(m.WORKER_UP, device["pid"] is not None, of)
    out.add(m.WORKER_RESTARTS, device["restarts"], of)
    probe, sandbox = device["last_probe"], device["sandbox"]
    if probe is not None:
        out.add(m.PROBE_PASSED, probe["verdict"] == "pass", of)
        out.add(m.PROBE_DURATION, probe["duration_s"], of)
        out.add(m.PROBE_AGE, probe["age_s"], of)
    if sandbox is not None:
        for state in ("active", "missing"):
            out.add(m.SANDBOX_LAYERS, len(sandbox[state]), labels({**ids, "state": state}))


def _sandboxes(out: Page, said: Iterable[Tree | None], who: Mapping[str, str]) -> None:
    """Add what processes said of their sandboxes, in words from fixed lists: they may say what they like."""
    known = [one for one in said if one is not None]
    levels = Counter(one["level"] if one["level"] in LEVELS else OTHER for one in known)
    for level, count in sorted(levels.items()):
        out.add(m.SANDBOX_LEVEL, count, labels({**who, "level": level}))
    missing = Counter(
        name for one in known for name in {layer if layer in LAYERS else OTHER for layer in one["missing"]}
    )
    for layer, count in sorted(missing.items()):
        out.add(m.SANDBOX_MISSING, count, labels({**who, "layer": layer}))


def _lacking(out: Page, status: Tree) -> None:
    """Add how many processes lack anything of their sandbox: what an alert asks, 0 included."""
    said = [device["sandbox"] for device in status["devices"]]
    said += [resource["discovery"].get("sandbox") for resource in status["resources"]]
    said.append((status["daemon"].get("cdi") or {}).get("sandbox"))
    count = sum(bool(one["missing"]) for one in said if one is not None)
    out.add(m.SANDBOX_MISSING, count, labels({"role": "all", "resource": "", "layer": "any"}))


def _calls(out: Page, calls: RpcTimes) -> None:
    for method, times in calls.methods.items():
        for result, count in times.results.items():
            out.add(m.RPCS, count, labels({"method": method, "result": result}))
        out.add_distribution(m.RPC_DURATION, Distribution(BOUNDS_S, times.counts, times.total_s), {"method": method})


def _counters(out: Page, counters: Tree) -> None:
    out.add(m.STALLS, counters["stalls"])
    out.add(m.LOOP_BLOCKS, counters["loop_blocks"])
    out.add(m.HEALTH_MESSAGES, counters["health_messages"])
    _by_reason(out, m.HEALTH_REFUSED, {**dict.fromkeys(HEALTH_REFUSALS, 0), **counters["health_refused"]})
    _by_reason(out, m.COMMANDS_REFUSED, {**dict.fromkeys(COMMAND_REFUSALS, 0), **counters["commands_refused"]})
    out.add(m.MEMORY_ENDED, counters["memory_ended"])
    out.add(m.MEMORY_ACCEPTED, counters["memory_accepted"])
    _by_reason(out, m.PEERS_REFUSED, {**dict.fromkeys(PEER_REFUSALS, 0), **counters["peers_refused"]})
    for result in ("answered", "refused"):
        out.add(m.CONTROL_REQUESTS, counters[f"control_{result}"], labels({"result": result}))
    out.add(m.CONTROL_CUTS, counters["control_cuts"])
    journal = counters["journal"]
    out.add(m.JOURNAL_LOST, journal["lost"])
    out.add(m.JOURNAL_WAITING, journal["waiting"])
    out.add(m.JOURNAL_ERROR, bool(journal["error"]))
    state = counters["state"]
    out.add(m.STATE_WAITING, state["waiting"])
    out.add(m.STATE_FAILED, state["failed"])
    out.add(m.STATE_ERROR, bool(state["error"]))
    out.add(m.LOG_LOST, counters["log_lost"])


def _by_reason(out: Page, metric: Metric, counts: Mapping[str, int]) -> None:
    """Add a count for each reason, those that have not occurred yet too: a rate needs the 0 before the first 1."""
    for reason, count in counts.items():
        out.add(metric, count, labels({"reason": reason}))


def _process(out: Page, use: ProcessUse) -> None:
    out.add(m.PROCESS_CPU, use.cpu_s)
    out.add(m.PROCESS_RSS, use.resident_bytes)
    out.add(m.PROCESS_VIRTUAL, use.virtual_bytes)
    out.add(m.PROCESS_OPEN_FDS, use.open_fds)
    out.add(m.PROCESS_MAX_FDS, use.max_fds)
    out.add(m.PROCESS_THREADS, use.threads)
    out.add(m.PROCESS_STARTED, use.started_s)


def _unix_s(iso: str) -> float:
    return datetime.fromisoformat(iso).timestamp()
