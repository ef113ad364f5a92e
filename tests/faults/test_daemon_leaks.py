"""What many faults leave behind in a daemon that goes on: nothing."""

import asyncio
import os
import signal

from devd.daemon.demo.rig import Rig
from tests.faults.worlds import LOOK_EVERY_S, SIM, alive, descriptors, scenario, sim, until

DEATHS = 12
HANGS = 4


def stand(rig: Rig) -> tuple[int, int, int]:
    """Return the front's descriptors, the command sockets, and the zombies among the front's children."""
    status = f"/proc/{rig.pid}/task/{rig.pid}/children"
    with open(status, encoding="ascii") as children:  # noqa: PTH123 - a file of the kernel's
        zombies = sum(not alive(int(pid)) for pid in children.read().split())
    return descriptors(rig.pid), len(list(rig.layout.commands.iterdir())), zombies


async def quiet(rig: Rig, count: int) -> None:
    """Wait until all devices are served, and the sockets of ended workers are closed (libzmq does it in its thread)."""
    await until(lambda: [one["phase"] for one in rig.status()["devices"]] == ["serving"] * count, "all serving")
    # A file that is being written is open.
    await until(lambda: not any(_waiting(rig)), "journals and state written")


async def least(rig: Rig) -> tuple[int, int, int]:
    """Return the least of several looks: what asked a moment ago may still be connected."""
    looks = []
    for _ in range(20):
        looks.append(stand(rig))
        await asyncio.sleep(LOOK_EVERY_S)
    return min(looks)


def _waiting(rig: Rig) -> tuple[int, int]:
    counters = rig.status()["daemon"]["counters"]
    return counters["journal"]["waiting"], counters["state"]["waiting"]


def test_workers_that_die_leave_no_descriptor_socket_or_zombie() -> None:
    """After many deaths of a worker the front has as many descriptors, sockets and children as before."""
    more = "    restart: {intensity: 1000, backoff: 10ms, backoff_max: 20ms}\n"

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 2)
        await quiet(rig, 2)
        before = await least(rig)
        for _ in range(DEATHS):
            pid = rig.device("one")["pid"]
            os.kill(pid, signal.SIGKILL)
            await until(lambda pid=pid: rig.device("one")["pid"] not in (None, pid), "a new worker")  # type: ignore[misc]
        await quiet(rig, 2)
        assert rig.device("one")["restarts"] == DEATHS
        await until(lambda: stand(rig) == before, f"as before: {before}")

    scenario(sim("[{name: one}, {name: two}]", more=more), play)


def test_workers_that_hang_leave_nothing_either() -> None:
    """The same for workers that hang and are killed."""
    more = "    restart: {intensity: 1000, backoff: 10ms, backoff_max: 20ms}\n"
    script = "[{for: 600ms, do: pass}, {do: hang}]"

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 2)
        await quiet(rig, 2)
        before = await least(rig)
        await until(lambda: len(rig.journal("hangs", "kill")) >= HANGS, "some hangs")
        await until(lambda: stand(rig) == before, f"as before: {before}")

    scenario(sim(f"[{{name: well}}, {{name: hangs, script: {script}}}]", more=more), play)
