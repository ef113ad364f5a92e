"""How the kubelet's calls end and how long they take: counts and latencies in memory, for the metrics.

Everything is made before the first call; a call costs one small object, two clock readings and three additions.
"""

import asyncio
import time
from bisect import bisect_left
from collections.abc import Mapping
from types import TracebackType
from typing import Literal, Self

Method = Literal["GetDevicePluginOptions", "ListAndWatch", "GetPreferredAllocation", "Allocate", "PreStartContainer"]
Result = Literal["ok", "refused", "cancelled", "failed"]

METHODS: tuple[Method, ...] = (
    "GetDevicePluginOptions",
    "ListAndWatch",
    "GetPreferredAllocation",
    "Allocate",
    "PreStartContainer",
)
RESULTS: Mapping[Result, str] = {
    "ok": "answered",
    "refused": "refused with a reason: a wrong request, an Unhealthy device, a reset that failed",
    "cancelled": "the kubelet gave up, or either side ended, before there was an answer",
    "failed": "a bug of devd, told in its log",
}

BOUNDS_S = (0.0005, 0.001, 0.0025, 0.01, 0.05, 0.25, 1.0, 5.0, 15.0, 30.0)
"""Answers from memory take half a millisecond; a PreStartContainer takes a reset, and the kubelet gives up at 30 s."""


class MethodTimes:
    """The numbers of one method. ``counts`` are by bucket of ``BOUNDS_S``, the last one for all beyond."""

    def __init__(self) -> None:
        self.results: dict[Result, int] = dict.fromkeys(RESULTS, 0)
        self.counts = [0] * (len(BOUNDS_S) + 1)
        self.total_s = 0.0

    def add(self, result: Result, duration_s: float) -> None:
        """Count one call."""
        self.results[result] += 1
        self.counts[bisect_left(BOUNDS_S, duration_s)] += 1
        self.total_s += duration_s


class RpcTimes:
    """The numbers of all methods, over all resources and sockets of the daemon's life."""

    def __init__(self) -> None:
        self.methods: dict[Method, MethodTimes] = {method: MethodTimes() for method in METHODS}

    def call(self, method: Method, *, stream: bool = False) -> "RpcCall":
        """Return a context manager to serve one call in; it swallows nothing. A ``stream`` has to say ``answered``."""
        return RpcCall(method, self.methods[method], "cancelled" if stream else "ok")


class RpcCall:
    """One call under way. Left by an error it counts as refused, without another word."""

    __slots__ = ("_at_end", "_began_s", "_counted", "_failed", "_times", "method")

    def __init__(self, method: Method, times: MethodTimes, at_end: Result) -> None:
        self.method = method
        self._times = times
        self._at_end = at_end
        self._failed = False
        self._counted = False
        self._began_s = time.perf_counter()

    def answered(self) -> None:
        """Count the call as answered now, if it was not counted yet: a stream lives on after its first answer."""
        self._count("ok")

    def failed(self) -> None:
        """Note that the error this call ends by is a bug of ours, no refusal."""
        self._failed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._failed:
            self._count("failed")
        elif kind is None:
            self._count(self._at_end)
        else:
            self._count("cancelled" if issubclass(kind, asyncio.CancelledError) else "refused")

    def _count(self, result: Result) -> None:
        if not self._counted:
            self._counted = True
            self._times.add(result, time.perf_counter() - self._began_s)
