"""When a resource that starts is fit to be registered: as soon as it is known how its devices are. Pure.

A device that is registered before its first verdict is Unhealthy until then, and a pod that has it and restarts in that
moment fails; one that is withheld because another has no verdict fails its pods as well. So whoever is on his way is
waited for, and whoever is late is not.
"""

WITHIN_S = 20.0
"""The most a resource waits, from the start: while nobody of it has said anything nobody is withheld."""
QUIET_S = 1.0
"""After a verdict the next one is waited for at least so long. Workers of one resource start together, some 20 ms apart
on one core, and each has its first verdict some 0.2 s later."""


class FirstVerdicts:
    """One resource's start, at ``since_s`` of a monotonic clock."""

    def __init__(self, since_s: float) -> None:
        self._until_s = since_s + WITHIN_S
        self._listed_at_s: float | None = None
        self._said = 0
        self._said_at_s = 0.0

    def due_s(self, now_s: float, said: int | None, *, all_known: bool) -> float:
        """Return when to register, by what is known now; not after ``now_s`` means at once.

        ``said`` counts the devices of which anything is known: a verdict, or the end of a worker without one. None: it
        is not known which devices there are.
        """
        if said is None:
            return self._until_s
        if self._listed_at_s is None:
            self._listed_at_s = now_s
        if all_known:
            return now_s
        if said > self._said:
            self._said, self._said_at_s = said, now_s
        if not said:
            return self._until_s
        # Where others took long to say anything, the rest is given as long again.
        took_s = self._said_at_s - self._listed_at_s
        return min(self._until_s, self._said_at_s + max(QUIET_S, took_s))
