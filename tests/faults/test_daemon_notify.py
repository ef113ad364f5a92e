"""What a service manager hears of a real daemon: ready, its state, reloads, the watchdog's food, the end."""

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from devd.daemon.demo.rig import Rig
from devd.daemon.notify import FED_PER_TIMEOUT
from devd.daemon.watchdog import BLOCKED_S
from tests.faults.worlds import SIM, scenario, sim, until

SUPPORT = Path(__file__).parents[1] / "support"
TWO = "[{name: one}, {name: two}]"
SLOW = "[{name: slow, script: [{for: 1s, do: slow, takes: 1s}]}]"
TIMEOUT_S = 1.5


class Manager:
    """The receiving end of sd_notify(3), on a path or an abstract address."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)  # noqa: FBT003 - the standard library's own signature
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self.heard: list[str] = []

    def listen(self) -> list[str]:
        """Return every assignment heard so far."""
        while True:
            try:
                self.heard += self._socket.recv(4096).decode().splitlines()
            except BlockingIOError:
                return self.heard

    def close(self) -> None:
        """Hear no more."""
        self._socket.close()


def knows_the_socket(pid: int) -> bool:
    """Return whether a process was given the service manager's address."""
    try:
        return b"NOTIFY_SOCKET" in Path(f"/proc/{pid}/environ").read_bytes()
    except PermissionError:
        return False  # not even its own user may look into a worker: the fork server, which it is a copy of, tells


@contextmanager
def manager(rig: Rig, address: str) -> Iterator[Manager]:
    """Have the rig's next daemon believe that it was started by systemd."""
    made = Manager(address)
    usec = str(int(TIMEOUT_S * 1e6))
    rig.environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": usec}
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("abstract", [False, True])
def test_service_manager_hears_of_a_whole_life(abstract: bool) -> None:  # noqa: FBT001 - pytest's
    """READY once it serves, then its state in words, a reload, and STOPPING; no worker has the socket's name."""

    async def play(rig: Rig) -> None:
        await rig.end_daemon()
        address = f"@devd-{os.getpid()}" if abstract else str(rig.root / "notify")
        with manager(rig, address) as heard:
            rig.start_daemon()
            await until(lambda: "READY=1" in heard.listen(), "READY")
            await rig.healthy(SIM, 2)
            words = "STATUS=2 of 2 devices Healthy, 1 of 1 resources registered"
            await until(lambda: words in heard.listen(), "the state")
            assert rig.worker_pids()
            assert not any(knows_the_socket(pid) for pid in rig.worker_pids())
            before = len(heard.listen())
            os.kill(rig.pid, signal.SIGHUP)
            await until(lambda: "READY=1" in heard.listen()[before:], "the end of the reload")
            reload = heard.heard[before:]
            at = reload.index("RELOADING=1")
            assert reload[at + 1].startswith("MONOTONIC_USEC=")
            assert "READY=1" in reload[at:]
            await rig.end_daemon()
            assert heard.listen()[-1] == "STOPPING=1"

    scenario(sim(TWO), play)


def test_ready_means_that_the_kubelet_has_the_devices() -> None:
    """READY comes after the first verdicts and the registration, not when the process has merely begun."""

    async def play(rig: Rig) -> None:
        await rig.end_daemon()
        with manager(rig, str(rig.root / "notify")) as heard:
            rig.start_daemon()
            await until(lambda: "READY=1" in heard.listen(), "READY")
            # By the order of the words: both may have come before this process had a look.
            first = next(at for at, one in enumerate(heard.heard) if one.startswith("STATUS="))
            assert heard.heard.index("READY=1") > first
            assert heard.heard[first].endswith("0 of 1 resources registered")
            [resource] = rig.status()["resources"]
            assert (resource["registration"]["state"], resource["registration"]["registrations"]) == ("registered", 1)

    scenario(sim(SLOW, timeout="3s"), play)


@pytest.mark.parametrize("way", ["socket", "watcher"])
def test_kubelet_that_is_not_there_does_not_hold_up_the_start(way: str) -> None:
    """READY comes without a kubelet too: the kubelet's own service may be ordered after devd's."""

    async def play(rig: Rig) -> None:
        await rig.end_daemon()
        await rig.kubelet.stop()
        with manager(rig, str(rig.root / "notify")) as heard:
            rig.start_daemon()
            await until(lambda: "READY=1" in heard.listen(), "READY")
            # In between it says that it tries, if a try takes its time.
            await until(
                lambda: rig.status()["resources"][0]["registration"]["state"] == "waiting for kubelet", "the state"
            )

    scenario(sim(TWO, kubelet=f"registration: {way}"), play)


def test_daemon_that_cannot_serve_is_never_ready() -> None:
    """A second devd on the kubelet's directory says STOPPING without a READY before it, and ends with an error."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 2)
        first = rig.daemon
        with manager(rig, str(rig.root / "notify")) as heard:
            second = rig.start_daemon("--runtime-dir", str(rig.root / "run2"), "--state-dir", str(rig.root / "state2"))
            code = await asyncio.to_thread(second.wait, 30)
            rig.daemon = first
            assert code == 1
            assert heard.listen()[-1] == "STOPPING=1"
            assert "READY=1" not in heard.heard

    scenario(sim(TWO), play)


def test_loop_that_stands_still_does_not_feed_the_watchdog() -> None:
    """WATCHDOG=1 comes as long as the loop turns; of a blocked one systemd hears nothing for more than its timeout."""

    async def play(rig: Rig) -> None:
        await rig.end_daemon()
        rig.program = (str(SUPPORT / "planted.py"),)
        with manager(rig, str(rig.root / "notify")) as heard:
            rig.start_daemon()
            await rig.healthy(SIM, 2)
            await until(lambda: heard.listen().count("WATCHDOG=1") > FED_PER_TIMEOUT, "a fed watchdog")
            before = heard.heard.count("WATCHDOG=1")
            os.kill(rig.pid, signal.SIGUSR1)
            await until(lambda: "stand_still (planted.py:" in rig.log_text(), "the blocked loop")
            # It is told of after BLOCKED_S, which is more than the timeout: one beat may have slipped in before.
            fed = heard.listen().count("WATCHDOG=1")
            assert BLOCKED_S > TIMEOUT_S
            assert fed <= before + 1
            os.kill(rig.pid, signal.SIGUSR2)
            await until(lambda: "the event loop goes on" in rig.log_text(), "its end")
            await until(lambda: heard.listen().count("WATCHDOG=1") > fed, "food again")

    scenario(sim(TWO), play)


def test_watchdog_of_another_process_is_not_fed() -> None:
    """WATCHDOG_PID names somebody else: devd says what it does, and feeds nobody's watchdog."""

    async def play(rig: Rig) -> None:
        await rig.end_daemon()
        with manager(rig, str(rig.root / "notify")) as heard:
            rig.environment["WATCHDOG_PID"] = "1"
            rig.start_daemon()
            await rig.healthy(SIM, 2)
            await until(lambda: any(one.startswith("STATUS=2 of 2") for one in heard.listen()), "the state")
            assert "WATCHDOG=1" not in heard.heard

    scenario(sim(TWO), play)


def test_service_manager_that_is_not_there_is_told_once() -> None:
    """A socket that leads nowhere costs a line in the log and nothing else."""

    async def play(rig: Rig) -> None:
        await rig.end_daemon()
        rig.environment = {"NOTIFY_SOCKET": str(rig.root / "nobody")}
        rig.start_daemon()
        await rig.healthy(SIM, 2)
        assert rig.log_text().count("NOTIFY_SOCKET=") == 1

    scenario(sim(TWO), play)
