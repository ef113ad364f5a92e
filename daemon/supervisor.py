"""The shell around the lifecycles: runs their effects and feeds them what happened.

One charge is one device (or one resource's scout) with its state and its policy. Everything here runs on the event
loop and nothing here blocks.
"""

import logging
import secrets
import time
from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import zmq

from devd.daemon import events as ev
from devd.daemon import lifecycle, proc
from devd.daemon.census import Census
from devd.daemon.cgroups import Cgroups
from devd.daemon.charge import Charge, Keeper, Listeners, SpecMaker
from devd.daemon.crowd import Crowd
from devd.daemon.deadlines import Deadlines
from devd.daemon.device_state import DeviceState, Phase, Policy, remembered
from devd.daemon.fences import Fences
from devd.daemon.hearing import Hearing
from devd.daemon.holds import Holds
from devd.daemon.recollection import Recollection
from devd.daemon.stirring import Stirring
from devd.daemon.turns import Turns
from devd.daemon.workforce import End, Workforce
from devd.ipc.endpoints import RuntimeLayout, ipc_address
from devd.ipc.identity import PeerAuthenticator
from devd.ipc.messages import (
    Fault,
    FromWorker,
    Health,
    Inject,
    Node,
    ProbeNow,
    Reset,
    Stop,
    Usage,
)

log = logging.getLogger("devd.supervisor")


