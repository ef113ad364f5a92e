"""The health bus's receiving end: takes in what workers publish, makes sure who speaks, and passes it on.

Who speaks is the kernel's word (the connection's peer credentials), never the message's. A worker that speaks for
another device, sends garbage or floods is refused, counted and handed over as misbehaving.
"""

from asyncio import AbstractEventLoop
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from devd.daemon.turns import Turns
from devd.ipc.health import HealthSubscriber, Received
from devd.ipc.messages import Health

RATE_PER_S = 500.0
"""Messages a second a worker may send over time. An honest one sends two to five a probe and node, at the shortest
period (50 ms) of one node some 100; a flood is tens of thousands."""
BURST = 1000.0
"""Messages at once: what a worker may have queued while the front was away, with room."""
PUBLISHES_PER_S = 1e6
"""More than any process can publish in a second; what libzmq does not take counts as well."""
MESSAGES_A_TURN = 8
"""Messages taken before others have their turn."""
BATCH = 256
"""Messages taken at a time after an absence of the front's own."""
DRAIN_BATCHES = 64
"""After an absence of the front's own: the full queues of 256 workers."""
REFUSALS = ("unknown sender", "flood", "garbage", "spoof", "future", "stale")
"""Why a message is refused; a metric's labels."""


def most_sequence(age_s: float) -> float:
    """Return a sequence number that no worker of this age can have reached, however fast it publishes."""
    return PUBLISHES_PER_S * (age_s + 1.0)


@dataclass(slots=True)
class Budget:
    """What a device's worker may still send: ``tokens``, filled up with time. A refused message costs nothing."""

    filled_at_s: float
    tokens: float = BURST
    incarnation: int = 0

    def allows(self, now_s: float, incarnation: int) -> bool:
        """Count a message that says to be of this incarnation (0: it does not say); return whether it is within bounds.

        A new worker owes nothing for the last one. One that lies about its incarnation is refused for that.
        """
        if incarnation > self.incarnation:
            self.tokens, self.incarnation = BURST, incarnation
        self.tokens = min(BURST, self.tokens + (now_s - self.filled_at_s) * RATE_PER_S)
        self.filled_at_s = now_s
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class HealthFeed:
    """Reads the bus on the event loop. ``reported`` takes a report, or returns in a word why it refuses it."""

    def __init__(
        self,
        loop: AbstractEventLoop,
        subscriber: HealthSubscriber,
        turns: Turns,
        reported: Callable[[str, Health], str],
        misbehaved: Callable[[str, str], None],
    ) -> None:
        self._loop = loop
        self._subscriber = subscriber
        self._turns = turns
        self._reported = reported
        self._misbehaved = misbehaved
        self._budgets: dict[str, Budget] = {}
        self._refused: Counter[str] = Counter()
        self.received = 0
        loop.add_reader(subscriber.fd, self._readable)

    @property
    def refused(self) -> Mapping[str, int]:
        """Return how many messages were refused, by reason."""
        return self._refused

    def drain(self) -> None:
        """Take in what has arrived, as far as DRAIN_BATCHES go: a flood has no end."""
        for _ in range(DRAIN_BATCHES):
            if not self._batch(BATCH):
                return

    def forget(self, device: str) -> None:
        """Drop what is remembered of a device."""
        self._budgets.pop(device, None)

    def close(self) -> None:
        """Stop reading."""
        self._loop.remove_reader(self._subscriber.fd)

    def _readable(self) -> None:
        self._turns.put(self, self._some)

    def _some(self) -> bool:
        return self._batch(MESSAGES_A_TURN) or self._subscriber.pending()

    def _batch(self, limit: int) -> bool:
        """Take in one batch; return whether there may be more."""
        batch = self._subscriber.drain(limit)
        now_s = self._loop.time()
        for received in batch:
            self._take(received, now_s)
        return len(batch) >= limit

    def _take(self, received: Received, now_s: float) -> None:
        self.received += 1
        device = received.identity
        if not device:
            self._refused["unknown sender"] += 1
            return
        message = received.message
        incarnation = message.incarnation if isinstance(message, Health) else 0
        if not self._budgets.setdefault(device, Budget(now_s)).allows(now_s, incarnation):
            self._refused["flood"] += 1
            self._misbehaved(device, f"sent more than {RATE_PER_S:g} messages a second")
            return
        if not isinstance(message, Health):
            self._refused["garbage"] += 1
            self._misbehaved(device, received.error or "sent something that is no health message")
            return
        if message.device != device:
            self._refused["spoof"] += 1
            self._misbehaved(device, f"spoke for {message.device!r:.80}")
            return
        refusal = self._reported(device, message)
        if refusal:
            self._refused[refusal] += 1
