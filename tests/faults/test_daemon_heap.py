"""Messages without end: whoever sends one past libzmq is ended for the memory it takes, and nobody else."""

import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from devd.daemon.demo.rig import Rig
from tests.faults.worlds import SIM, scenario, sim, until

MIB = 1 << 20
MOST_BYTES = 600 * MIB
"""Private memory the front may have in these tests; it takes some 200 MiB by this count, stacks included."""
NEAR_BYTES = 48 * MIB
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
READY = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
ENDLESS = (b"\x03" + (60_000).to_bytes(8, "big") + bytes(60_000)) * 4
"""ZMTP 3.0: whole frames, each of which says that another one follows."""


def resident(pid: int) -> int:
    """Return the bytes of a process that are in memory."""
    pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * resource.getpagesize()


def bound(rig: Rig) -> int:
    """Have the front run into its limit where it keeps too much; return what it has in memory now."""
    resource.prlimit(rig.pid, resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
    return resident(rig.pid)


def script(how: str) -> str:
    """Return two devices that are well and one that sends without end after a while."""
    deed = f"{{do: misbehave, how: {how}}}"
    return f"[{{name: well}}, {{name: fine}}, {{name: bad, script: [{{for: 2s, do: pass}}, {deed}]}}]"


@pytest.mark.parametrize("how", ["endless", "endless-small"])
def test_worker_that_sends_without_end_is_ended_before_the_front_is(how: str) -> None:
    """Its memory comes back, the sender is killed and put into backoff with the reason, its neighbours go on."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 3)
        before = bound(rig)
        words = "its worker broke the protocol: the daemon's memory grew by"
        await until(
            lambda: any(one["detail"].startswith(words) for one in rig.journal("bad", "kill")), "the sender's end"
        )
        assert (await rig.journal_has("bad", "restart", 1))[0]["detail"].startswith("worker killed by SIGKILL")
        await until(lambda: resident(rig.pid) < before + NEAR_BYTES, "its memory")
        assert rig.status()["daemon"]["counters"]["memory_ended"] >= 1
        assert rig.status()["daemon"]["counters"]["memory_accepted"] == 0
        for name in ("well", "fine"):
            probes = rig.device(name)["last_probe"]["at"]
            await until(lambda: rig.device(name)["last_probe"]["at"] > probes, "a probe")  # noqa: B023 - waited for here
            assert [health for _at_s, health in rig.turns(SIM, name)] == ["Healthy"]
            assert rig.device(name)["restarts"] == 0

    # Slow to be taken for hung: it is its memory that ends it.
    scenario(sim(script(how), timeout="30s"), play)


@contextmanager
def caller_without_end(path: Path) -> Iterator[None]:
    """Send one message without end to the control socket, until the connection ends."""

    def send() -> None:
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
            caller.connect(str(path))
            caller.sendall(GREETING)
            caller.recv(64, socket.MSG_WAITALL)
            caller.sendall(b"\x04" + bytes([len(READY)]) + READY)
            caller.recv(64)  # the daemon's own: until it has let the caller in, more would break the handshake
            while True:
                caller.sendall(ENDLESS)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    yield
    thread.join(30)
    assert not thread.is_alive(), "its connection was not ended"


def test_caller_that_sends_without_end_is_cut_off() -> None:
    """All connections of the control socket end, no worker does, and others are answered again."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 1)
        before = bound(rig)
        with caller_without_end(rig.layout.control):
            await until(lambda: "connections: the daemon's memory grew by" in rig.log_text(), "the cut")
        await until(lambda: rig.status()["daemon"]["counters"]["control_cuts"] == 1, "an answer")
        assert rig.status()["daemon"]["counters"]["memory_ended"] == 1
        await until(lambda: resident(rig.pid) < before + NEAR_BYTES, "its memory")
        assert rig.journal("one", "kill") == []

    scenario(sim("[{name: one}]"), play)
