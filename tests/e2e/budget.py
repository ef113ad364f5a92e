"""Time: each wait of the end-to-end tests has a limit of its own, and all of them together have one."""

import os
import time
from collections.abc import Callable
from typing import TypeVar

from tests.e2e.kubectl import KubectlError

ALL_WITHIN_S = 180.0
"""From the first call to the last, cleaning up included; DEVD_E2E_SECONDS gives a slow cluster more."""
CLEANING_TAKES_S = 40.0
"""Of that, kept for the end: devd's pod goes, a pod cleans the node, the namespace goes (15 to 25 s)."""
LOOK_EVERY_S = 0.5
HICCUP_S = 20.0
"""For a call that a sound cluster takes at once: an API server that changes its leader is back by then."""

Answer = TypeVar("Answer")


def asked_for_s() -> float:
    """Return the seconds that all may take. Raises ValueError when DEVD_E2E_SECONDS is no number."""
    return float(os.environ.get("DEVD_E2E_SECONDS") or ALL_WITHIN_S)


class Budget:
    """The seconds that some waits share, from now on; ``kept_s`` of them are for what comes after these waits."""

    def __init__(self, all_s: float, kept_s: float = 0.0) -> None:
        self._all_s, self._kept_s = all_s, kept_s
        self.begin()

    def begin(self) -> None:
        """Have the seconds run from now on."""
        self._ends_s = time.monotonic() + self._all_s - self._kept_s

    def until(self, condition: Callable[[], bool], what: str, within_s: float) -> None:
        """Look until a condition holds; kubectl's errors are "not yet".

        Raises AssertionError that names the condition, which limit was reached, and kubectl's last error if there is
        one. Any other error of the condition is raised as it is.
        """
        deadline_s = time.monotonic() + within_s
        while True:
            last = ""
            try:
                if condition():
                    return
            except KubectlError as error:
                last = f"; the last error: {error}"
            assert time.monotonic() < self._ends_s, f"{what}: {self._spent()}{last}"
            assert time.monotonic() < deadline_s, f"{what}: not within {within_s:g} s{last}"
            time.sleep(LOOK_EVERY_S)

    def patiently(self, action: Callable[[], Answer], what: str, within_s: float = HICCUP_S) -> Answer:
        """Return what an action returns, trying again while kubectl fails. Raises as ``until`` does."""
        answers: list[Answer] = []

        def answered() -> bool:
            answers.append(action())
            return True

        self.until(answered, what, within_s)
        return answers[-1]

    def _spent(self) -> str:
        return (
            f"the time for all is up ({self._all_s:g} s, {self._kept_s:g} s of them to clean up); DEVD_E2E_SECONDS "
            "gives a slow cluster more"
        )