class Supervisor:
    """Owner of all charges; the workforce does what their lifecycles ask for."""

    def __init__(
        self,
        loop: AbstractEventLoop,
        context: zmq.Context[zmq.Socket[bytes]],
        layout: RuntimeLayout,
        auth: PeerAuthenticator,
        tell: Listeners,
        remember: Callable[[Fences], Keeper],
        cgroups: Cgroups,
    ) -> None:
        self._cgroups = cgroups
        self._loop = loop
        self._fences = Fences(loop, self._fence_ended)
        self._groups = proc.Groups()
        self._census = Census(loop)
        self._health_endpoint = ipc_address(layout.health)
        self.place = str(layout.root.absolute())
        """Where this devd runs: its runtime directory, which no other one has."""
        self._tell = tell
        self._charges: dict[str, Charge] = {}
        self.holds = Holds(self._fences, self._charges)
        self._keeper = remember(self._fences)
        self._memory = Recollection(loop, self._keeper, self.holds, self._charges, self.send, tell.changed)
        self._crowd = Crowd()
        self._salt = secrets.randbits(32)
        self._hearing = Hearing(self, self._charges, self._keeper, tell, Stirring(self, self.now))
        self.turns = Turns(loop)
        self._deadlines = Deadlines(loop, self.turns, self._charges, self.send)
        self.workforce = Workforce(loop, context, layout, auth, self, self.turns)

    # ---- the charges ----

    def add(
        self, device: str, resource: str, policy: Policy, make_spec: SpecMaker, nodes: tuple[Node, ...] = ()
    ) -> None:
        """Take a device into care and order its first worker; one that is still on its way out comes back.

        None is ordered while a process that does not end holds one of its nodes.
        """
        charge = self._charges.get(device)
        if charge is not None:
            charge.resource, charge.policy, charge.make_spec = resource, policy, make_spec
            self.send(device, ev.Found(self.now()))
            return
        state, effects = lifecycle.birth(device, self.now(), policy, self._memory.of(device, nodes), self._salt)
        charge = Charge(resource, state, policy, make_spec, nodes, remembered(state), since_wall_s=time.time())
        self._charges[device] = charge
        self.holds.born(charge)
        if state.decided:
            self._tell.changed(device)
        self._run(charge, effects, state)
        self._deadlines.arm(charge)

    def respec(self, device: str, make_spec: SpecMaker, replaced: str = "") -> None:
        """Have the next worker made by another spec; ``replaced`` says that the id stands on other nodes now."""
        self._charges[device].make_spec = make_spec
        if replaced:
            self.send(device, ev.Replaced(self.now(), replaced))

    def respecify(self, device: str, make_spec: SpecMaker, policy: Policy, why: str) -> None:
        """Have a device live by other numbers; ``why`` (if not empty) replaces its worker, in order, as well."""
        charge = self._charges.get(device)
        if charge is None:
            return
        charge.make_spec, charge.policy = make_spec, policy
        if why:
            self.send(device, ev.Respecified(self.now(), why))

    def get(self, device: str) -> Charge | None:
        """Return a charge, or None."""
        return self._charges.get(device)

    def __iter__(self) -> Iterator[Charge]:
        return iter(list(self._charges.values()))

    def healthy(self, device: str) -> bool:
        """Return whether the device has a live lease this instant, whatever timers have yet to fire."""
        self._deadlines.catch_up()
        charge = self._charges.get(device)
        if charge is None or not charge.state.healthy:
            return False
        lease_s = charge.state.lease_until_s
        return lease_s is not None and self.now() < lease_s

    def baseline(self, device: str) -> Mapping[str, object]:
        """Return what the last worker of a device left to its next, under an earlier devd as well."""
        return self._keeper.baseline(device)

    def forget_baseline(self, device: str) -> None:
        """Have a device's next worker begin without what its last one left: its counters count from then on."""
        self._charges[device].forgets = True
        self._record(device, "forgotten", "what its counters grew by until now is known: its next worker begins anew")

    def probe_now(self, device: str) -> bool:
        """Ask a device's worker to probe at once; False when none can be asked."""
        return self.workforce.send(device, ProbeNow())

    def inject(self, device: str, fault: Fault | None) -> None:
        """Have a simulated device misbehave, its present worker and those to come; None ends it."""
        self._charges[device].injected = fault
        # A worker that does not hear this hangs or is on its way out: the next one is told at its birth.
        self.workforce.send(device, Inject(fault))
        self._record(device, "injected", fault.do if fault is not None else "nothing any more")

    def now(self) -> float:
        """Return CLOCK_MONOTONIC seconds, the one clock of all deadlines."""
        return time.monotonic()

    def on_stall(self, drain: Callable[[], None]) -> None:
        """Set what is called first after the front was away: it takes in what has arrived meanwhile."""
        self._deadlines.on_stall(drain)

    @property
    def stalls(self) -> int:
        """How often the front itself was away."""
        return self._deadlines.stalls

    # ---- events in, effects out ----

    def send(self, device: str, event: ev.Event) -> None:
        """Step a device's lifecycle; an event for a device that is gone is dropped."""
        self._deadlines.catch_up()
        charge = self._charges.get(device)
        if charge is None:
            return
        before = charge.state
        charge.state, effects = lifecycle.step(before, event, charge.policy)
        self._note_changes(charge, before)
        self._run(charge, effects, before)
        if device in self._charges:
            self._deadlines.arm(charge)

    def _left_to(self, charge: Charge) -> Mapping[str, object]:
        """Return what a device's next worker is told of its last one; nothing where that is to be forgotten."""
        if charge.forgets:
            charge.forgets = False
            self._keeper.keep_baseline(charge.state.id, {})
        return self._keeper.baseline(charge.state.id)

    def _note_changes(self, charge: Charge, before: DeviceState) -> None:
        after = charge.state
        if after.last is not before.last:
            charge.last_probe_wall_s = time.time()
        if after.healthy != before.healthy:
            charge.since_wall_s = time.time()
        if charge.news(before):
            word = "Healthy" if after.healthy else "Unhealthy"
            probe_at_s = after.last.probe_at_s if after.last is not None and after.last is not before.last else None
            detail = f"{word}: {after.reason or 'lease granted'}"
            alarm = not after.healthy and after.phase is not Phase.LEAVING
            self._record(after.id, "verdict", detail, alarm=alarm, health=word, probe_at_s=probe_at_s)
        self._memory.note(charge)
        if (after.healthy, after.listed) != (before.healthy, before.listed):
            self._tell.turned(after.id)
        shown = (after.healthy, after.listed, after.decided, after.reason, after.phase)
        if shown != (before.healthy, before.listed, before.decided, before.reason, before.phase):
            self._tell.changed(after.id)

    def _run(self, charge: Charge, effects: tuple[ev.Effect, ...], before: DeviceState) -> None:
        device = charge.state.id
        for effect in effects:
            match effect:
                case ev.Spawn(incarnation):
                    self._spawn(charge, incarnation)
                case ev.AskStop():
                    self.workforce.send(device, Stop())
                case ev.Kill(incarnation, _, inspect):
                    self._kill_in_turn(device, incarnation, inspect=inspect)
                case ev.SendReset(_, reset_id):
                    self._order_reset(charge, Reset(reset_id, charge.policy.reset_timeout_s or 0.0))
                case ev.Answer(waiter, ok, text):
                    self._tell.answered(waiter, device, ok, text)
                case ev.Record(event, detail):
                    if event == "kill" and before.activity:
                        self._record(device, event, detail, activity_at_s=before.activity_at_s)
                    else:
                        self._record(device, event, detail)
                case ev.Forget():
                    self._forget(charge)

    def _forget(self, charge: Charge) -> None:
        device = charge.state.id
        self._charges.pop(device, None)
        self._memory.forgotten(charge)
        if not charge.state.present:
            self._tell.departed(device)
        self._cgroups.remove(device)
        self._tell.forgotten(device)

    def _spawn(self, charge: Charge, incarnation: int) -> None:
        device = charge.state.id
        charge.sandbox = None
        endpoint = self.workforce.socket_for_next()
        spec = charge.make_spec(incarnation, self._health_endpoint, endpoint)
        charge.nodes = spec.target.nodes if spec.target is not None else ()
        if (hold := self.holds.on(device, charge.nodes)) is not None:
            # Its nodes have become those that a process holds: one process a wedged device, never more.
            self._loop.call_soon(self.spawn_failed, device, incarnation, hold.words)
            return
        sandbox = {**spec.sandbox, **self._cgroups.options(device)}
        spec = replace(spec, sandbox=sandbox, baseline=self._left_to(charge), injected=charge.injected)
        charge.simulated = spec.probe.get("kind") == "sim"
        charge.asks_usage = spec.reset is not None and spec.reset.get("kind") == "driver"
        uid = spec.sandbox.get("uid")
        charge.uid = uid if isinstance(uid, int) else -1
        self.workforce.spawn(device, spec)

    def _order_reset(self, charge: Charge, order: Reset) -> None:
        """Send a reset; one of a driver's own goes once it is known who uses what.

        An order that is not taken is an answer that does not come: the reset's deadline ends it.
        """
        device, incarnation = charge.state.id, charge.state.incarnation
        respects = self._tell.respects(device, charge.state.waiters)
        occupied = respects()
        spared = occupied.spared or occupied.refused

        def send(usage: Usage) -> None:
            if charge.state.incarnation == incarnation:
                occupied = respects()
                unseen = "; ".join(one for one in (usage.unseen, occupied.unseen) if one)
                usage = replace(usage, allocated=occupied.allocated, unseen=unseen)
                self.workforce.send(device, replace(order, usage=usage))

        if spared:
            self._record(device, "reset-spared", f"{spared}: it is probed and not reset")
            self.workforce.send(device, replace(order, spared=spared))
        elif charge.asks_usage:
            self._census.ask(send)
        else:
            self.workforce.send(device, order)

    def _kill_in_turn(self, device: str, incarnation: int, *, inspect: bool) -> None:
        """Have a worker ended in its turn: of hundreds that hang, first all are judged, then they are ended."""

        def work() -> bool:
            self._kill(device, incarnation, inspect=inspect)
            return False

        self.turns.put(("kill", device, incarnation), work)

    def _kill(self, device: str, incarnation: int, *, inspect: bool) -> None:
        charge = self._charges.get(device)
        pid = self.workforce.pid(device, incarnation)
        fence = self._fences.of(device, charge.nodes) if charge is not None and pid is None else None
        if fence is not None:
            pid = fence.pid
            self._fences.kill(fence)
        detail = self._groups.observe(pid) if inspect and pid is not None else ""
        self.workforce.kill(device, incarnation)
        if detail:
            self._loop.call_soon(self.send, device, ev.Observed(self.now(), incarnation, detail))

    def _record(self, device: str, event: str, detail: str, *, alarm: bool = False, **more: object) -> None:
        level = logging.WARNING if alarm or event in {"kill", "failed", "wedged", "crash"} else logging.INFO
        log.log(level, "%s: %s: %s", device, event, detail, extra={"device": device, "event": event, **more})
        self._tell.journal(device, event, {"detail": detail, **more})

    # ---- what the workforce tells ----

    def spawned(self, device: str, incarnation: int, pid: int) -> None:
        """Take note of a worker's birth."""
        self.send(device, ev.Spawned(self.now(), incarnation, pid))

    def spawn_failed(self, device: str, incarnation: int, reason: str) -> None:
        """Take note that a worker could not be made."""
        self.send(device, ev.SpawnFailed(self.now(), incarnation, reason))

    def died(self, device: str, incarnation: int) -> None:
        """Take note that a worker's process has ended."""
        self.send(device, ev.Died(self.now(), incarnation))

    def exited(self, device: str, incarnation: int, end: End) -> None:
        """Take note of a worker's end and write its crash record."""
        charge = self._charges.get(device)
        if charge is None:
            return
        state = charge.state
        uptime_s = self.now() - state.spawned_at_s
        expected = state.phase in (Phase.LEAVING, Phase.STOPPING)
        self._record(
            device,
            "exit" if expected else "crash",
            f"worker {end.pid} {end.detail} after {uptime_s:.1f} s",
            pid=end.pid,
            incarnation=incarnation,
            uptime_s=round(uptime_s, 3),
            stderr=list(end.last_words),
            usage=end.usage,
        )
        ordered = state.respawn or not (state.wanted and state.present)
        wait_s = 0.0 if ordered else self._crowd.wait_s(self.now())
        self.send(device, ev.Exited(self.now(), incarnation, end.detail, wait_s))
        self._let_go()

    def _fence_ended(self, device: str) -> None:
        self._let_go()
        self._tell.changed(device)

    def _let_go(self) -> None:
        """Start a worker for each device that waited for a process that has ended now."""
        for device in self.holds.over():
            charge = self._charges.get(device)
            if charge is not None:
                self._record(device, "exit", f"process {charge.state.pid}, which held the device, is gone")
                self.send(device, ev.Exited(self.now(), 0, "held the device"))

    def said(self, device: str, incarnation: int, message: FromWorker) -> str:
        """Take in a message from a worker's own channel; return why it is refused, or ""."""
        return self._hearing.said(device, incarnation, message)

    def misbehaved(self, device: str, incarnation: int, detail: str) -> None:
        """End a worker that broke the protocol."""
        self.send(device, ev.Misbehaved(self.now(), incarnation, detail))

    def reported(self, device: str, health: Health) -> str:
        """Take in a health message whose sender is known to be the device's worker; return why it is refused, or ""."""
        return self._hearing.reported(device, health)

    # ---- the end ----

    def close(self) -> None:
        """Stop the clock and end every worker."""
        self._deadlines.close()
        self.turns.close()
        self._fences.close()
        self._census.close()
        self._cgroups.close()
        self.workforce.close()
