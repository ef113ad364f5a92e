"""Between the tables and the scribe: what is to stand in the CDI specifications, and which names are true by now.

A name is given to a container only while the specification that stands in the directory says of its device what devd
would say now. Everything here runs on the event loop; the scribe does the writing, one order at a time.
"""

import logging
from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from devd.daemon import cdi
from devd.daemon.cdi_shelf import Shelf
from devd.daemon.config import Resource
from devd.daemon.device_state import Policy
from devd.daemon.resource import ContainerGrant
from devd.daemon.supervisor import Supervisor
from devd.ipc.messages import Device, SpecText, WorkerSpec, WriteSpecs, Written

SCRIBE_ID = "scribe:cdi/specs"
"""The supervisor's id of the scribe; no device's, as it has a slash."""
SCRIBE_UID = 0x700F0000
"""The first behind those that workers get in turn: the files must never be another's."""
ELSEWHERE = "/etc/cdi"
"""Where runtimes look beside the directory of specifications that are made as the node runs."""
PERIOD_S = 5.0
TIMEOUT_S = 5.0
"""Of a round over all files."""
ORDER_GAP_S = 0.2
"""Least time between two orders: each makes runtimes read files anew, and an answer of which too many are a flood."""
MAX_ORDER_BYTES = 3 * 1024 * 1024
"""Texts in one order; more than one specification may have, and less than a message."""

log = logging.getLogger("devd.cdi")


