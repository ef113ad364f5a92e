"""Between the charges and what outlives this devd: what a device begins with, and when something of it is written.

Runs on the event loop.
"""

import time
from asyncio import AbstractEventLoop
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace

from devd.daemon import events as ev
from devd.daemon.charge import Charge, Keeper
from devd.daemon.device_state import Memory, Phase, remembered
from devd.daemon.holds import Holds
from devd.ipc.messages import Node


class Recollection:
    """Knows which word on a device counts. ``send`` steps a device's lifecycle, ``changed`` tells that it is shown."""

    def __init__(
        self,
        loop: AbstractEventLoop,
        keeper: Keeper,
        holds: Holds,
        charges: Mapping[str, Charge],
        send: Callable[[str, ev.Event], None],
        changed: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._keeper = keeper
        self._holds = holds
        self._charges = charges
        self._send = send
        self._changed = changed
        keeper.when_read(self._read)

    def of(self, device: str, nodes: tuple[Node, ...]) -> Memory:
        """Return what is known of a device from earlier, and what holds it now."""
        memory = self._keeper.recall(device)
        hold = self._holds.on(device, nodes)
        return memory if hold is None else replace(memory, worker=hold.pid, fence=hold.words)

    def note(self, charge: Charge) -> None:
        """Have what outlives this devd written, when something of it that counts has changed."""
        memory, kept = remembered(charge.state), charge.kept
        # That a worker is dead its pid and start tell as well, and the next one's are about to be written.
        replaced = memory.worker is None and charge.state.phase in (Phase.BACKOFF, Phase.STARTING)
        told = replace(memory, cause=kept.cause, worker=kept.worker if replaced else memory.worker)
        if told != kept:
            self._keep(charge, memory)

    def forgotten(self, charge: Charge) -> None:
        """Take note that a charge is over: a device that has left the node is not remembered for ever."""
        if not charge.state.present:
            self._keeper.departed(charge.state.id)

    def _keep(self, charge: Charge, memory: Memory) -> None:
        charge.kept = memory
        self._keeper.keep(charge.state.id, memory, charge.nodes, charge.resource)

    def _read(self) -> None:
        """Go on on the event loop: whoever has read the disk calls this."""
        with suppress(RuntimeError):  # the loop is closed: the disk answers a devd that has ended
            self._loop.call_soon_threadsafe(self._recall_late)

    def _recall_late(self) -> None:
        """Give each device what the disk says of it after all."""
        self._keeper.take_late()
        for device, charge in list(self._charges.items()):
            self._send(device, ev.Recalled(time.monotonic(), self.of(device, charge.nodes)))
            self._holds.born(charge)
            self._keep(charge, remembered(charge.state))
            self._changed(device)
        self._keeper.begin()
