"""What workers say, taken in: each speaks for itself alone, and what does not fit ends the speaker.

Texts and numbers are cut to size here; what they mean is the lifecycle's matter.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from devd.daemon import events as ev
from devd.daemon import proc
from devd.daemon.charge import Charge, Keeper, Listeners
from devd.daemon.claimed_text import REASON_CHARS, bounded_findings, bounded_health, bounded_sandbox, plain
from devd.daemon.health_feed import most_sequence
from devd.daemon.memory import baseline_fits
from devd.daemon.sandbox_words import BROKEN
from devd.daemon.stirring import Stirring
from devd.ipc.messages import Findings, FromWorker, Health, Hello, Listing, ResetDone, Stirred, Written

log = logging.getLogger("devd.supervisor")


class Shell(Protocol):
    """Whom it tells what was heard. All calls come on the event loop."""

    def now(self) -> float:
        """Return CLOCK_MONOTONIC seconds."""

    def send(self, device: str, event: ev.Event) -> None:
        """Step a device's lifecycle."""

    def misbehaved(self, device: str, incarnation: int, detail: str) -> None:
        """End a worker that broke the protocol."""


class Hearing:
    """The receiving end of every worker's channel, and of the health bus."""

    def __init__(
        self, shell: Shell, charges: Mapping[str, Charge], keeper: Keeper, tell: Listeners, stirring: Stirring
    ) -> None:
        self._shell = shell
        self._charges = charges
        self._keeper = keeper
        self._tell = tell
        self._stirring = stirring

    def said(self, device: str, incarnation: int, message: FromWorker) -> str:
        """Take in a message from a worker's own channel; return why it is refused, or "".

        It may speak for itself alone; what its role may say at all is its channel's matter.
        """
        charge = self._charges.get(device)
        if charge is None or charge.state.incarnation != incarnation:
            return ""
        claimed, own = _speaker(message, charge)
        if claimed != own or message.incarnation != incarnation:
            detail = f"spoke for {claimed!r:.80}, incarnation {message.incarnation}"
            self._shell.misbehaved(device, incarnation, detail)
            return "spoof"
        match message:
            case Hello():
                charge.sandbox = bounded_sandbox(message.sandbox)
                self._check_sandbox(charge, incarnation)
                self._tell.greeted(device)
            case ResetDone(_, _, reset_id, ok, reason, _, health):
                said = plain(reason, REASON_CHARS)
                done = ev.ResetFinished(self._shell.now(), incarnation, reset_id, ok, said, bounded_health(health))
                self._shell.send(device, done)
            case Listing():
                self._tell.listed(device, message)
            case Stirred():
                self._stirring.take(message)
            case Findings():
                self._take_findings(charge, message)
            case Written():
                self._tell.wrote(message)
        return ""

    def _take_findings(self, charge: Charge, found: Findings) -> None:
        device = charge.state.id
        if not baseline_fits(found.baseline):
            self._shell.misbehaved(device, charge.state.incarnation, "sent a baseline that is too large to be kept")
            return
        charge.findings = bounded_findings(found)
        self._keeper.keep_baseline(device, found.baseline)

    def _check_sandbox(self, charge: Charge, incarnation: int) -> None:
        """Compare what a worker says of its sandbox with what the kernel says, as far as it does."""
        pid, sandbox = charge.state.pid, charge.sandbox
        if pid is None or sandbox is None:
            return
        if sandbox.level == BROKEN:
            why = "; ".join(f"{layer}: {why}" for layer, why in sandbox.missing.items())
            log.error("%s: its sandbox does not hold: %s", charge.state.id, why, extra={"device": charge.state.id})
        layer = proc.contradicted(pid, sandbox.active, charge.uid)
        if layer:
            self._shell.misbehaved(
                charge.state.id, incarnation, f"said that its sandbox has the layer {layer}, and it has not"
            )

    def reported(self, device: str, health: Health) -> str:
        """Take in a health message whose sender is known to be the device's worker; return why it is refused, or ""."""
        charge = self._charges.get(device)
        if charge is None or health.incarnation < charge.state.incarnation:
            return "stale"
        state = charge.state
        if health.incarnation > state.incarnation:
            self._shell.misbehaved(device, state.incarnation, f"spoke for incarnation {health.incarnation}")
            return "spoof"
        if health.seq > most_sequence(self._shell.now() - state.spawned_at_s):
            self._shell.misbehaved(device, state.incarnation, f"sent the impossible sequence number {health.seq}")
            return "future"
        health = bounded_health(health)
        if health.verdict == "fail" and state.pid is not None and (stuck := proc.stuck(state.pid)):
            # The worker may not see of its own command what it hangs in.
            health = replace(health, reason=f"{health.reason}; {stuck}")
        self._shell.send(device, ev.Reported(self._shell.now(), health.incarnation, health))
        return ""


def _speaker(message: FromWorker, charge: Charge) -> tuple[str, str]:
    """Return for whom a message says it speaks, and for whom its sender may: a scout speaks for its resource."""
    if isinstance(message, Listing | Stirred):
        return message.resource, charge.resource
    return message.device, charge.state.id
