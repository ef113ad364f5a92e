"""PreStartContainer's desk: one question a container, one answer, in time.

The resets themselves are the lifecycles' business (single-flight per device); here a call waits for all of its
devices at once and is answered before the kubelet's own deadline.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from devd.daemon.errors import PreStartError
from devd.daemon.occupancy import Start, StartBook

ANSWER_WITHIN_S = 24.0
"""The kubelet cancels PreStartContainer after 30 s; an answer of ours says more than its timeout."""

Ask = Callable[[str, int], None]
Look = Callable[[Start, int, StartBook], Awaitable[list[str]]]
"""Finds out what the resets of a container that starts have to respect, given its number in the book of all starts.

Returns why some of them are not to be done at all.
"""


class PreStartDesk:
    """Hands out waiter numbers and resolves them."""

    def __init__(self, ask: Ask, expire: Ask, look: Look, budget_s: float = ANSWER_WITHIN_S) -> None:
        self._ask = ask
        self._expire = expire
        self._look = look
        self._budget_s = budget_s
        self._next = 0
        self._waiting: dict[int, asyncio.Future[str]] = {}
        self._book = StartBook()

    def allocated(self, resource: str, ids: Sequence[str]) -> None:
        """Take note that ids were given to a container that will ask for its start."""
        self._book.allocated(resource, ids)

    async def ready(self, start: Start) -> None:
        """Reset and probe all of a container's devices at once, once it is known who else has them.

        Raises PreStartError naming each that is not ready, and why.
        """
        until_s = asyncio.get_running_loop().time() + self._budget_s
        number = self._book.begins(start)
        failed = await self._look(start, number, self._book)
        if not failed:
            devices = [one.id for one in start.devices]
            results = await asyncio.gather(*(self._one(device, until_s) for device in devices))
            failed = [f"{device}: {text}" for device, text in zip(devices, results, strict=True) if text]
        if failed:
            self._book.failed(start, number)
            next_step = "" if start.ordered else " (the kubelet tries this container again after its back-off)"
            raise PreStartError(f"{'; '.join(failed)}{next_step}")

    def answered(self, waiter: int, *, ok: bool, text: str) -> None:
        """Resolve one waiter; an answer to a call that was cancelled is nobody's."""
        future = self._waiting.get(waiter)
        if future is not None and not future.done():
            future.set_result("" if ok else text or "not healthy after its reset")

    async def _one(self, device: str, until_s: float) -> str:
        loop = asyncio.get_running_loop()
        self._next += 1
        waiter = self._next
        future: asyncio.Future[str] = loop.create_future()
        self._waiting[waiter] = future
        timer = loop.call_at(until_s, self._expire, device, waiter)
        try:
            self._ask(device, waiter)
            # The expiry answers in time; a device that is not supervised any more answers nothing at all.
            return await asyncio.wait_for(future, until_s + 1 - loop.time())
        except TimeoutError:
            return "it has left meanwhile"
        finally:
            timer.cancel()
            del self._waiting[waiter]
