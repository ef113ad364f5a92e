"""An operator's resets: each takes its time, and is answered when it has ended.

The same desk as for a container's start does them, so that there are never two resets of a device at once. What a
container that has the device would say is asked for him: it is refused, unless he insists.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from devd.daemon.errors import PreStartError
from devd.daemon.table import ResourceTable
from devd.ipc.messages import ControlReply

MOST_AT_ONCE = 16
"""Orders that wait for their end; an operator has two hands."""

Reply = Callable[[ControlReply], object]


class ResetOrders:
    """Owner of the resets that were ordered and have not ended."""

    def __init__(self, tables: Mapping[str, ResourceTable]) -> None:
        self._tables = tables
        self._running: set[asyncio.Task[None]] = set()

    def begin(self, device: str, reply: Reply, *, force: bool) -> None:
        """Reset a device and tell how it ended; at once where it cannot even begin."""
        table = next((one for one in self._tables.values() if device in one.devices), None)
        if table is None:
            reply(_refusal(f"no device {device!r:.80}: 'devd status' lists them"))
        elif table.config.reset is None:
            reply(_refusal(f"{device}: {table.name} has no reset in its configuration"))
        elif len(self._running) >= MOST_AT_ONCE:
            reply(_refusal(f"{device}: {MOST_AT_ONCE} resets are under way: wait for one to end"))
        else:
            task = asyncio.ensure_future(_told(table.reset(device, force=force), reply))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    def close(self) -> None:
        """Tell nobody any more; resets that have begun go on in their workers until those are ended."""
        for task in tuple(self._running):
            task.cancel()


async def _told(reset: Awaitable[None], reply: Reply) -> None:
    try:
        await reset
    except PreStartError as error:
        reply(_refusal(str(error)))
    else:
        reply(ControlReply(ok=True, error=""))


def _refusal(text: str) -> ControlReply:
    return ControlReply(ok=False, error=text)
