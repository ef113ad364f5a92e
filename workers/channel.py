"""A worker's two ways to the front: the health bus and its command channel.

What either cannot take at once is sent when it can: of the health reports the newest alone, which holds the whole
state; of the messages on the command channel all, up to a bound.
"""

from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import zmq

from devd.ipc.command import CommandClient
from devd.ipc.health import HealthPublisher
from devd.ipc.messages import FromWorker, Health, Hello, Sandbox, WorkerSpec
from devd.workers.errors import BusLostError

SUBSCRIBE_TIMEOUT_S = 10.0
"""From connect to the front's subscription: its loop may be busy with the start of hundreds of workers."""
MAX_UNSENT = 16
"""More than this unsent means that the front is gone or wedged; the oldest go first then."""
RETRY_S = 0.1
"""How soon an unsent message is tried again."""


class Channel:
    """Owner of the ZeroMQ context and both sockets. Make it after the fork: a context does not survive one."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._client = CommandClient(self._context, spec.command_endpoint, queue_early=False)
        self._unsent: deque[FromWorker] = deque(maxlen=MAX_UNSENT)
        self._unpublished: Health | None = None
        self._spec = spec
        self._publisher = HealthPublisher(self._context, spec.health_endpoint)

    @property
    def resource(self) -> str:
        """Return the resource whose device this process has."""
        return self._spec.resource

    @property
    def client(self) -> CommandClient:
        """Return the command channel, for a poller."""
        return self._client

    def wait_heard(self) -> None:
        """Wait until the front listens on both connections. Raises BusLostError when it does not."""
        if not self._publisher.wait_subscribed(SUBSCRIBE_TIMEOUT_S):
            raise BusLostError(f"no answer on {self._spec.health_endpoint} within {SUBSCRIBE_TIMEOUT_S:g} s")
        if not self._client.wait_connected(SUBSCRIBE_TIMEOUT_S):
            raise BusLostError(f"no answer on {self._spec.command_endpoint} within {SUBSCRIBE_TIMEOUT_S:g} s")

    def greet(self, sandbox: Sandbox, pid: int) -> None:
        """Say hello."""
        self.send(Hello(self._spec.device, self._spec.incarnation, pid, sandbox))

    def publish(self, health: Health) -> None:
        """Publish the state, now or as soon as the bus takes it (then the newest one); never waits."""
        self._unpublished = None if self._publisher.publish(health) else health

    def send(self, message: FromWorker) -> None:
        """Send on the command channel, now or as soon as it takes it; never waits."""
        self._unsent.append(message)
        self.flush()

    def send_raw(self, frames: Sequence[bytes]) -> None:
        """Publish frames as they are; for trying the front's defences."""
        self._publisher.send_raw(frames)

    def flush(self) -> bool:
        """Try what is unsent, in order; return whether all of it went."""
        if self._unpublished is not None:
            self.publish(self._unpublished)
        while self._unsent:
            if not self._client.send(self._unsent[0]):
                return False
            self._unsent.popleft()
        return self._unpublished is None

    def close(self) -> None:
        """Close both sockets and the context; nothing lingers."""
        self._client.close()
        self._publisher.close()
        self._context.destroy(linger=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
