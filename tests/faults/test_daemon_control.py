"""The control socket: who may ask, what is written down of it, and what those cost who ask too much."""

import json
import os
import resource
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psutil
import pytest
import zmq

from devd.daemon.demo.rig import Rig
from devd.ipc import codec
from devd.ipc.endpoints import ipc_address
from devd.ipc.messages import ControlRequest
from tests.faults.worlds import SIM, alive, answers, descriptors, scenario, sim, until

ONE = "[{name: card}]"
OTHER_UID, GROUP, OTHER_GROUP = 61234, 61235, 61236
MUTE_CLIENTS = 20
REQUESTS_EACH = 500
MOST_KEPT_BYTES = 64 * 1024 * 1024

FLOODERS = 3
FLOOD_CONNECTIONS = 700
FEW_DESCRIPTORS = 1024
"""Fewer than the flood has connections: without a bound libzmq would abort the front."""
FLOOD = """
import socket, sys, time
held = []
print("begun", flush=True)
while True:
    client = socket.socket(socket.AF_UNIX)
    client.setblocking(False)
    try:
        client.connect(sys.argv[1])
    except OSError:
        client.close()
        time.sleep(0.001)
        continue
    held.append(client)
    if len(held) > int(sys.argv[2]):
        held.pop(0).close()
"""
"""Holds as many connections as it gets, and lets the oldest go for new ones."""

AS_SOMEBODY = """
import os, sys
import gettext, locale, zmq, yaml
from devd.daemon.cli import client, main, render, status
from devd.ipc import control
gids = [int(one) for one in sys.argv[2].split(",")]
os.setgroups(gids[1:])
os.setresgid(gids[0], gids[0], gids[0])
os.setresuid(*[int(sys.argv[1])] * 3)
sys.exit(main(sys.argv[3:]))
"""
"""What the interpreter needs is loaded first: another user may not reach it."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")


def asked_by(rig: Rig, uid: int, gids: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as another user."""
    command = [sys.executable, "-c", AS_SOMEBODY, str(uid), gids, words[0], "--runtime-dir", str(rig.layout.root)]
    return subprocess.run([*command, *words[1:]], capture_output=True, text=True, timeout=20, check=False)


def logged(rig: Rig, event: str) -> list[dict[str, Any]]:
    """Return the daemon's log records of an event: of the whole log, but for a line that is being written."""
    whole = (rig.root / "devd.log").read_text(encoding="utf-8", errors="replace").rpartition("\n")[0]
    lines = (line for line in whole.splitlines() if line.startswith("{"))
    return [one for one in map(json.loads, lines) if one.get("event") == event and one["logger"] == "devd.control"]


def test_orders_are_logged_with_who_gave_them() -> None:
    """Each verb that changes something leaves one record with the caller's uid and pid, by the kernel's word."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM)
        for verb in ("probe", "restart", "cordon", "uncordon"):
            rig.order(verb, "card")
        rig.inject("card", "none")
        command = [sys.executable, "-m", "devd", "reload", "--runtime-dir", str(rig.layout.root)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as reload:  # noqa: ASYNC220 - a moment
            await until(lambda: bool(logged(rig, "reload")), "the record")
        assert [(one["uid"], one["pid"]) for one in logged(rig, "reload")] == [(os.geteuid(), reload.pid)]
        for verb in ("probe", "restart", "cordon", "uncordon", "inject"):
            records = logged(rig, verb)
            assert [(one["uid"], one["gid"], one["pid"]) for one in records] == [
                (os.geteuid(), os.getegid(), os.getpid())
            ], verb
        assert logged(rig, "cordon")[0]["device"] == "card"

    scenario(sim(ONE), play)


@needs_root
def test_nobody_else_may_ask() -> None:
    """Another user is told whose socket it is and what to do; even one that finds the directory open."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM)
        rig.root.chmod(0o711)
        told = asked_by(rig, OTHER_UID, str(GROUP), "status")
        assert told.returncode == 1
        assert "permission denied" in told.stderr
        assert "--control-group" in told.stderr
        assert "Traceback" not in told.stderr
        rig.layout.root.chmod(0o711)
        rig.layout.control.chmod(0o666)
        told = asked_by(rig, OTHER_UID, str(GROUP), "cordon", "card")
        assert told.returncode == 1
        assert f"uid {OTHER_UID} is neither" in told.stderr
        assert rig.device("card")["cordon"] is None
        assert asked_by(rig, OTHER_UID, str(GROUP), "status").returncode == 1
        assert rig.status()["daemon"]["counters"]["control_refused"] == 2
        assert [(one["uid"], one["gid"], one["count"]) for one in logged(rig, "refused")] == [(OTHER_UID, GROUP, 1)]
        rig.layout.root.chmod(0o700)

    scenario(sim(ONE), play)


