"""The front's side of ``devd status`` and the operator's verbs: one answer to each request, from memory, at once."""

import logging
from asyncio import AbstractEventLoop
from collections.abc import Callable, Mapping

from devd.daemon import events as ev
from devd.daemon.claimed_text import REASON_CHARS, plain
from devd.daemon.injection import inject
from devd.daemon.supervisor import Supervisor
from devd.ipc.control import ControlServer
from devd.ipc.messages import ControlReply, ControlRequest

log = logging.getLogger("devd.control")

Status = Callable[[], Mapping[str, object]]


class ControlDesk:
    """Reads the control socket on the event loop and answers."""

    def __init__(
        self,
        loop: AbstractEventLoop,
        server: ControlServer,
        supervisor: Supervisor,
        status: Status,
        reload: Callable[[], None],
    ) -> None:
        self._reload = reload
        self._loop = loop
        self._server = server
        self._supervisor = supervisor
        self._status = status
        loop.add_reader(server.fd, self._readable)

    def close(self) -> None:
        """Stop answering and remove the socket."""
        self._loop.remove_reader(self._server.fd)
        self._server.close()

    def _readable(self) -> None:
        for route, request, error in self._server.drain(64):
            reply = self._safely(request) if request is not None else ControlReply(ok=False, error=error)
            self._server.reply(route, reply)
        if self._server.pending():
            self._loop.call_soon(self._readable)

    def _safely(self, request: ControlRequest) -> ControlReply:
        """Answer in any case: an operator who gets no answer takes the daemon for dead."""
        try:
            return self._answer(request)
        except Exception as error:  # a bug of ours, whatever it is: told to both sides
            log.exception("the answer to %r failed", request.verb)
            return ControlReply(ok=False, error=f"a bug of devd: {type(error).__name__}: {error}; its log tells more")

    def _answer(self, request: ControlRequest) -> ControlReply:
        match request.verb:
            case "status":
                return ControlReply(ok=True, error="", data=self._status())
            case "health":
                return ControlReply(ok=True, error="")
            case "reload":
                log.info("an operator asked for the configuration to be read again", extra={"event": "reload"})
                self._reload()
                return ControlReply(ok=True, error="")
            case "probe" | "restart" | "cordon" | "uncordon":
                return self._order(request)
            case "inject":
                return self._inject(request)
        known = "status, health, probe, restart, cordon, uncordon, inject and reload"
        return ControlReply(ok=False, error=f"unknown verb {request.verb!r:.40}: this daemon knows {known}")

    def _order(self, request: ControlRequest) -> ControlReply:
        device = request.args.get("device")
        charge = self._supervisor.get(device) if isinstance(device, str) else None
        if charge is None or not isinstance(device, str):
            return ControlReply(ok=False, error=f"no device {device!r:.80}: 'devd status' lists them")
        log.info("%s: an operator asked for %s", device, request.verb, extra={"device": device, "event": request.verb})
        now_s = self._supervisor.now()
        orders: dict[str, ev.Event] = {
            "restart": ev.RestartAsked(now_s),
            "cordon": ev.Cordoned(now_s, plain(str(request.args.get("reason", "")), REASON_CHARS)),
            "uncordon": ev.Uncordoned(now_s),
        }
        if request.verb in orders:
            self._supervisor.send(device, orders[request.verb])
            return ControlReply(ok=True, error="")
        if not self._supervisor.probe_now(device):
            return ControlReply(ok=False, error=f"{device}: no worker can be asked now ({charge.state.phase})")
        return ControlReply(ok=True, error="")

    def _inject(self, request: ControlRequest) -> ControlReply:
        devices, error = inject(self._supervisor, request.args)
        if error:
            return ControlReply(ok=False, error=error)
        fault = str(request.args.get("fault"))
        log.info("an operator injected %s into %d devices", fault, len(devices), extra={"event": "inject"})
        return ControlReply(ok=True, error="", data={"devices": list(devices)})
