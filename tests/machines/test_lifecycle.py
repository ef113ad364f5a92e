"""The lifecycle under random histories, against an oracle that keeps its own books."""

import os
from collections.abc import Callable
from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from devd.daemon import events as ev
from devd.daemon import lifecycle, moves
from devd.daemon.device_state import BLANK, IN_FLIGHT_S, LEASE_SLACK_S, DeviceState, Memory, Phase, Policy, remembered
from devd.ipc.messages import Health

POLICY = Policy(
    period_s=1.0,
    timeout_s=0.5,
    failures=2,
    successes=2,
    reset_timeout_s=5.0,
    linger_s=10.0,
    intensity=3,
    window_s=20.0,
    backoff_s=0.2,
    backoff_max_s=4.0,
    retry_s=60.0,
)
FLAP_POLICY = replace(POLICY, flap_count=3, flap_within_s=4.0, flap_hold_s=3.0)
MEMORIES = (
    BLANK,
    BLANK,
    BLANK,
    BLANK,
    BLANK,
    Memory(worker=77),
    Memory(failed="given up", worker=77),
    Memory(failed="given up"),
    Memory(cordon="broken fan"),
    Memory(held=True, falls=(997.0, 999.0)),
)
"""What an earlier daemon may have left behind."""
HISTORIES = int(os.environ.get("DEVD_HISTORIES", "2000"))
"""Half a minute of computing; whoever has more time asks for more."""
STEPS = 40
RUN_WITHIN_S = max(600, HISTORIES // 2)
PAUSES_S = (0.0, 0.01, 0.3, 0.3, 0.7, 0.7, 1.1, 1.7, 2.5, 6.0, 16.0, 61.0)
"""Telling pauses: around each deadline of the policy, rather than any number."""


class Away:
    """Absences of the front since something became due: given back, and IN_FLIGHT_S with the first."""

    def __init__(self) -> None:
        self.total_s = 0.0

    def more_s(self, for_s: float) -> float:
        """Count an absence; return by how much what is due is put off."""
        more_s = for_s + (0.0 if self.total_s else IN_FLIGHT_S)
        self.total_s += more_s
        return more_s


class Ledger:
    """What the outside world knows: processes, leases earned, questions asked. It never reads the state under test."""

    def __init__(self, policy: Policy = POLICY) -> None:
        self.policy = policy
        self.live: set[int] = set()
        self.dying: set[int] = set()
        self.kills: dict[int, str] = {}
        self.ordered: set[int] = set()
        self.spawned: list[int] = []
        self.resetting: set[int] = set()
        self.asked: set[int] = set()
        self.answered: dict[int, bool] = {}
        self.forgotten = False
        # Health, by the rules of the configuration page.
        self.lease_s: float | None = None
        self.earned_s: float | None = None
        self.lease_away = Away()
        self.passes = self.fails = 0
        self.judged = False
        self.present = self.wanted = True
        # What withholds a device that is well.
        self.cordoned = self.held = self.was_well = self.stale = False
        self.falls_s: list[float] = []
        self.well_since_s: float | None = None
        # Restarts.
        self.by_clock = False
        self.end_ordered = False
        self.ends_s: list[float] = []
        self.served_from_s: float | None = None
        self.pause_s = 0.0
        self.retried = self.given_up = False
        self.failed_at_s = 0.0
        self.pause_away = Away()
        # When the present worker must have said something, by the time in which the front was there.
        self.patience_s: float | None = None

    def remember(self, memory: Memory, now_s: float) -> None:
        """Note what an earlier daemon left."""
        self.cordoned, self.held, self.falls_s = memory.cordon is not None, memory.held, list(memory.falls)
        self.retried = bool(memory.failed) and memory.worker is not None
        self.given_up = bool(memory.failed) and memory.worker is None
        self.judged = bool(memory.failed) or memory.worker is not None
        if memory.worker is not None:
            self.live, self.dying, self.end_ordered = {0}, {0}, True
        elif memory.failed:
            self.failed_at_s = now_s

    def healthy(self, now_s: float) -> bool:
        """Return whether the device is to be offered."""
        return self.well(now_s) and not self.cordoned and not self.held

    def observe(self, now_s: float) -> None:
        """Count falls, and how long it has been well, after something happened."""
        well = self.well(now_s)
        if not self.policy.flap_count:
            self.held = False
        elif self.was_well and not well and self.wanted:
            self.falls_s = [one for one in self.falls_s if one > now_s - self.policy.flap_within_s] + [now_s]
            self.held = self.held or len(self.falls_s) >= self.policy.flap_count
        if not well:
            self.well_since_s = None
        elif self.well_since_s is None:
            self.well_since_s = now_s
        elif self.held and now_s - self.well_since_s >= self.policy.flap_hold_s - 1e-9:
            self.held, self.falls_s = False, []
        self.was_well = well

    def well(self, now_s: float) -> bool:
        """Return whether the device has earned a lease that is good now."""
        return self.lease_s is not None and now_s < self.lease_s and self.present and self.wanted

    def heard(self, now_s: float, *, probed: bool) -> None:
        """Note that the present worker spoke; only a probe that ended, or its first word, gives it more time."""
        if self.resetting - self.dying:
            return
        if self.served_from_s is None or probed:
            self.must_speak(now_s + POLICY.lease_s)
        if self.served_from_s is None:
            self.served_from_s = now_s

    def lease_ends(self) -> None:
        """Note that whatever was earned is lost."""
        self.lease_s, self.earned_s, self.passes, self.judged = None, None, 0, True

    def lease_given(self, now_s: float) -> None:
        """Note that a probe has earned a lease."""
        self.lease_s = self.earned_s = now_s + POLICY.lease_s
        self.lease_away = Away()

    def lease_let_go(self, now_s: float) -> None:
        """Note that a reset holds the lease open no longer."""
        if self.lease_s is not None and self.earned_s is not None and self.earned_s > now_s:
            self.lease_s = self.earned_s
        elif self.lease_s is not None:
            self.lease_ends()

    def must_speak(self, by_s: float) -> None:
        """Note when the worker is to be heard at the latest."""
        self.patience_s = by_s

    def front_was_away(self, for_s: float) -> None:
        """Note an absence: no one else's time went by, and once more IN_FLIGHT_S is given to each thing that is due."""
        more_s = self.lease_away.more_s(for_s)
        if self.lease_s is not None:
            self.lease_s += more_s
        if self.earned_s is not None:
            self.earned_s += more_s
        self.pause_away.more_s(for_s)
        if self.patience_s is not None:
            self.patience_s += for_s

    def overdue(self, now_s: float) -> bool:
        """Return whether a worker that lives has been silent for longer than anything excuses."""
        return bool(self.live - self.dying) and self.patience_s is not None and now_s > self.patience_s + IN_FLIGHT_S

    def probe(self, verdict: str, now_s: float) -> None:
        """Note a finished probe."""
        if self.lease_s is not None and now_s >= self.lease_s:
            self.lease_ends()
        was_well = self.well(now_s)
        if verdict == "pass":
            self.passes, self.fails = self.passes + 1, 0
            grant = was_well or not self.judged or self.passes >= POLICY.successes
        else:
            self.passes, self.fails = 0, self.fails + 1
            grant = was_well and self.fails < POLICY.failures
        self.judged = True
        if grant:
            held_s = self.lease_s if self.resetting and self.lease_s is not None else 0.0
            self.lease_given(now_s)
            self.lease_s = max(held_s, now_s + POLICY.lease_s)
        elif verdict == "fail":
            self.lease_ends()

    def ended(self, now_s: float) -> None:
        """Note a worker's end that nobody ordered."""
        self.pause_away = Away()
        self.patience_s = None
        if not self.end_ordered:
            self.ends_s.append(now_s)
        self.end_ordered = False

    def restarted_by_clock(self, now_s: float) -> None:
        """Check a restart that only time brought about."""
        last_s = self.failed_at_s if self.given_up else self.ends_s[-1]
        pause_s = now_s - last_s - self.pause_away.total_s
        stable = self.served_from_s is not None and last_s - self.served_from_s >= POLICY.window_s
        recent = [one for one in self.ends_s if one > last_s - POLICY.window_s]
        gave_up = self.given_up or len(recent) > POLICY.intensity or (self.retried and not stable)
        if gave_up:
            assert pause_s >= POLICY.retry_s - 1e-6, "restarted past its intensity"
        elif not stable and not self.retried:
            grown_s = min(2 * self.pause_s, POLICY.backoff_max_s * (1 - moves.BACKOFF_JITTER))
            assert pause_s >= grown_s - 1e-6, "the pause did not grow inside a crash loop"
            assert pause_s >= self.pause_s - 1e-6, "the pause shrank inside a crash loop"
        assert pause_s >= POLICY.backoff_s * (1 - moves.BACKOFF_JITTER), "restarted without a pause"
        self.pause_s = 0.0 if gave_up or stable else pause_s
        self.retried = gave_up

    def pardon(self) -> None:
        """Note that an operator, or another device in this one's place, starts the count anew."""
        self.ends_s.clear()
        self.pause_s, self.retried = 0.0, False
        self.held, self.falls_s = False, []
        self.well_since_s = None


class LifecycleMachine(RuleBasedStateMachine):
    """Drives one device; every effect is checked the moment it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0
        self.books = Ledger()
        self.state: DeviceState
        self.seq = 0
        self.probes = 0
        self.reset_orders: list[tuple[int, int]] = []
        self.waiters = 0

    @initialize(
        policy=st.sampled_from([POLICY, FLAP_POLICY]), memory=st.sampled_from(MEMORIES), salt=st.sampled_from(range(8))
    )
    def begin(self, policy: Policy, memory: Memory, salt: int) -> None:
        """Discover the device; an earlier daemon may have known it."""
        self.policy, self.salt = policy, salt
        self.books = Ledger(policy)
        self.books.remember(memory, self.now_s)
        self.state, effects = lifecycle.birth("dev", self.now_s, policy, memory, salt)
        self._take(effects)
        assert remembered(self.state) == memory, "something was forgotten at birth"
        known_bad = bool(memory.failed) or memory.worker is not None
        assert bool(self.books.ordered) != known_bad, "tried at once, or not at all"

    # ---- the world's moves ----

    @precondition(lambda self: not self.books.forgotten)
    @rule(pause_s=st.sampled_from(PAUSES_S))
    def time_passes(self, pause_s: float) -> None:
        """Let time pass with every due Tick delivered on the way, as the shell does."""
        end_s = self.now_s + pause_s
        for _ in range(200):
            due_s = lifecycle.next_due_s(self.state)
            if due_s is None or due_s > end_s or self.books.forgotten:
                break
            self.now_s = max(self.now_s, due_s)
            self._tick()
        self.now_s = max(self.now_s, end_s)
        self._tick()

    @precondition(lambda self: not self.books.forgotten)
    @rule(for_s=st.sampled_from([0.3, 3.0, 30.0]))
    def front_is_away(self, for_s: float) -> None:
        """Stop the front itself for a while: no one else's time goes by."""
        well = self.books.well(self.now_s)
        self.now_s += for_s
        self.books.front_was_away(for_s)
        self._send(ev.Stalled(self.now_s, for_s))
        assert self.books.well(self.now_s) == well

    @precondition(lambda self: bool(self.books.live - self.books.dying))
    @rule(times=st.integers(2, 8), there_s=st.sampled_from([0.3, 0.7]))
    def front_is_starved(self, times: int, there_s: float) -> None:
        """Have the front away again and again, and there for less than a lease each time."""
        for _ in range(times):
            self.front_is_away(1.0)
            self.time_passes(there_s)
            if self.books.forgotten:
                return

    @precondition(lambda self: bool(self.books.ordered))
    @rule(well=st.booleans())
    def fork_is_answered(self, well: bool) -> None:  # noqa: FBT001 - hypothesis passes by name
        """Answer an order as the fork server does."""
        incarnation = self.books.ordered.pop()
        if well:
            self.books.live.add(incarnation)
            self.seq = self.probes = 0
            self._send(ev.Spawned(self.now_s, incarnation, 100 + incarnation))
        else:
            # What was ordered to end says nothing by not having come to be.
            if not self.books.well(self.now_s) and not self.books.end_ordered:
                self.books.lease_ends()
            self.books.ended(self.now_s)
            self._send(ev.SpawnFailed(self.now_s, incarnation, "EAGAIN"))

    @precondition(lambda self: bool(self.books.live - self.books.dying))
    @rule(
        verdicts=st.lists(st.sampled_from(["pass", "pass", "fail"]), min_size=1, max_size=4),
        apart_s=st.sampled_from([0.0, 0.2, 1.0]),
        stale=st.booleans(),
    )
    def probes_end(self, verdicts: list[str], apart_s: float, stale: bool) -> None:  # noqa: FBT001 - by name
        """Report some probes; perhaps the last report is doubled, or an older one comes late."""
        incarnation = max(self.books.live - self.books.dying)
        for verdict in verdicts:
            self.time_passes(apart_s)
            if self.books.forgotten or incarnation not in self.books.live - self.books.dying:
                return
            self.seq += 1
            self.probes += 1
            self.books.heard(self.now_s, probed=True)
            self.books.probe(verdict, self.now_s)
            health = self._health(incarnation, verdict)
            self._send(ev.Reported(self.now_s, incarnation, health))
            if stale:
                self._stale(incarnation, health)

    def _stale(self, incarnation: int, health: Health) -> None:
        before = self.state
        self._send(ev.Reported(self.now_s, incarnation, health))
        assert self.state == before, "a doubled report changed something"
        self.time_passes(0.001)
        before = self.state
        late = replace(health, seq=health.seq - 1, activity="open /dev/dev", activity_at_s=self.now_s)
        self._send(ev.Reported(self.now_s, incarnation, late))
        assert self.state == before, "a report that was overtaken changed something"

    @precondition(lambda self: bool(self.books.ordered | (self.books.live - self.books.dying)))
    @rule(passes=st.integers(1, POLICY.successes))
    def comes_up(self, passes: int) -> None:
        """Bring the device to health or near it, from where most faults are worth having."""
        if self.books.ordered:
            self.fork_is_answered(well=True)
        if self.books.live - self.books.dying:
            self.probes_end(["pass"] * passes, 0.0, stale=False)

    @precondition(lambda self: bool(self.books.live - self.books.dying))
    @rule(times=st.integers(1, 4))
    def flaps(self, times: int) -> None:
        """Fall and recover, again and again."""
        for _ in range(times):
            self._probe(["pass"] * POLICY.successes + ["fail"] * POLICY.failures, 0.2)
        self._probe(["pass"] * (POLICY.successes + 1), 0.7)

    def _probe(self, verdicts: list[str], apart_s: float) -> None:
        if self.books.live - self.books.dying and not self.books.forgotten:
            self.probes_end(verdicts, apart_s, stale=False)

    @precondition(lambda self: bool(self.books.live - self.books.dying))
    @rule(ok=st.booleans())
    def configured_during_reset(self, ok: bool) -> None:  # noqa: FBT001 - hypothesis passes by name
        """Change the configuration while a reset runs, then end the reset."""
        self._probe(["pass"], 0.0)
        self.container_starts()
        self.outside_changes(lambda at_s: ev.Respecified(at_s, "probe.period changed"))
        if self.reset_orders:
            self.reset_ends(ok)
            assert not self.books.live - self.books.dying, "a worker made by an old configuration stays"

    @precondition(lambda self: bool(self.books.live - self.books.dying))
    @rule(by_itself=st.booleans(), after_s=st.sampled_from([0.3, 0.7, 2.5]), pause_s=st.sampled_from([0.3, 1.7, 2.5]))
    def reset_is_cut_short(self, by_itself: bool, after_s: float, pause_s: float) -> None:  # noqa: FBT001 - by name
        """End the worker of a device that is well in the middle of its reset."""
        self._probe(["pass"] * POLICY.successes, 0.0)
        self.container_starts()
        self.time_passes(after_s)
        if self.books.forgotten or not self.books.resetting - self.books.dying:
            return
        if by_itself:
            self.worker_ends()
        else:
            self.outside_changes(ev.RestartAsked)
        self.healthy_exactly_while_earned()
        self.time_passes(pause_s)
        self.healthy_exactly_while_earned()

    @precondition(lambda self: not self.books.forgotten)
    @rule(times=st.integers(2, 5), pause_s=st.sampled_from([5.0, 6.0, 61.0]))
    def crash_loop(self, times: int, pause_s: float) -> None:
        """Each new worker dies at once, again and again."""
        for _ in range(times):
            while self.books.live:
                self.worker_ends()
            self.time_passes(pause_s)
            if self.books.forgotten or not self.books.ordered:
                return
            self.fork_is_answered(well=True)
        self.worker_ends()

    @precondition(lambda self: bool(self.books.live - self.books.dying))
    @rule()
    def probe_starts(self) -> None:
        """Tell of a call that begins."""
        incarnation = max(self.books.live - self.books.dying)
        self.seq += 1
        self.books.heard(self.now_s, probed=False)
        health = self._health(incarnation, "pass" if self.probes else "none", activity="open /dev/dev")
        self._send(ev.Reported(self.now_s, incarnation, health))

    @rule()
    def dead_worker_speaks(self) -> None:
        """Deliver the last words of an earlier incarnation: nothing may change."""
        if self.books.forgotten or self.state.incarnation < 2:
            return
        before = self.state
        self.seq += 1
        self._send(
            ev.Reported(self.now_s, self.state.incarnation - 1, self._health(self.state.incarnation - 1, "pass"))
        )
        assert self.state == before

    @precondition(lambda self: bool(self.books.live))
    @rule()
    def worker_ends(self) -> None:
        """See a worker's end, killed or by itself."""
        incarnation = min(self.books.live)
        self.books.live.discard(incarnation)
        self.books.dying.discard(incarnation)
        if incarnation in self.books.resetting:
            self.books.resetting.discard(incarnation)
            self.books.lease_let_go(self.now_s)
        why, judged, ordered = self.books.kills.pop(incarnation, ""), self.books.judged, self.books.end_ordered
        self.books.ended(self.now_s)
        self._send(ev.Exited(self.now_s, incarnation, "killed by SIGKILL" if why else "killed by SIGSEGV"))
        if self.state.phase in (Phase.BACKOFF, Phase.FAILED):
            assert why in self.state.last_end, "it is not told why devd ended the worker"
            assert judged or ordered or "ended" in self.state.reason, "a death is not told"
            assert self.state.phase is Phase.BACKOFF or self.state.last_end in self.state.reason

    @precondition(lambda self: bool(self.books.live))
    @rule()
    def worker_dies(self) -> None:
        """See a worker's process end, and not yet that all of its group has: nothing follows from that."""
        spawned, well = list(self.books.spawned), self.books.well(self.now_s)
        self._send(ev.Died(self.now_s, min(self.books.live)))
        assert self.books.spawned == spawned
        assert self.state.well == well

    @precondition(lambda self: bool(self.reset_orders))
    @rule(ok=st.booleans())
    def reset_ends(self, ok: bool) -> None:  # noqa: FBT001 - hypothesis passes by name
        """Answer a reset, if the worker lives to do so."""
        incarnation, reset_id = self.reset_orders.pop()
        if incarnation not in self.books.live - self.books.dying:
            return
        self.seq += 1
        self.probes += 1
        health = self._health(incarnation, "pass" if ok else "fail")
        self.books.resetting.discard(incarnation)
        self.books.must_speak(self.now_s + POLICY.lease_s)
        self.books.probe("pass" if ok else "fail", self.now_s)
        if self.books.stale:
            self.books.stale, self.books.end_ordered = False, True
        self._send(ev.ResetFinished(self.now_s, incarnation, reset_id, ok, "" if ok else "no", health))

    @precondition(lambda self: not self.books.forgotten)
    @rule(
        make=st.sampled_from(
            [
                ev.Found,
                lambda at_s: ev.Vanished(at_s, "gone"),
                lambda at_s: ev.Replaced(at_s, "another stands there"),
                lambda at_s: ev.Replaced(at_s, "yet another stands there"),
                ev.RestartAsked,
                ev.Found,
                ev.Found,
                lambda at_s: ev.Vanished(at_s, "gone again"),
                lambda at_s: ev.Respecified(at_s, "probe.period changed"),
                lambda at_s: ev.Respecified(at_s, "probe.timeout changed"),
                ev.Retired,
            ]
        )
    )
    def outside_changes(self, make: Callable[[float], ev.Event]) -> None:
        """Discovery or an operator changes something."""
        event = make(self.now_s)
        books = self.books
        worker = bool(books.live or books.ordered)
        match event:
            case ev.Vanished() if books.present:
                books.lease_ends()
                books.present, books.end_ordered = False, worker
            case ev.Retired():
                books.lease_ends()
                books.wanted, books.end_ordered = False, worker
            case ev.Replaced():
                books.lease_ends()
                books.present, books.wanted, books.end_ordered = True, True, worker
                books.pardon()
                books.was_well = False
            case ev.Respecified():
                self._respecified(worker=worker)
            case ev.RestartAsked():
                if books.resetting - books.dying:
                    books.lease_let_go(self.now_s)
                books.end_ordered = worker or books.end_ordered
                books.pardon()
            case ev.Found() if not (books.present and books.wanted):
                books.judged = books.judged and worker
                books.present = books.wanted = True
                books.end_ordered = worker
        resetting = books.resetting - books.dying
        self._send(event)
        if isinstance(event, ev.Vanished | ev.Retired):
            assert not books.live - books.dying, "a device that is not there keeps its worker"
        if isinstance(event, ev.Respecified):
            assert books.live - books.dying == resetting, "a worker made by an old configuration stays"

    def _respecified(self, *, worker: bool) -> None:
        books = self.books
        if books.resetting - books.dying:
            books.stale = True
        elif worker:
            books.end_ordered = True
        elif books.present and books.wanted:
            books.pardon()

    @precondition(lambda self: not self.books.forgotten)
    @rule(on=st.booleans())
    def operator_cordons(self, on: bool) -> None:  # noqa: FBT001 - hypothesis passes by name
        """Withhold the device, or give it back; no worker is touched by it."""
        before = (set(self.books.live), set(self.books.dying), set(self.books.ordered))
        self.books.cordoned = on
        self._send(ev.Cordoned(self.now_s, "broken fan") if on else ev.Uncordoned(self.now_s))
        assert before == (self.books.live, self.books.dying, self.books.ordered)
        assert (remembered(self.state).cordon is not None) == on

    @precondition(lambda self: self.books.forgotten)
    @rule()
    def rediscovered(self) -> None:
        """Find the device again after all of it was forgotten."""
        self.reset_orders = []
        self.begin(self.policy, replace(remembered(self.state), worker=None), self.salt)

    @precondition(lambda self: bool(self.books.live - self.books.dying))
    @rule()
    def worker_misbehaves(self) -> None:
        """Break the protocol: the worker's lease is worth nothing."""
        incarnation = max(self.books.live - self.books.dying)
        self.books.lease_ends()
        self._send(ev.Misbehaved(self.now_s, incarnation, "garbage"))

    @precondition(lambda self: not self.books.forgotten)
    @rule()
    def container_starts(self) -> None:
        """Ask for PreStart as the kubelet does."""
        self.waiters += 1
        self.books.asked.add(self.waiters)
        self._send(ev.PreStartAsked(self.now_s, self.waiters))

    @precondition(lambda self: bool(self.books.asked - set(self.books.answered)) and not self.books.forgotten)
    @rule()
    def waiter_expires(self) -> None:
        """End a PreStart's time: it must be answered now."""
        waiter = min(self.books.asked - set(self.books.answered))
        self._send(ev.PreStartExpired(self.now_s, waiter))
        assert waiter in self.books.answered

    # ---- the checks ----

    def _tick(self) -> None:
        if self.books.lease_s is not None and self.now_s >= self.books.lease_s:
            self.books.lease_ends()
        self.books.by_clock = True
        self._send(ev.Tick(self.now_s))
        self.books.by_clock = False
        assert self.books.forgotten or not self.books.overdue(self.now_s), "a worker that hangs is not found"

    def _send(self, event: ev.Event) -> None:
        if self.books.forgotten:
            return
        self.state, effects = lifecycle.step(self.state, event, self.policy)
        self._take(effects)
        self.books.observe(self.now_s)

    def _take(self, effects: tuple[ev.Effect, ...]) -> None:
        for effect in effects:
            match effect:
                case ev.Spawn(incarnation):
                    self._on_spawn(incarnation)
                case ev.Record("wedged" | "failed"):
                    self.books.lease_ends()
                case ev.Kill(incarnation, reason):
                    self._on_kill(incarnation, reason)
                case ev.AskStop(incarnation):
                    assert incarnation in self.books.live
                    self.books.dying.add(incarnation)
                case ev.SendReset(incarnation, reset_id):
                    self._on_reset(incarnation, reset_id)
                case ev.Answer(waiter, ok, text):
                    self._on_answer(waiter, ok=ok, text=text)
                case ev.Forget():
                    assert not self.books.live, "forgotten while its process lives"
                    assert not self.books.ordered, "forgotten while a worker is on order"
                    self.books.forgotten = True

    def _on_spawn(self, incarnation: int) -> None:
        assert not self.books.live, "a second process for one device"
        assert not self.books.ordered, "a second order for one device"
        assert not self.books.spawned or incarnation > self.books.spawned[-1], "an incarnation was used twice"
        self.books.ordered.add(incarnation)
        self.books.spawned.append(incarnation)
        self.books.passes = 0
        self.books.stale = False
        self.books.must_speak(self.now_s + moves.START_TIMEOUT_S)
        if self.books.by_clock:
            self.books.restarted_by_clock(self.now_s)
        self.books.given_up = False
        self.books.served_from_s = None

    def _on_kill(self, incarnation: int, reason: str) -> None:
        if (
            "hung" in reason
            or "silent" in reason
            or "dead" in reason
            or ("first word" in reason and not self.books.well(self.now_s))
        ):
            self.books.lease_ends()
        if incarnation in self.books.live:
            self.books.dying.add(incarnation)
        self.books.kills.setdefault(incarnation, reason)

    def _on_reset(self, incarnation: int, reset_id: int) -> None:
        assert incarnation in self.books.live - self.books.dying
        assert incarnation not in self.books.resetting, "two resets at once"
        self.books.resetting.add(incarnation)
        self.reset_orders = [(incarnation, reset_id)]
        hold_s = 2 * POLICY.timeout_s + (POLICY.reset_timeout_s or 0) + LEASE_SLACK_S
        self.books.must_speak(self.now_s + hold_s)
        if self.books.lease_s is not None:
            self.books.lease_s = max(self.books.lease_s, self.now_s + hold_s + IN_FLIGHT_S)

    def _on_answer(self, waiter: int, *, ok: bool, text: str) -> None:
        assert waiter in self.books.asked, "an answer nobody asked for"
        assert waiter not in self.books.answered, "answered twice"
        assert ok or text, "a refusal without a reason"
        self.books.answered[waiter] = ok

    def _health(self, incarnation: int, verdict: str, activity: str = "") -> Health:
        assert verdict in {"pass", "fail", "none"}
        return Health(
            device="dev",
            incarnation=incarnation,
            seq=self.seq,
            verdict=verdict,  # type: ignore[arg-type]  # checked above
            reason="" if verdict == "pass" else "sick",
            probe_count=self.probes,
            probe_kind="open",
            probe_at_s=self.now_s,
            probe_duration_s=0.0,
            activity=activity,
            activity_at_s=self.now_s if activity else 0.0,
        )

    @invariant()
    def healthy_exactly_while_earned(self) -> None:
        """Compare what is offered with what the books say was earned."""
        if not hasattr(self, "state") or self.books.forgotten:
            return
        assert self.state.healthy == self.books.healthy(self.now_s)

    @invariant()
    def unhealthy_says_why(self) -> None:
        """Each device that is not healthy has a reason."""
        if hasattr(self, "state") and not self.state.healthy:
            assert self.state.reason

    @invariant()
    def a_worker_phase_has_a_worker(self) -> None:
        """Compare the phases with the processes the world knows of."""
        if not hasattr(self, "state") or self.books.forgotten:
            return
        if self.state.phase in (Phase.ABSENT, Phase.BACKOFF, Phase.FAILED):
            assert not self.books.live
            assert not self.books.ordered
        else:
            assert self.books.live or self.books.ordered

    @invariant()
    def nothing_hangs_for_ever(self) -> None:
        """Each phase but a wedged STOPPING and ABSENT has a deadline."""
        if not hasattr(self, "state") or self.books.forgotten:
            return
        if self.state.phase is Phase.ABSENT:
            return
        assert self.state.deadline_s is not None or (self.state.phase is Phase.STOPPING and self.state.wedged)


LifecycleMachine.TestCase.settings = settings(max_examples=HISTORIES, stateful_step_count=STEPS, deadline=None)
TestLifecycle = pytest.mark.timeout(RUN_WITHIN_S)(LifecycleMachine.TestCase)
