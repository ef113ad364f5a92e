"""PreStartContainer's desk: one question a container, one answer, in time.

The resets themselves are the lifecycles' business (single-flight per device); here a call waits for all of its
devices at once and is answered before the kubelet's own deadline.
"""

import asyncio
from collections.abc import Callable, Sequence

from devd.daemon.errors import PreStartError

ANSWER_WITHIN_S = 24.0
"""The kubelet cancels PreStartContainer after 30 s; an answer of ours says more than its timeout."""

Ask = Callable[[str, int], None]


class PreStartDesk:
    """Hands out waiter numbers and resolves them."""

    def __init__(self, ask: Ask, expire: Ask, budget_s: float = ANSWER_WITHIN_S) -> None:
        self._ask = ask
        self._expire = expire
        self._budget_s = budget_s
        self._next = 0
        self._waiting: dict[int, asyncio.Future[str]] = {}

    async def ready(self, devices: Sequence[str]) -> None:
        """Reset and probe all of the devices at once. Raises PreStartError naming each that is not ready, and why."""
        results = await asyncio.gather(*(self._one(device) for device in devices))
        failed = [f"{device}: {text}" for device, text in zip(devices, results, strict=True) if text]
        if failed:
            raise PreStartError(f"{'; '.join(failed)} (the kubelet tries this container again after its back-off)")

    def answered(self, waiter: int, *, ok: bool, text: str) -> None:
        """Resolve one waiter; an answer to a call that was cancelled is nobody's."""
        future = self._waiting.get(waiter)
        if future is not None and not future.done():
            future.set_result("" if ok else text or "not healthy after its reset")

    async def _one(self, device: str) -> str:
        loop = asyncio.get_running_loop()
        self._next += 1
        waiter = self._next
        future: asyncio.Future[str] = loop.create_future()
        self._waiting[waiter] = future
        timer = loop.call_later(self._budget_s, self._expire, device, waiter)
        try:
            self._ask(device, waiter)
            # The expiry answers in time; a device that is not supervised any more answers nothing at all.
            return await asyncio.wait_for(future, self._budget_s + 1)
        except TimeoutError:
            return "it has left meanwhile"
        finally:
            timer.cancel()
            del self._waiting[waiter]
