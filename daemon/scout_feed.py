"""Discovery's receiving end: compares what the scouts list with what is supervised, and moves devices in and out.

The first listings of all resources are applied together, in the configuration's order (or what has come within a
bounded time), so that the same resource wins a contested device at each start.
"""

import dataclasses
import hashlib
import logging
import re
import time
from asyncio import AbstractEventLoop
from collections.abc import Collection, Mapping
from functools import partial

from devd.daemon import events as ev
from devd.daemon.charge import SpecMaker
from devd.daemon.claims import Claims
from devd.daemon.config import Resource
from devd.daemon.config_diff import Touch
from devd.daemon.device_state import Phase, Policy
from devd.daemon.listing_rules import breach
from devd.daemon.supervisor import Supervisor
from devd.daemon.table import ResourceTable
from devd.daemon.uids import Uids
from devd.ipc.messages import Device, Listing, ProbeNow, WorkerSpec

FIRST_LISTINGS_WITHIN_S = 10.0
"""How long the first listings wait for each other."""
SCOUT_PREFIX = "scout:"
MAX_ID_CHARS = 56
"""The kubelet's API has 63 characters for an id; the rest is for the replica's ``::n``."""
DEVICE_ID = re.compile(rf"[A-Za-z0-9._:-]{{1,{MAX_ID_CHARS}}}")
LONGEST_NAME = 200
"""A worker's ZAP domain (``command:`` and its id) has 255 bytes at most."""

CHANGED = "the configuration of its resource was changed"
RENAMED = "the same device is reached by another path now"

log = logging.getLogger("devd.discovery")


def scout_id(resource: str) -> str:
    """Return the supervisor's id of a resource's scout; a name too long for a ZAP domain is hashed."""
    name = resource if len(resource) <= LONGEST_NAME else hashlib.sha256(resource.encode()).hexdigest()[:32]
    return SCOUT_PREFIX + name


