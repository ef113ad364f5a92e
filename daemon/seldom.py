"""What others can make happen without end is written down seldom: one line for all of a while."""

import time

EVERY_S = 10.0


class Seldom:
    """Counts, and says when a line is due."""

    def __init__(self) -> None:
        self.count = 0
        self._told = 0
        self._due_s = 0.0

    def more(self) -> int:
        """Count one more; return how many there were since the last line when one is due, else 0."""
        self.count += 1
        now_s = time.monotonic()
        if now_s < self._due_s:
            return 0
        self._due_s = now_s + EVERY_S
        since, self._told = self.count - self._told, self.count
        return since
