"""What ``devd status`` shows: the whole of the daemon's knowledge as one plain tree (its JSON is a contract)."""

import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from devd import __version__
from devd.daemon.cdi_desk import CdiDesk
from devd.daemon.charge import Charge
from devd.daemon.endpoint import ResourceEndpoint
from devd.daemon.scout_feed import ScoutFeed, scout_id
from devd.daemon.supervisor import Supervisor
from devd.daemon.table import ResourceTable

STATUS_VERSION = 1
"""Grows when a field changes its meaning; new fields may come without it."""


def iso(wall_s: float) -> str:
    """Return wall-clock seconds as ISO 8601 UTC with milliseconds."""
    return datetime.fromtimestamp(wall_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class StatusReport:
    """Gathers the tree from whoever knows; reads memory only."""

    def __init__(
        self,
        supervisor: Supervisor,
        scouts: ScoutFeed,
        tables: Mapping[str, ResourceTable],
        endpoints: Mapping[str, ResourceEndpoint],
        cdi: CdiDesk,
        daemon: Mapping[str, object],
    ) -> None:
        self._supervisor = supervisor
        self._scouts = scouts
        self._tables = tables
        self._endpoints = endpoints
        self._cdi = cdi
        self._daemon = daemon
        self._started_s = time.time()
        self._started_mono_s = time.monotonic()

    def build(self, counters: Mapping[str, object], now: Mapping[str, object]) -> dict[str, Any]:
        """Return the status tree; ``counters`` are the daemon's running totals, ``now`` what else changes."""
        forks = self._supervisor.workforce.forks
        return {
            "version": STATUS_VERSION,
            "daemon": {
                "version": __version__,
                "pid": os.getpid(),
                "started": iso(self._started_s),
                "uptime_s": round(time.monotonic() - self._started_mono_s, 3),
                **self._daemon,
                **now,
                "forkserver": {"pid": forks.pid, "restarts": forks.restarts},
                "cdi": self._cdi.facts(),
                "fences": self._fences(),
                "counters": dict(counters),
            },
            "resources": [self._resource(table) for table in self._tables.values()],
            "devices": [
                device
                for table in self._tables.values()
                for name in table.listed()
                if (device := self._device(table, name)) is not None
            ],
        }

    def _fences(self) -> list[dict[str, Any]]:
        """Return the processes that do not end and whose devices are not listed under the id they were started for."""
        shown = {name for table in self._tables.values() for name in (scout_id(table.name), *table.listed())}
        return [
            {
                "device": hold.device,
                "resource": hold.resource,
                "pid": hold.pid,
                "paths": [node.path for node in hold.nodes],
                "reason": hold.words,
            }
            for hold in self._supervisor.holds
            if hold.device not in shown and self._wedged(hold.device)
        ]

    def _wedged(self, device: str) -> bool:
        """Return whether it is more than a worker that is just being ended."""
        charge = self._supervisor.get(device)
        return charge is None or charge.state.wedged

    def _resource(self, table: ResourceTable) -> dict[str, Any]:
        listed = table.listed()
        endpoint = self._endpoints.get(table.name)
        return {
            "name": table.name,
            "driver": table.config.driver,
            "devices": len(listed),
            "healthy": sum(table.healthy(device) for device in listed),
            "offered": len(listed) * table.config.replicas,
            "sandbox": {
                "mode": table.config.sandbox,
                "allow": table.config.sandbox_allow.plain() if table.config.sandbox_allow is not None else {},
            },
            "registration": _registration(endpoint) if endpoint is not None else None,
            "discovery": self._discovery(table.name),
            "cdi": self._cdi.status(table.config),
        }

    def _discovery(self, resource: str) -> dict[str, Any]:
        scout = scout_id(resource)
        charge = self._supervisor.get(scout)
        age_s = self._scouts.age_s(resource)
        return {
            "pid": charge.state.pid if charge else None,
            "health": _word(self._supervisor.healthy(scout)),
            "reason": charge.state.reason if charge else "",
            "age_s": round(age_s, 3) if age_s is not None else None,
            "problems": list(self._scouts.problems(resource)),
            "sandbox": asdict(charge.sandbox) if charge is not None and charge.sandbox is not None else None,
        }

    def _device(self, table: ResourceTable, name: str) -> dict[str, Any] | None:
        charge = self._supervisor.get(name)
        if charge is None:
            return None
        state, healthy = charge.state, table.healthy(name)
        device = table.devices[name]
        lease_s = state.lease_until_s
        return {
            "id": name,
            "resource": table.name,
            "driver": table.config.driver,
            "paths": [node.path for node in device.nodes],
            "health": _word(healthy),
            "reason": "" if healthy else table.reason(name),
            "since": iso(charge.since_wall_s),
            "phase": str(state.phase),
            "pid": state.pid,
            "restarts": state.restarts,
            "incarnation": state.incarnation,
            "wedged": state.wedged,
            "cordon": state.cordon,
            "held": state.held,
            "injected": self._injected(charge),
            "falls": len(state.falls),
            "numa_node": device.numa_node,
            "properties": dict(device.properties),
            "cdi": self._cdi.name(table.name, name) or None,
            "signals": _signals(charge),
            "replicas": table.config.replicas,
            "lease_s": round(lease_s - self._supervisor.now(), 3) if lease_s is not None else None,
            "last_exit": state.last_exit,
            "last_probe": self._last_probe(charge),
            "sandbox": asdict(charge.sandbox) if charge.sandbox is not None else None,
        }

    def _injected(self, charge: Charge) -> str | None:
        """Return the fault that an operator has a simulated device show now."""
        fault = charge.injected
        over = fault is None or (fault.until_s is not None and fault.until_s <= self._supervisor.now())
        return None if fault is None or over else fault.do

    def _last_probe(self, charge: Charge) -> dict[str, Any] | None:
        last = charge.state.last
        if last is None:
            return None
        return {
            "kind": last.probe_kind,
            "verdict": last.verdict,
            "reason": last.reason,
            "at": iso(charge.last_probe_wall_s),
            "age_s": round(max(0.0, self._supervisor.now() - last.probe_at_s), 3),
            "duration_s": round(last.probe_duration_s, 6),
        }


def _signals(charge: Charge) -> dict[str, Any] | None:
    """Return what the driver's probe knows beside its verdict; None for a driver without signals of its own."""
    found = charge.findings
    if found is None:
        return None
    return {"offered": list(found.offered), "checked": list(found.checked), "notes": dict(found.notes)}


def _registration(endpoint: ResourceEndpoint) -> dict[str, Any]:
    status = endpoint.status
    return {**asdict(status), "socket": str(status.socket)}


def _word(healthy: object) -> str:
    return "Healthy" if healthy else "Unhealthy"