class ScoutFeed:
    """Owner of the claims and of every table's ``devices``."""

    def __init__(self, loop: AbstractEventLoop, supervisor: Supervisor, tables: Mapping[str, ResourceTable]) -> None:
        self._supervisor = supervisor
        self._tables = tables
        self._claims = Claims()
        self._uids = Uids(supervisor.place)
        self._listings: dict[str, Listing] = {}
        self._conflicts: dict[str, tuple[str, ...]] = {}
        self._outdated: dict[str, int] = {}
        self._told: dict[str, tuple[str, ...]] = {}
        self._started = False
        self._closed = False
        self._failing: set[str] = set()
        self._timer = loop.call_later(FIRST_LISTINGS_WITHIN_S, self._begin)

    def send_out(self, name: str) -> None:
        """Send out a resource's scout."""
        resource = self._tables[name].config
        self._supervisor.add(scout_id(name), name, _scout_policy(resource), self._scout_spec(resource))

    def call_back(self, name: str) -> None:
        """Withdraw a resource: its scout leaves, and each of its devices."""
        now_s = self._supervisor.now()
        self._listings.pop(name, None)
        self._conflicts.pop(name, None)
        self._outdated.pop(name, None)
        for one in (scout_id(name), *self._tables[name].devices):
            self._supervisor.send(one, ev.Retired(now_s))
            self.changed(name)

    def reconfigure(self, name: str, touch: Touch) -> None:
        """Have a resource's scout and workers live by its table's new configuration."""
        table = self._tables[name]
        resource = table.config
        why = CHANGED if Touch.WORKERS in touch else ""
        for device_id, device in table.devices.items():
            self._supervisor.respecify(device_id, self._worker_spec(resource, device), _policy(resource), why)
        if Touch.SCOUT in touch:
            scout = scout_id(name)
            charge = self._supervisor.get(scout)
            # What the present scout still says was looked for by the old selector.
            self._outdated[name] = charge.state.incarnation if charge is not None else 0
            self._listings.pop(name, None)
            self._supervisor.respecify(scout, self._scout_spec(resource), _scout_policy(resource), CHANGED)

    def changed(self, name: str) -> None:
        """Have a resource's scout leave those devices alone whose worker does not end, and no others.

        Once for all that change together: it looks at every device of the resource. Of a resource that is not there any
        more, what it left behind concerns all.
        """
        for one in [name] if name in self._tables else list(self._tables):
            self._look_at_spared(one)

    def _look_at_spared(self, name: str) -> None:
        self._supervisor.turns.put(("spared", name), partial(self._tell_spared, name))

    def _tell_spared(self, name: str) -> bool:
        spared = self._spared(name)
        if spared == self._told.get(name, ()) or self._closed or name not in self._tables:
            return False
        if self._supervisor.workforce.send(scout_id(name), ProbeNow(spared)):
            self._told[name] = spared
        return False

    def _spared(self, name: str) -> tuple[str, ...]:
        """Return the nodes that a killed process still holds: the resource's own, and those that nobody lists now."""
        table = self._tables.get(name)
        held = [] if table is None else [one for key, one in table.devices.items() if self._holds(key)]
        paths = [node.path for device in held for node in device.nodes]
        listed = {key for one in self._tables.values() for key in one.devices}
        for hold in self._supervisor.holds:
            if hold.device not in listed or hold.resource == name:
                paths += [node.path for node in hold.nodes]
        return tuple(dict.fromkeys(paths))

    def _holds(self, device_id: str) -> bool:
        """Return whether a process that was killed still holds the device: nobody else may touch it."""
        charge = self._supervisor.get(device_id)
        if charge is None or charge.state.phase is not Phase.STOPPING:
            return False
        # Without either nothing has touched it: what is known of it from earlier has not been read yet.
        return charge.state.pid is not None or charge.state.incarnation > 0

    def listed(self, resource: str) -> bool:
        """Return whether a resource's scout has spoken."""
        return self._started and resource in self._listings

    def why_unlisted(self, resource: str) -> str:
        """Return what keeps a resource's scout from its first list, in its own words."""
        charge = self._supervisor.get(scout_id(resource))
        return charge.state.reason if charge is not None and charge.state.reason else "its scout has not looked yet"

    def problems(self, resource: str) -> tuple[str, ...]:
        """Return what discovery has to tell the operator about a resource."""
        listing = self._listings.get(resource)
        return (*(listing.problems if listing else ()), *self._conflicts.get(resource, ()))

    def age_s(self, resource: str) -> float | None:
        """Return how old the resource's present list is in seconds: the scout's last good scan, or None."""
        charge = self._supervisor.get(scout_id(resource))
        if charge is None or charge.state.last is None:
            return None
        return max(0.0, time.monotonic() - charge.state.last.probe_at_s)

    def take(self, listing: Listing) -> None:
        """Take in a scout's list."""
        outdated = self._outdated.get(listing.resource, -1)
        if self._closed or listing.resource not in self._tables or listing.incarnation <= outdated:
            return
        detail = breach(self._tables[listing.resource].config, listing)
        if detail:
            self._supervisor.misbehaved(scout_id(listing.resource), listing.incarnation, detail)
            return
        self._listings[listing.resource] = listing
        if self._started:
            self._apply(listing)
            self._offer_freed()
        else:
            self._begin_if_all()

    def scout_changed(self, name: str) -> None:
        """Take note of how a resource's scout is: the others' first lists do not wait for one that has none."""
        charge = self._supervisor.get(scout_id(name))
        if self._started or charge is None:
            return
        state = charge.state
        if (state.decided and not state.healthy) or state.phase in (Phase.BACKOFF, Phase.FAILED):
            self._failing.add(name)
        else:
            self._failing.discard(name)
        self._begin_if_all()

    def _begin_if_all(self) -> None:
        if self._listings.keys() | self._failing >= self._tables.keys():
            self._begin()

    def forgotten(self, device: str) -> None:
        """Free the claim of a device that has left, and give it to whoever lists it too."""
        self._claims.release(device)
        self._uids.release(device)
        for table in self._tables.values():
            self._look_at_spared(table.name)
            if table.drop(device):
                table.notify()
        if not self._closed:
            self._offer_freed()

    def close(self) -> None:
        """Take no device in any more; those that are there may still leave."""
        self._closed = True
        self._timer.cancel()

    def _begin(self) -> None:
        if self._started:
            return
        self._timer.cancel()
        self._started = True
        for name in self._tables:
            if name in self._listings:
                self._apply(self._listings[name])

    def _offer_freed(self) -> None:
        """Look again at what could not be offered, if something became free: the scouts will not list it again."""
        for _turn in range(len(self._tables)):  # each may free something for the next
            if not self._claims.take_freed():
                return
            for name in list(self._tables):
                if name in self._listings and self._conflicts.get(name):
                    self._apply(self._listings[name])

    def _apply(self, listing: Listing) -> None:
        table = self._tables[listing.resource]
        seen = {device.id for device in listing.devices}
        # What a new selector leaves out is not gone: it is not wanted any more.
        unselected = self._outdated.pop(listing.resource, None) is not None
        # Nor is what the scout was told not to look at, now or when it made this list: it lists it again once it may.
        left_alone = frozenset((*self._told.get(listing.resource, ()), *listing.left_alone))
        for device_id in [one for one in table.devices if one not in seen]:
            if left_alone.intersection(node.path for node in table.devices[device_id].nodes):
                continue
            if unselected:
                self._supervisor.send(device_id, ev.Retired(self._supervisor.now()))
            else:
                self._gone(table, device_id)
        fit, conflicts = _fit(listing)
        for device, conflict in zip(fit, self._claims.claim_all(listing.resource, fit), strict=True):
            if conflict is None:
                self._present(table, device)
            else:
                conflicts.append(conflict)
                if device.id in table.devices:
                    self._gone(table, device.id, conflict)
        self._show_held(table, left_alone)
        for conflict in conflicts:
            if conflict not in self._conflicts.get(listing.resource, ()):
                log.error("%s: %s", listing.resource, conflict, extra={"resource": listing.resource})
        self._conflicts[listing.resource] = tuple(conflicts)
        table.discovered()

    def _show_held(self, table: ResourceTable, left_alone: frozenset[str]) -> None:
        """Take in devices that an earlier devd listed and a process of it holds: no scout may look at them now."""
        for hold in self._supervisor.holds:
            device = Device(hold.device, hold.nodes)
            told = hold.resource == table.name and left_alone.issuperset(node.path for node in hold.nodes)
            if not told or not hold.nodes or self._supervisor.get(hold.device) is not None:
                continue
            selected = not breach(table.config, Listing(table.name, 0, 0, (device,)))
            if selected and self._claims.claim(table.name, device) is None:
                self._present(table, device)

    def _gone(self, table: ResourceTable, device_id: str, why: str = "") -> None:
        nodes = ", ".join(node.path for node in table.devices[device_id].nodes) or device_id
        detail = f"{nodes} is gone: unplugged, or its driver let go of it"
        detail = why or next(iter(self._said_of(table.name, device_id)), detail)
        self._claims.leaving(device_id, vanished=not why)
        self._supervisor.send(device_id, ev.Vanished(self._supervisor.now(), detail))

    def _said_of(self, resource: str, device_id: str) -> list[str]:
        """Return what a scout says of a device that it does not list: problems that begin with the id."""
        listing = self._listings.get(resource)
        start = f"{device_id}: "
        return [one.removeprefix(start) for one in (listing.problems if listing else ()) if one.startswith(start)]

    def _present(self, table: ResourceTable, device: Device) -> None:
        known = table.devices.get(device.id)
        table.put(device)
        spec = self._worker_spec(table.config, device)
        charge = self._supervisor.get(device.id)
        if known is not None and charge is not None and known != device:
            replaced = "" if _numbers(known) == _numbers(device) else _replacement(known, device)
            self._supervisor.respec(device.id, spec, replaced)
            if not replaced and (known.params, known.nodes) != (device.params, device.nodes):
                why = CHANGED if known.nodes == device.nodes else RENAMED
                self._supervisor.respecify(device.id, spec, _policy(table.config), why)
        if charge is None or not charge.state.present or not charge.state.wanted:
            self._supervisor.add(device.id, table.name, _policy(table.config), spec, device.nodes)

    def _worker_spec(self, resource: Resource, device: Device) -> SpecMaker:
        return _worker_spec(resource, device, self._uids.of(device.id))

    def _scout_spec(self, resource: Resource) -> SpecMaker:
        def make(incarnation: int, health_endpoint: str, command_endpoint: str) -> WorkerSpec:
            scout = Device(scout_id(resource.name))
            bare = self._worker_spec(resource, scout)(incarnation, health_endpoint, command_endpoint)
            self._told[resource.name] = self._spared(resource.name)
            return dataclasses.replace(
                bare,
                role="scout",
                period_s=resource.discovery.period_s,
                timeout_s=resource.discovery.timeout_s,
                probe={},
                reset=None,
                match=resource.match,
                target=None,
                leave_alone=self._told[resource.name],
            )

        return make


