"""A worker's word about itself: one state, published whole at the start and end of everything it does."""

import time
from dataclasses import replace
from typing import Literal

from devd.ipc.messages import Health, WorkerSpec
from devd.workers.channel import Channel


class Reporter:
    """Owner of the state; the channel belongs to whoever made it."""

    def __init__(self, channel: Channel, spec: WorkerSpec, kind: str) -> None:
        self._channel = channel
        self._state = Health(
            device=spec.device,
            incarnation=spec.incarnation,
            seq=0,
            verdict="none",
            reason="",
            probe_count=0,
            probe_kind=kind,
            probe_at_s=0.0,
            probe_duration_s=0.0,
            activity="",
            activity_at_s=0.0,
        )

    @property
    def state(self) -> Health:
        """Return the state as it was last published."""
        return self._state

    def begin(self, activity: str) -> float:
        """Tell that something begins; return when."""
        now_s = time.monotonic()
        self._publish(replace(self._state, activity=activity, activity_at_s=now_s))
        return now_s

    def say(self, activity: str) -> None:
        """Tell the next call of what is under way; its beginning stays the whole run's."""
        if activity != self._state.activity:
            self._publish(replace(self._state, activity=activity))

    def verdict(self, verdict: Literal["pass", "fail"], reason: str, began_at_s: float) -> None:
        """Tell a finished probe; ``probe_at_s`` is its end."""
        now_s = time.monotonic()
        self._publish(
            replace(
                self._state,
                verdict=verdict,
                reason=reason,
                probe_count=self._state.probe_count + 1,
                probe_at_s=now_s,
                probe_duration_s=now_s - began_at_s,
                activity="",
            )
        )

    def _publish(self, state: Health) -> None:
        self._state = replace(state, seq=self._state.seq + 1)
        self._channel.publish(self._state)
