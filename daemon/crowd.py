"""How many workers may be restarted at once. Pure: a time in, a wait out."""

RESTARTS_PER_S = 10.0
"""A restart costs some 5 ms of the front and 20 ms of a core for the worker's start: this many a second leave the
kubelet's calls what they need (docs/benchmarks.md)."""
AT_ONCE = 16
"""So many that died together come back together."""


class Crowd:
    """Gives each worker that died a place in the row."""

    def __init__(self) -> None:
        self._next_s = float("-inf")

    def wait_s(self, now_s: float) -> float:
        """Return how long the next restart has to wait beyond its own pause, in seconds."""
        # The row empties at its rate, and an empty one has room for AT_ONCE.
        self._next_s = max(self._next_s, now_s - AT_ONCE / RESTARTS_PER_S) + 1 / RESTARTS_PER_S
        return max(0.0, self._next_s - now_s)