def _fit(listing: Listing) -> tuple[list[Device], list[str]]:
    """Return the devices of a list that can be offered at all, and why the others cannot."""
    fit: dict[str, Device] = {}
    problems = []
    for device in listing.devices:
        unfit = _unfit(device, fit)
        if unfit is None:
            fit[device.id] = device
        else:
            problems.append(unfit)
    return list(fit.values()), problems


def _unfit(device: Device, before: Collection[str]) -> str | None:
    """Return why a device cannot be offered at all: its id breaks the kubelet's rules, or stands twice in the list."""
    if not DEVICE_ID.fullmatch(device.id):
        return f"device id {device.id!r:.80} is not 1 to {MAX_ID_CHARS} of letters, digits, '.', '_', ':' and '-'"
    return f"device id {device.id!r} stands twice in what was discovered" if device.id in before else None


def _numbers(device: Device) -> list[tuple[str, int, int]]:
    return [(node.kind, node.major, node.minor) for node in device.nodes]


def _replacement(old: Device, new: Device) -> str:
    def numbers(device: Device) -> str:
        return ", ".join(f"{node.path} ({node.kind} {node.major}:{node.minor})" for node in device.nodes)

    return f"another device stands in its place: was {numbers(old)}, is {numbers(new)}"


def _policy(resource: Resource) -> Policy:
    probe, restart, flap = resource.probe, resource.restart, resource.flap
    return Policy(
        period_s=probe.period_s,
        timeout_s=probe.timeout_s,
        failures=probe.failures,
        successes=probe.successes,
        reset_timeout_s=resource.reset.timeout_s if resource.reset else None,
        linger_s=resource.discovery.linger_s,
        intensity=restart.intensity,
        window_s=restart.period_s,
        backoff_s=restart.backoff_s,
        backoff_max_s=restart.backoff_max_s,
        retry_s=restart.retry_s,
        flap_count=flap.count if flap else 0,
        flap_within_s=flap.within_s if flap else 0.0,
        flap_hold_s=flap.hold_s if flap else 0.0,
    )


def _scout_policy(resource: Resource) -> Policy:
    discovery = resource.discovery
    return Policy(period_s=discovery.period_s, timeout_s=discovery.timeout_s, retry_s=30.0)


def _worker_spec(resource: Resource, device: Device, uid: int) -> SpecMaker:
    def make(incarnation: int, health_endpoint: str, command_endpoint: str) -> WorkerSpec:
        return WorkerSpec(
            role="worker",
            device=device.id,
            resource=resource.name,
            driver=resource.driver,
            incarnation=incarnation,
            health_endpoint=health_endpoint,
            command_endpoint=command_endpoint,
            period_s=resource.probe.period_s,
            timeout_s=resource.probe.timeout_s,
            probe=resource.probe.as_spec(),
            reset=resource.reset.as_spec() if resource.reset else None,
            target=device,
            sandbox=_sandbox(resource, uid),
        )

    return make


def _sandbox(resource: Resource, uid: int) -> dict[str, object]:
    allow = resource.sandbox_allow
    return {
        **(allow.as_spec() if allow is not None else {}),
        "required": resource.sandbox == "required",
        "uid": uid,
    }
