"""The front's side of ``devd status`` and the operator's verbs: one answer to each request, from memory.

Whoever asks much waits: after each answer the desk rests for a multiple of what it took, so that the kubelet's calls
never share the loop with more than a fifth of it, however many ask.
"""

import logging
import os
import time
from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable, Mapping

from devd.daemon import events as ev
from devd.daemon.claimed_text import REASON_CHARS, plain
from devd.daemon.device_state import DeviceState, Phase
from devd.daemon.door_keeper import DoorKeeper
from devd.daemon.injection import inject
from devd.daemon.reset_orders import ResetOrders
from devd.daemon.seldom import Seldom
from devd.daemon.supervisor import Supervisor
from devd.ipc.control import Asked, ControlServer
from devd.ipc.identity import Caller
from devd.ipc.messages import ControlReply, ControlRequest

REST_FACTOR = 4.0
"""An answer that took a millisecond is followed by four in which others have the loop."""
MAX_REST_S = 0.2
ROOT = 0

log = logging.getLogger("devd.control")

Status = Callable[[], Mapping[str, object]]


class ControlDesk:
    """Reads the control socket on the event loop and answers.

    ``unready`` returns what the kubelet does not have of devd, empty when it has all. ``group`` says that the socket is
    open to a group as well; then its file's mode alone decides who may ask.
    """

    def __init__(
        self,
        loop: AbstractEventLoop,
        server: ControlServer,
        supervisor: Supervisor,
        status: Status,
        unready: Callable[[], str],
        reload: Callable[[], None],
        resets: ResetOrders,
        *,
        group: bool = False,
    ) -> None:
        self._unready = unready
        self._reload = reload
        self._resets = resets
        self._loop = loop
        self._server = server
        self._supervisor = supervisor
        self._status = status
        self._group = group
        self._rest: TimerHandle | None = None
        self.answered = 0
        self._refusals = Seldom()
        self._keeper = DoorKeeper(loop, server.door)
        loop.add_reader(server.fd, self._next)

    @property
    def refused(self) -> int:
        """Return how many requests came from callers that may not ask."""
        return self._refusals.count

    @property
    def cuts(self) -> int:
        """Return how often all callers were sent away, because they were too many or one of them sent without end."""
        return self._keeper.cuts

    def cut(self, why: str) -> None:
        """End all connections for a moment, for what one of them did."""
        self._keeper.cut(f"the control socket's connections: {why}")

    def close(self) -> None:
        """Stop answering and remove the socket."""
        self._resets.close()
        if self._rest is not None:
            self._rest.cancel()
        self._keeper.close()
        self._loop.remove_reader(self._server.fd)
        self._server.close()

    def _next(self) -> None:
        """Answer one request, then rest if more may wait."""
        began_s = time.monotonic()
        self._rest = None
        for asked in self._server.drain(1):
            reply = self._safely(asked)
            if reply is not None:
                self._server.reply(asked.route, reply)
        if self._server.pending():
            # While it rests the descriptor stays readable: nobody may be woken by it.
            self._loop.remove_reader(self._server.fd)
            rest_s = min(MAX_REST_S, REST_FACTOR * (time.monotonic() - began_s))
            self._rest = self._loop.call_later(rest_s, self._next)
        else:
            self._loop.add_reader(self._server.fd, self._next)

    def _safely(self, asked: Asked) -> ControlReply | None:
        """Answer in any case: an operator who gets no answer takes the daemon for dead. None: it comes later."""
        request, caller = asked.request, asked.caller
        if caller is None or not self._may_ask(caller):
            self._refuse(caller)
            who = "nobody vouches for this caller" if caller is None else f"uid {caller.uid} is neither"
            return ControlReply(ok=False, error=f"devd answers to root and its own user: {who}")
        self.answered += 1
        if request is None:
            return ControlReply(ok=False, error=asked.error)
        try:
            return self._answer(request, caller, asked.route)
        except Exception as error:  # a bug of ours, whatever it is: told to both sides
            log.exception("the answer to %r failed", request.verb)
            return ControlReply(ok=False, error=f"a bug of devd: {type(error).__name__}: {error}; its log tells more")

    def _refuse(self, caller: Caller | None) -> None:
        """Count a refusal; write it down unless one was a moment ago."""
        since = self._refusals.more()
        if not since:
            return
        facts: dict[str, object] = {"event": "refused", "count": since}
        if caller is not None:
            facts |= {"uid": caller.uid, "gid": caller.gid, "pid": caller.pid}
        who = "of one nobody vouches for" if caller is None else f"of uid {caller.uid}, pid {caller.pid}"
        log.warning(
            "requests on the control socket refused: %d since the last such line, the last %s", since, who, extra=facts
        )

    def _may_ask(self, caller: Caller) -> bool:
        return self._group or caller.uid in (ROOT, os.geteuid())

    def _answer(self, request: ControlRequest, caller: Caller, route: bytes) -> ControlReply | None:
        error = ""
        match request.verb:
            case "status":
                return ControlReply(ok=True, error="", data=self._status())
            case "health":
                # Whoever does not ask for more wants to know that the loop turns.
                error = self._unready() if request.args.get("ready") is True else ""
            case "reload":
                _log_order(caller, "reload")
                self._reload()
            case "probe" | "restart" | "cordon" | "uncordon":
                return self._order(request, caller)
            case "reset":
                self._reset(request, caller, route)
                return None
            case "inject":
                return self._inject(request, caller)
            case _:
                known = "status, health, probe, restart, reset, cordon, uncordon, inject and reload"
                error = f"unknown verb {request.verb!r:.40}: this daemon knows {known}"
        return ControlReply(ok=not error, error=error)

    def _reset(self, request: ControlRequest, caller: Caller, route: bytes) -> None:
        device, force = plain(str(request.args.get("device")), REASON_CHARS), request.args.get("force") is True
        _log_order(caller, "reset", device, "forced" if force else "")
        self._resets.begin(device, lambda reply: self._server.reply(route, reply), force=force)

    def _order(self, request: ControlRequest, caller: Caller) -> ControlReply:
        device = request.args.get("device")
        charge = self._supervisor.get(device) if isinstance(device, str) else None
        if charge is None or not isinstance(device, str):
            return ControlReply(ok=False, error=f"no device {device!r:.80}: 'devd status' lists them")
        reason = plain(str(request.args.get("reason", "")), REASON_CHARS)
        if request.args.get("forget") is True:
            reason = "its counters' baselines are forgotten"
        _log_order(caller, request.verb, device, reason)
        now_s = self._supervisor.now()
        orders: dict[str, ev.Event] = {
            "restart": ev.RestartAsked(now_s),
            "cordon": ev.Cordoned(now_s, reason),
            "uncordon": ev.Uncordoned(now_s),
        }
        if request.verb == "restart" and request.args.get("forget") is True:
            self._supervisor.forget_baseline(device)
        held = _held(charge.state)
        if request.verb in orders:
            self._supervisor.send(device, orders[request.verb])
            waits = held if request.verb == "restart" else ""
            return ControlReply(ok=True, error="", data={"waits": waits} if waits else {})
        if held or not self._supervisor.probe_now(device):
            why = f"no worker can be asked {held or f'now ({charge.state.phase})'}"
            return ControlReply(ok=False, error=f"{device}: {why}")
        return ControlReply(ok=True, error="")

    def _inject(self, request: ControlRequest, caller: Caller) -> ControlReply:
        devices, error = inject(self._supervisor, request.args)
        if error:
            return ControlReply(ok=False, error=error)
        target = plain(str(request.args.get("target")), REASON_CHARS)
        _log_order(caller, "inject", target, plain(str(request.args.get("fault")), REASON_CHARS))
        return ControlReply(ok=True, error="", data={"devices": list(devices)})


def _held(state: DeviceState) -> str:
    """Return what an order has to wait for where a process that was killed still holds the device, or nothing."""
    if state.phase is not Phase.STOPPING:
        return ""
    who = f"process {state.pid}" if state.pid is not None else "the worker that was ordered"
    return f"before {who} is gone, which holds the device and was killed"


def _log_order(caller: Caller, verb: str, target: str = "", detail: str = "") -> None:
    """Write down who ordered what: the only trace of a hand on the daemon."""
    words = " ".join(one for one in (verb, target, detail and f"({detail})") if one)
    facts: dict[str, object] = {"event": verb, "uid": caller.uid, "gid": caller.gid, "pid": caller.pid}
    if target:
        facts["device" if verb != "inject" else "target"] = target
    log.info("%s, ordered by uid %d, pid %d", words, caller.uid, caller.pid, extra=facts)
