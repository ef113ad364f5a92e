"""Which GPUs are joined by NVLink without a switch between: asked of NVML once for each GPU, and remembered.

The wiring of a machine does not change while it runs. Asking wakes a GPU that sleeps and may hang with one that is
sick, so the first lists of a scout go out without it.
"""

import math
import time
from collections.abc import Callable

from devd.workers.hw.nvml import Fault, NvmlError, Session

AFTER_S = 5.0
"""From a scout's first look to the first question: its list is out by then, and nothing waits for this."""
AGAIN_S = 300.0
"""How soon a GPU is asked again that could not say."""


class NvLinks:
    """What is known of each GPU's links."""

    def __init__(self, after_s: float = AFTER_S, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._after_s = after_s
        self._clock_s = clock_s
        self._first_s = math.inf
        self._known: dict[str, str] = {}
        self._ask_at_s: dict[str, float] = {}

    def of(self, address: str, problems: list[str]) -> str:
        """Return the addresses of the GPUs that one is joined to, joined by commas; "" for none, and while unknown.

        A GPU that has no NVLinks is no problem, and NVML that cannot be used is none either: its signal tells.
        """
        now_s = self._clock_s()
        self._first_s = min(self._first_s, now_s)
        due_s = self._ask_at_s.get(address, self._first_s + self._after_s)
        if address not in self._known and now_s >= due_s:
            self._ask(address, now_s, problems)
        return self._known.get(address, "")

    def _ask(self, address: str, now_s: float, problems: list[str]) -> None:
        try:
            with Session(address) as session:
                self._known[address] = ",".join(session.linked_gpus())
        except NvmlError as error:
            self._ask_at_s[address] = now_s + AGAIN_S
            if error.fault is Fault.NOT_OFFERED:
                self._known[address] = ""
            elif error.fault is not Fault.SOFTWARE:
                problems.append(f"{address}: which GPUs it is joined to is unknown: {error}")
