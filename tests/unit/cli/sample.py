"""A status tree as the daemon gives it, and a daemon's control socket that gives it."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zmq

from devd.ipc.control import ControlServer
from devd.ipc.endpoints import RuntimeLayout
from devd.ipc.messages import ControlReply, ControlRequest

NOW_S = 1_780_000_000.0
SINCE = "2026-05-28T20:23:28.000Z"
"""3 minutes and 12 seconds before NOW_S."""


def device(name: str, resource: str = "devd.io/serial", **changes: object) -> dict[str, Any]:
    """Return one device, healthy unless changed."""
    return {
        "id": name,
        "resource": resource,
        "driver": "node",
        "paths": [f"/dev/{name}"],
        "health": "Healthy",
        "reason": "",
        "since": SINCE,
        "phase": "serving",
        "pid": 4711,
        "restarts": 0,
        "incarnation": 1,
        "wedged": False,
        "cordon": None,
        "held": False,
        "falls": 0,
        "numa_node": None,
        "replicas": 1,
        "lease_s": 6.5,
        "last_probe": {
            "kind": "open",
            "verdict": "pass",
            "reason": "",
            "at": SINCE,
            "age_s": 2.2,
            "duration_s": 0.00012,
        },
        "sandbox": {"level": "basic", "active": ["no_core", "nice"], "missing": {"oom_score": "EACCES"}},
        **changes,
    }


def resource(name: str, **changes: object) -> dict[str, Any]:
    """Return one resource, registered unless changed."""
    return {
        "name": name,
        "driver": "node",
        "devices": 2,
        "healthy": 2,
        "offered": 2,
        "registration": {
            "mode": "socket",
            "state": "registered",
            "since": SINCE,
            "socket": "/var/lib/kubelet/device-plugins/devd-serial.sock",
            "registrations": 3,
            "last_error": "",
            "stream_open": True,
        },
        "discovery": {"pid": 12, "health": "Healthy", "reason": "", "age_s": 4.0, "problems": []},
        **changes,
    }


def tree(devices: list[dict[str, Any]], resources: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a whole status."""
    return {
        "version": 1,
        "daemon": {
            "version": "1.2.3",
            "pid": 99,
            "uptime_s": 7500.0,
            "started": SINCE,
            "config": "/etc/devd/devd.yaml",
            "config_error": None,
            "config_taken": SINCE,
            "reloads": 0,
            "kubelet_dir": "/var/lib/kubelet/device-plugins",
            "registration": "socket",
            "runtime_dir": "/run/devd",
            "forkserver": {"pid": 100, "restarts": 0},
            "counters": {"stalls": 0, "peers_refused": {"stranger": 2}},
        },
        "resources": resources,
        "devices": devices,
    }


def example() -> dict[str, Any]:
    """Return two resources, one device of which is ill."""
    ill = device(
        "ttyUSB10",
        health="Unhealthy",
        reason="open /dev/ttyUSB10: no answer within 2 s: its driver hangs, and the worker was killed",
        pid=None,
        restarts=12,
        lease_s=None,
        last_probe=None,
        sandbox=None,
        phase="backoff",
    )
    kvm = device("kvm", "devd.io/kvm", numa_node=1, replicas=100)
    return tree([device("ttyUSB2"), ill, kvm], [resource("devd.io/serial"), resource("devd.io/kvm", devices=1)])


@contextmanager
def daemon(root: Path, replies: Mapping[str, ControlReply]) -> Iterator[list[ControlRequest]]:
    """Answer each verb with its reply on a real control socket; return the requests that came."""
    layout = RuntimeLayout(root)
    layout.prepare()
    asked: list[ControlRequest] = []
    over = threading.Event()

    def serve() -> None:
        with zmq.Context() as context:
            server = ControlServer(context, layout.control, b"")
            ready.set()
            while not over.is_set():
                for one in server.drain():
                    if one.request is None:
                        server.reply(one.route, ControlReply(ok=False, error=one.error))
                    else:
                        asked.append(one.request)
                        server.reply(one.route, replies[one.request.verb])
                if not server.pending():
                    over.wait(0.002)
            server.close()

    ready = threading.Event()
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert ready.wait(10)
        yield asked
    finally:
        over.set()
        thread.join()
        layout.remove()
