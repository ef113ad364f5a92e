"""Processes that are no workers, and workers that break the protocol, at a real daemon's sockets."""

import socket
import subprocess
import sys

from devd.daemon.demo.rig import Rig
from devd.ipc.endpoints import ipc_address
from tests.faults.worlds import GRACE_S, SIM, scenario, sim, until

STRANGER = """
import sys, time, zmq
from devd.ipc import codec
from devd.ipc.health import topic_of
from devd.ipc.messages import Health
device = sys.argv[2]
lie = Health(device, 1, 2**40, "fail", "a lie", 2**40, "open", 0.0, 0.0, "", 0.0)
bus = zmq.Context().socket(zmq.PUB)
bus.linger = 0
bus.connect(sys.argv[1])
end = time.monotonic() + 2
while time.monotonic() < end:
    bus.send_multipart([topic_of(device), codec.encode(lie)])
    time.sleep(0.01)
"""


def test_stranger_on_the_health_bus_is_refused_and_counted() -> None:
    """A process of the same user that is no worker speaks for a device: refused, counted, and nothing changes."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM)
        command = [sys.executable, "-c", STRANGER, ipc_address(rig.layout.health), "card"]
        with subprocess.Popen(command) as stranger:  # noqa: ASYNC220 - it runs beside the loop
            await until(
                lambda: rig.status()["daemon"]["counters"]["peers_refused"].get("unknown process", 0) > 0, "a refusal"
            )
            probes = rig.device("card")["last_probe"]["at"]
            await until(lambda: rig.device("card")["last_probe"]["at"] > probes, "a probe of the true worker")
            stranger.kill()
        assert [health for _at_s, health in rig.turns(SIM, "card")] == ["Healthy"]
        assert rig.device("card")["restarts"] == 0

    scenario(sim("[{name: card}]"), play)


def test_worker_that_floods_is_ended_and_its_neighbour_is_not_disturbed() -> None:
    """A worker that publishes as fast as it can is killed for it, with the reason; its neighbour stays Healthy."""
    devices = "[{name: well}, {name: loud, script: [{for: 1s, do: pass}, {for: 60s, do: flood}]}]"

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 2)
        await rig.kubelet.wait_for(lambda: len(rig.turns(SIM, "loud")) > 1, GRACE_S, "the flood's end")
        await until(lambda: bool(rig.journal("loud", "kill")), "the kill in the journal")
        assert "messages a second" in rig.journal("loud", "kill")[0]["detail"]
        assert rig.status()["daemon"]["counters"]["health_refused"]["flood"] > 0
        probes = rig.device("well")["last_probe"]["at"]
        await until(lambda: rig.device("well")["last_probe"]["at"] > probes, "a probe of the neighbour")
        assert [health for _at_s, health in rig.turns(SIM, "well")] == ["Healthy"]

    # A flood lasts for one probe: it is the flood that ends it, and not the probe's time.
    scenario(sim(devices, timeout="5s"), play)


def test_garbage_on_the_control_socket_costs_nothing() -> None:
    """Bytes that are no ZeroMQ at all on the control socket are dropped; status answers as before."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM)
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 4096, b""):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stranger:
                stranger.connect(str(rig.layout.control))
                stranger.sendall(garbage)
            assert rig.device("card")["health"] == "Healthy"

    scenario(sim("[{name: card}]"), play)
