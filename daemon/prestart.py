"""PreStartContainer's desk: one question a container, one answer, in time.

The resets themselves are the lifecycles' business (single-flight per device); here a call waits for all of its
devices at once and is answered before the kubelet's own deadline. What a reset has to respect is asked of the desk in
the moment that the reset begins: whoever was let go until then is in its way.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from devd.daemon.errors import PreStartError
from devd.daemon.occupancy import Case, Find, Occupied, Start, StartBook, occupied
from devd.daemon.pod_resources import Holdings

ANSWER_WITHIN_S = 24.0
"""The kubelet cancels PreStartContainer after 30 s; an answer of ours says more than its timeout."""
NO_ANSWER_S = 1.0
"""A device's expiry is answered at once, but by nobody when the device is not supervised any more."""

ENDING = "devd is ending, and asks for nothing any more"

Ask = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class Waiter:
    """One device of a start. ``answer`` is empty when it is ready, and otherwise says why it is not."""

    device: str
    case: Case
    answer: asyncio.Future[str]


class PreStartDesk:
    """Hands out waiter numbers and resolves them. ``who`` tells who has what, ``find`` what stands behind an id."""

    def __init__(
        self,
        ask: Ask,
        expire: Ask,
        who: Callable[[], Awaitable[Holdings]],
        find: Find,
        budget_s: float = ANSWER_WITHIN_S,
    ) -> None:
        self._ask = ask
        self._expire = expire
        self._who = who
        self._find = find
        self._budget_s = budget_s
        self._next = 0
        self._waiting: dict[int, Waiter] = {}
        self._book = StartBook()
        self._ending = False

    def close(self) -> None:
        """Answer whoever waits, and whoever still comes: devd ends. The resets themselves end with their workers."""
        self._ending = True
        for number in list(self._waiting):
            self.answered(number, ok=False, text=ENDING)

    def allocated(self, resource: str, ids: Sequence[str]) -> None:
        """Take note that ids were given to a container that will ask for its start."""
        self._book.allocated(resource, ids)

    async def ready(self, start: Start) -> None:
        """Reset and probe all of a container's devices at once, once it is known who else has them.

        Raises PreStartError naming each that is not ready, and why.
        """
        until_s = asyncio.get_running_loop().time() + self._budget_s
        number = self._book.begins(start)
        case = Case(start, number, await self._who() if start.asks else Holdings())
        self._book.forget(lambda key: self._find(*key) is not None)
        failed = self._refused(case) or await self._reset(case, until_s)
        if failed:
            self._book.failed(start, number)
            next_step = "" if start.ordered else " (the kubelet tries this container again after its back-off)"
            raise PreStartError(f"{'; '.join(failed)}{next_step}")

    def respects(self, device: str, waiters: Sequence[int]) -> Callable[[], Occupied]:
        """Return what tells, whenever it is called, what a reset for these waiters has to respect."""
        cases = [self._waiting[one].case for one in waiters if one in self._waiting]
        return partial(occupied, device, cases, self._book, self._find)

    def answered(self, waiter: int, *, ok: bool, text: str) -> None:
        """Resolve one waiter; an answer to a call that was cancelled is nobody's."""
        waits = self._waiting.get(waiter)
        if waits is None or waits.answer.done():
            return
        if ok:
            # Now and not when the call goes on: another reset may begin before.
            self._book.let_go(waits.case.start, waits.case.number)
        waits.answer.set_result("" if ok else text or "not healthy after its reset")

    def _refused(self, case: Case) -> list[str]:
        if self._ending:
            return [f"{one.id}: {ENDING}" for one in case.start.devices]
        if not case.start.ordered:
            return []
        found = [(one.id, occupied(one.id, [case], self._book, self._find).refused) for one in case.start.devices]
        return [f"{device}: {why}" for device, why in found if why]

    async def _reset(self, case: Case, until_s: float) -> list[str]:
        """Ask all devices, with no pause since it is known who has them; return what failed."""
        loop = asyncio.get_running_loop()
        waits = {self._number(): Waiter(one.id, case, loop.create_future()) for one in case.start.devices}
        self._waiting.update(waits)
        timers = [loop.call_at(until_s, self._expire, one.device, number) for number, one in waits.items()]
        try:
            for number, one in waits.items():
                self._ask(one.device, number)
            await asyncio.wait([one.answer for one in waits.values()], timeout=until_s + NO_ANSWER_S - loop.time())
        finally:
            for timer in timers:
                timer.cancel()
            for number in waits:
                del self._waiting[number]
        return [f"{one.device}: {text}" for one in waits.values() if (text := _text(one.answer))]

    def _number(self) -> int:
        self._next += 1
        return self._next


def _text(answer: asyncio.Future[str]) -> str:
    return answer.result() if answer.done() else "it has left meanwhile"