@needs_root
@pytest.mark.parametrize("gids", [f"{GROUP}", f"{OTHER_GROUP},{GROUP}"])
def test_control_group_may_ask_and_reaches_nothing_else(gids: str) -> None:
    """With --control-group its members use the verbs, and are named in the log; the workers' sockets stay shut."""

    async def play(rig: Rig) -> None:
        await rig.end_daemon()
        rig.root.chmod(0o711)
        rig.start_daemon("--control-group", str(GROUP))
        await rig.healthy(SIM)
        told = asked_by(rig, OTHER_UID, gids, "probe", "card")
        assert (told.returncode, told.stderr) == (0, "")
        assert [one["uid"] for one in logged(rig, "probe")] == [OTHER_UID]
        assert asked_by(rig, OTHER_UID, str(OTHER_GROUP), "status").returncode == 1
        modes = {path: (stat.S_IMODE(path.stat().st_mode), path.stat().st_gid) for path in rig.layout.root.iterdir()}
        assert modes.pop(rig.layout.control) == (0o660, GROUP)
        assert all(not mode & 0o077 for mode, _gid in modes.values()), modes
        assert stat.S_IMODE(rig.layout.root.stat().st_mode) == 0o710
        await rig.end_daemon()
        rig.start_daemon()
        await rig.healthy(SIM)
        assert stat.S_IMODE(rig.layout.root.stat().st_mode) == 0o700
        assert stat.S_IMODE(rig.layout.control.stat().st_mode) == 0o600

    scenario(sim(ONE), play)


def test_unknown_control_group_is_refused_at_start() -> None:
    """A group that does not exist is an error of the command line that names it."""
    command = [sys.executable, "-m", "devd", "run", "--config", "x.yaml", "--control-group", "no such group"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert told.returncode == 2
    assert "'no such group': there is no group of this name" in told.stderr


@contextmanager
def mute_clients(rig: Rig) -> Iterator[int]:
    """Have clients that ask and ask and never read; give how many requests they got rid of."""
    sent = 0
    with zmq.Context() as context:
        clients = []
        for _ in range(MUTE_CLIENTS):
            client = context.socket(zmq.DEALER)
            client.linger = 0
            client.rcvhwm = 1
            client.connect(ipc_address(rig.layout.control))
            clients.append(client)
        for client in clients:
            for _ in range(REQUESTS_EACH):
                try:
                    client.send(codec.encode(ControlRequest("status")), zmq.NOBLOCK)
                except zmq.Again:
                    break
                sent += 1
        yield sent
        for client in clients:
            client.close()


def test_clients_that_ask_and_never_read_cost_the_others_nothing() -> None:
    """Twenty clients each queue hundreds of requests: devd answers others meanwhile, and keeps little of them."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM)
        front = psutil.Process(rig.pid)
        before = front.memory_info().rss
        answered = rig.status()["daemon"]["counters"]["control_answered"]
        probes: set[str] = set()

        def probed() -> bool:
            """Return whether there was a probe since the first look; an answer may be late on a busy machine."""
            probes.add(rig.device("card")["last_probe"]["at"])
            return len(probes) > 1

        with mute_clients(rig) as sent:
            assert sent > MUTE_CLIENTS
            await until(
                lambda: rig.status()["daemon"]["counters"]["control_answered"] > answered + 50, "answers to many"
            )
            await until(probed, "a probe")
            assert front.memory_info().rss - before < MOST_KEPT_BYTES
        assert [health for _at_s, health in rig.turns(SIM, "card")] == ["Healthy"]

    scenario(sim(ONE), play)


@contextmanager
def flood(rig: Rig) -> Iterator[None]:
    """Have processes that connect and connect and say nothing."""
    command = [sys.executable, "-c", FLOOD, str(rig.layout.control), str(FLOOD_CONNECTIONS)]
    with ExitStack() as stack:
        for _ in range(FLOODERS):
            flooder = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))
            stack.callback(flooder.kill)
            assert flooder.stdout is not None
            assert flooder.stdout.readline() == b"begun\n"
        yield


def test_connections_without_end_do_not_take_the_descriptors() -> None:
    """Callers that hold more connections than the front has descriptors are all sent away; then others are answered."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM)
        resource.prlimit(rig.pid, resource.RLIMIT_NOFILE, (FEW_DESCRIPTORS, FEW_DESCRIPTORS))
        before = descriptors(rig.pid)
        with flood(rig):
            await until(lambda: bool(logged(rig, "cut")), "a line in the log")
            # It is 10 s until the next line: by then there were several.
            await until(lambda: len(logged(rig, "cut")) == 2, "the next line", timeout_s=30)
            assert alive(rig.pid)
            assert descriptors(rig.pid) < FEW_DESCRIPTORS / 2
        await until(lambda: answers(rig), "an answer")
        assert rig.status()["daemon"]["counters"]["control_cuts"] > 2
        await until(lambda: descriptors(rig.pid) <= before + 4, "descriptors to be given back")
        assert [health for _at_s, health in rig.turns(SIM, "card")] == ["Healthy"]

    scenario(sim(ONE), play)
