"""A worker's part in the tests of the bus: another process, so that the kernel has another pid to name.

Started with a role and its arguments; says "ready" once everything is imported, waits for a line on its standard input
(the gate of a real worker), acts, and tells what it saw in lines of JSON. It ends when its input does.
"""

import json
import os
import sys
import time
from collections.abc import Callable

import zmq
from zmq.utils.monitor import recv_monitor_message

from devd.ipc.command import CommandClient
from devd.ipc.health import HealthPublisher, topic_of
from devd.ipc.messages import Health, Hello, ProbeNow, Reset, ResetDone, Sandbox

WAIT_S = 10.0
KINDS = {"xpub": zmq.XPUB, "pair": zmq.PAIR, "dealer": zmq.DEALER}


def tell(**facts: object) -> None:
    """Write one line of facts."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def health(device: str, seq: int, reason: str = "") -> Health:
    """Return a passing report."""
    return Health(device, 1, seq, "pass", reason, seq, "open", time.monotonic(), 0.001, "", 0.0)


def hello(device: str) -> Hello:
    """Return this process's first word."""
    return Hello(device, 1, os.getpid(), Sandbox("basic"))


def publish(endpoint: str, device: str, count: str) -> None:
    """Publish ``count`` reports, waiting for the front where its queue is full."""
    context = zmq.Context(io_threads=1)
    publisher = HealthPublisher(context, endpoint)
    tell(subscribed=publisher.wait_subscribed(WAIT_S))
    for seq in range(int(count)):
        while not publisher.publish(health(device, seq)):
            time.sleep(0.001)
    tell(published=int(count))
    sys.stdin.read()
    publisher.close()
    context.term()


def first(endpoint: str, device: str, count: str) -> None:
    """Publish one report over each of ``count`` fresh connections, and leave once the front took the last one."""
    publishers = []
    contexts = []
    for seq in range(int(count)):
        context = zmq.Context(io_threads=1)
        publisher = HealthPublisher(context, endpoint)
        publisher.wait_subscribed(WAIT_S)
        publisher.publish(health(device, seq))
        publishers.append(publisher)
        contexts.append(context)
    tell(published=int(count))
    sys.stdin.read()
    for publisher in publishers:
        publisher.close()
    for context in contexts:
        context.term()


def twice(endpoint: str, device: str) -> None:
    """Connect, and once that stands connect again."""
    context = zmq.Context(io_threads=1)
    one = HealthPublisher(context, endpoint)
    tell(subscribed=one.wait_subscribed(WAIT_S))
    two = HealthPublisher(context, endpoint)
    tell(subscribed=two.wait_subscribed(0.5))
    one.publish(health(device, 1))
    sys.stdin.read()
    one.close()
    two.close()
    context.term()


def refused(endpoint: str, kind: str) -> None:
    """Connect and tell how the handshake ended."""
    context = zmq.Context(io_threads=1)
    peer = context.socket(KINDS[kind])
    monitor = peer.get_monitor_socket()
    peer.connect(endpoint)
    endings = {zmq.Event.HANDSHAKE_FAILED_AUTH, zmq.Event.HANDSHAKE_SUCCEEDED}
    seen = None
    while seen is None and monitor.poll(int(WAIT_S * 1000)):
        note = recv_monitor_message(monitor)
        seen = note if note["event"] in endings else None
    tell(event=zmq.Event(seen["event"]).name if seen else "", value=int(seen["value"]) if seen else 0)
    peer.disable_monitor()
    peer.close(0)
    context.term()


def flood(endpoint: str, device: str) -> None:
    """Publish the largest reports as fast as the queues take them; tell how many fitted before the first refusal."""
    context = zmq.Context(io_threads=1)
    publisher = HealthPublisher(context, endpoint)
    publisher.wait_subscribed(WAIT_S)
    report = health(device, 0, "x" * 60_000)
    fitted = 0
    refused_since_s = 0.0
    while not refused_since_s or time.monotonic() - refused_since_s < 0.3:
        if publisher.publish(report):
            fitted, refused_since_s = fitted + 1, 0.0
        else:
            refused_since_s = refused_since_s or time.monotonic()
            time.sleep(0.001)
    tell(fitted=fitted)
    while True:
        if not publisher.publish(report):
            time.sleep(0.0005)


def raw(endpoint: str, kind: str) -> None:
    """Send what the test dictates: each line is a list of frames in hex, or the size of one frame of zeros."""
    context = zmq.Context(io_threads=1)
    peer = context.socket(KINDS[kind])
    peer.linger = 0
    peer.sndhwm = 0
    peer.connect(endpoint)
    if kind == "xpub":
        tell(subscribed=bool(peer.poll(int(WAIT_S * 1000)) and peer.recv()))
    for line in sys.stdin:
        order = json.loads(line)
        frames = [bytes(order)] if isinstance(order, int) else [bytes.fromhex(one) for one in order]
        peer.send_multipart(frames)
    peer.close()
    context.term()


def command(endpoint: str, device: str) -> None:
    """Serve a command channel: say hello, answer resets, leave on a stop."""
    context = zmq.Context(io_threads=1)
    client = CommandClient(context, endpoint)
    client.send(hello(device))
    tell(hello=True)
    order: object = ProbeNow()
    while isinstance(order, Reset | ProbeNow):
        client.socket.poll(int(WAIT_S * 1000))
        order = client.receive()
        if isinstance(order, Reset):
            state = health(device, 1)
            client.send(ResetDone(device, 1, order.reset_id, ok=True, reason="", duration_s=0.1, health=state))
    tell(left=type(order).__name__)
    client.close()
    context.term()


ROLES: dict[str, Callable[..., None]] = {
    one.__name__: one for one in (publish, first, twice, refused, flood, raw, command)
}

if __name__ == "__main__":
    tell(ready=True, topic=topic_of("gpu-1").hex())
    if sys.stdin.readline():
        ROLES[sys.argv[1]](*sys.argv[2:])