class CdiDesk:
    """Owner of the scribe, of what it is to write, and of what is known to stand."""

    def __init__(
        self,
        loop: AbstractEventLoop,
        supervisor: Supervisor,
        directory: Path,
        resources: Iterable[Resource],
        changed: Callable[[str], None],
    ) -> None:
        """Start the scribe if there is something to write, or something that an earlier devd wrote.

        ``changed`` is called with a resource's name when another set of its devices has a name.
        """
        self._loop = loop
        self._supervisor = supervisor
        self._directory = directory
        self._changed = changed
        self._files = {one.name: cdi.file_name(one.name) for one in resources if one.cdi != "off"}
        self._shelves: dict[str, Shelf] = {}
        self._owed: dict[str, Shelf | None] = {}
        self._ordered: dict[str, str] | None = None
        self._rest: TimerHandle | None = None
        self._listening = False
        self._sought: tuple[str, ...] = ()
        self._asked: tuple[str, ...] | None = None
        self._seen: tuple[str, ...] | None = None
        self._known: frozenset[str] = frozenset()
        self._closed = False
        if self._files or supervisor.baseline(SCRIBE_ID):
            self._send_out()

    def close(self) -> None:
        """Leave all as it stands: containers that start again while devd does not run need their names."""
        self._closed = True
        if self._rest is not None:
            self._rest.cancel()

    # ---- what should stand ----

    def refresh(self, rules: Resource, devices: Mapping[str, Device]) -> None:
        """Have a resource's specification tell of these devices by these rules."""
        if self._closed:
            return
        if rules.cdi == "off":
            self.remove(rules.name)
            return
        shelf = self._shelves.setdefault(rules.name, Shelf(rules.name))
        self._files[rules.name] = shelf.file
        if shelf.refresh(rules, devices) or not shelf.settled:
            self._owed[shelf.file] = shelf
        self._sought = tuple(sorted({name for one in self._shelves.values() for name in one.vendors.values()}))
        if self._supervisor.get(SCRIBE_ID) is None:
            self._send_out()
        self._pump()

    def remove(self, name: str) -> None:
        """Take a resource's specification away, if it has one."""
        self._shelves.pop(name, None)
        file = self._files.pop(name, None)
        if file is not None:
            self._owed[file] = None
            self._pump()

    # ---- what is true ----

    def lacking(self, rules: Resource, device: str) -> str:
        """Return why a device cannot be given by name, "" when it can, or has nothing that would have to be named."""
        shelf = self._shelves.get(rules.name)
        if shelf is None:
            return "its CDI specification has not been written yet"
        if shelf.nameless(device) or shelf.name(device, self._is_known):
            return ""
        if vendor := shelf.vendors.get(device):
            places = " and ".join(dict.fromkeys((ELSEWHERE, str(self._directory))))
            return f"no CDI specification in {places} has {vendor}: have the vendor's tool write it, or set cdi to off"
        if unfit := shelf.unfit(device):
            return unfit
        why = shelf.error or self._trouble()
        if not why:
            return "its CDI specification is being written"
        return (
            f"its CDI specification could not be written: {why}: "
            f"let devd write to {self._directory} (--cdi-dir), or set cdi to off"
        )

    def name(self, resource: str, device: str) -> str:
        """Return the name that is given for a device now, or nothing."""
        shelf = self._shelves.get(resource)
        return shelf.name(device, self._is_known) if shelf is not None else ""

    def given(self, rules: Resource, devices: Sequence[str], full: ContainerGrant) -> ContainerGrant:
        """Return what a container gets of devices, of which ``full`` is everything, as far as not by name."""
        shelf = self._shelves.get(rules.name)
        if rules.cdi == "off" or shelf is None:
            return full
        named = {device: name for device in devices if (name := shelf.name(device, self._is_known))}
        covered = [shelf.edits(device) for device in named]
        return cdi.by_name(full, only=rules.cdi == "only", names=list(named.values()), covered=covered)

    def settled(self, rules: Resource) -> bool:
        """Return whether it is known which of a resource's devices have a name."""
        shelf = self._shelves.get(rules.name)
        if rules.cdi == "off" or (shelf is not None and self._trouble()):
            return True
        return shelf is not None and shelf.settled and (not shelf.vendors or self._seen == self._sought)

    def status(self, rules: Resource) -> dict[str, Any]:
        """Return what the status tells of a resource's specification."""
        shelf = self._shelves.get(rules.name)
        return {"mode": rules.cdi, **(shelf.status(self._is_known) if shelf is not None else {})}

    def facts(self) -> dict[str, object] | None:
        """Return what the status tells of the scribe; None without one."""
        charge = self._supervisor.get(SCRIBE_ID)
        if charge is None:
            return None
        healthy = self._supervisor.healthy(SCRIBE_ID)
        return {
            "directory": str(self._directory),
            "pid": charge.state.pid,
            "health": "Healthy" if healthy else "Unhealthy",
            "reason": "" if healthy else charge.state.reason,
            "sandbox": asdict(charge.sandbox) if charge.sandbox is not None else None,
        }

    def _is_known(self, name: str) -> bool:
        return name in self._known

    def _trouble(self) -> str:
        """Return what is wrong with the scribe itself, or nothing."""
        charge = self._supervisor.get(SCRIBE_ID)
        if charge is None or not charge.state.decided or self._supervisor.healthy(SCRIBE_ID):
            return ""
        return charge.state.reason or "its writer does not answer"

    # ---- the scribe ----

    def greeted(self) -> None:
        """Tell a scribe that has just begun all it should know."""
        for file in self._ordered or ():
            self._owed.setdefault(file, None)
        self._ordered = self._asked = self._seen = None
        self._listening = True
        for shelf in self._shelves.values():
            self._owed[shelf.file] = shelf
        self._pump()

    def take(self, written: Written) -> None:
        """Take in what the scribe says of all files."""
        states = {one.name: one for one in written.files}
        known = frozenset(written.known) & frozenset(self._sought)
        moved = known != self._known
        self._known, self._seen = known, written.sought
        for name, shelf in self._shelves.items():
            state = states.get(shelf.file)
            before = shelf.error
            if (state is not None and shelf.take(state)) or (moved and shelf.vendors):
                self._say(name, shelf, before)
                self._changed(name)
        ordered = self._ordered or {}
        taken = all(file in states and states[file].wanted == wanted for file, wanted in ordered.items())
        if taken and written.sought == self._asked:
            self._ordered = None
        self._pump()

    def _say(self, name: str, shelf: Shelf, before: str) -> None:
        if shelf.error and shelf.error != before:
            log.warning("%s: CDI specification not written: %s", name, shelf.error, extra={"resource": name})
        elif before and not shelf.error:
            log.info("%s: CDI specification written", name, extra={"resource": name})

    def _pump(self) -> None:
        """Give the scribe its next order; what it cannot take is given again when it has begun anew."""
        waits = self._ordered is not None or self._rest is not None or self._closed
        if waits or (not self._owed and self._asked == self._sought):
            return
        # Composed only while somebody is there to take it: from a scribe's first word to its end.
        files = self._batch() if self._listening else ()
        self._listening = self._listening and self._supervisor.workforce.send(
            SCRIBE_ID, WriteSpecs(files, self._sought)
        )
        if not self._listening:
            return
        for one in files:
            del self._owed[one.name]
        self._ordered = {one.name: cdi.digest(one.text) for one in files}
        self._asked = self._sought
        self._rest = self._loop.call_later(ORDER_GAP_S, self._rested)

    def _batch(self) -> tuple[SpecText, ...]:
        """Return the oldest of what is owed, as much as a message takes; what cannot be written is owed no more."""
        found: list[SpecText] = []
        room = MAX_ORDER_BYTES
        for file, shelf in list(self._owed.items()):
            text = shelf.compose() if shelf is not None else ""
            if text is None:
                del self._owed[file]
                continue
            room -= len(text)
            if found and room < 0:
                break
            found.append(SpecText(file, text))
        return tuple(found)

    def _rested(self) -> None:
        self._rest = None
        self._pump()

    def _send_out(self) -> None:
        policy = Policy(period_s=PERIOD_S, timeout_s=TIMEOUT_S, retry_s=30.0)
        self._supervisor.add(SCRIBE_ID, "", policy, self._spec)

    def _spec(self, incarnation: int, health_endpoint: str, command_endpoint: str) -> WorkerSpec:
        return WorkerSpec(
            role="scribe",
            device=SCRIBE_ID,
            resource="",
            driver="",
            incarnation=incarnation,
            health_endpoint=health_endpoint,
            command_endpoint=command_endpoint,
            period_s=PERIOD_S,
            timeout_s=TIMEOUT_S,
            match={
                "directory": str(self._directory),
                "elsewhere": [ELSEWHERE],
                "names": sorted(self._files.values()),
            },
            sandbox={"required": False, "uid": SCRIBE_UID},
        )
