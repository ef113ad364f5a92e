"""Devices that call themselves the same, and device nodes that change hands: what the kubelet is offered meanwhile."""

import asyncio
import math
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from devd.daemon.demo.kubelet_rules import AdmissionError
from devd.daemon.demo.rig import Rig
from tests.faults.worlds import until
from tests.unit.workers.drivers import usb_tree
from tests.unit.workers.drivers.tree import grow

USB, MORE = "test.devd.io/usb", "test.devd.io/more"
PACKAGE = Path(__file__).parents[1] / "support" / "usbworld"
NAME = "0403:6001:TW"
ONE, TWO = f"{NAME}-0000:00-14.0-usb2-1", f"{NAME}-0000:00-14.0-usb2-2"
TTYS = 'match: {vendor: "0403", nodes: "ttyUSB*"}'


def usb_config(match: str = 'match: {vendor: "0403"}', linger: str = "1h", name: str = USB) -> str:
    """Return a resource of USB devices of the fixtures' world; its nodes are files, which only root could help."""
    return f"""  - name: {name}
    driver: usbworld
    {match}
    probe: {{kind: driver, period: 200ms, timeout: 2s, signals: {{node: false}}}}
    discovery: {{period: 300ms, linger: {linger}}}
"""


def scenario(
    make: Callable[[Path], object], play: Callable[[Rig, Path], Awaitable[None]], *resources: str, healthy: int = 1
) -> None:
    """Run one scenario in a world that was made so; the kubelet must have nothing to complain about."""

    async def run() -> None:
        rig = Rig("resources:\n" + "".join(resources or (usb_config(),)))
        rig.root.chmod(0o755)
        world = rig.root / "world"
        world.mkdir(mode=0o755)
        make(world)
        rig.environment |= {"PYTHONPATH": str(PACKAGE), "USB_WORLD": str(world), "DEVD_WORKER_ENV": "USB_WORLD"}
        async with rig:
            await rig.healthy(USB, healthy)
            await play(rig, world)
            assert rig.kubelet.violations == []

    asyncio.run(run())


def twins(world: Path) -> None:
    """Plug two devices with one serial into ports 1 and 2."""
    usb_tree.device(world, "1-1", serial="TW", number=5)
    usb_tree.device(world, "1-2", serial="TW", number=6)


def health(rig: Rig, resource: str = USB) -> dict[str, str]:
    """Return the last list that the kubelet got of a resource."""
    return {name: one.health for name, one in rig.kubelet.resources[resource].lists[-1].devices.items()}


def ever_offered(rig: Rig) -> set[str]:
    """Return all ids that the kubelet was told of."""
    return {name for state in rig.kubelet.resources.values() for one in state.lists for name in one.devices}


async def listed(rig: Rig, wanted: dict[str, str], resource: str = USB) -> None:
    """Wait until the kubelet's list is this one."""
    what = f"{wanted} of {resource}"
    await rig.kubelet.wait_for(lambda: health(rig, resource) == wanted, 60.0, what)


def scout(rig: Rig, resource: str = USB) -> dict[str, Any]:
    """Return what the status says of a resource's scout."""
    [one] = [one["discovery"] for one in rig.status()["resources"] if one["name"] == resource]
    return dict(one)


async def scanned(rig: Rig) -> None:
    """Wait until the scout has looked twice from now on: the first of these looks may be under way."""
    for _turn in range(2):
        ages = [age_s(rig)]

        def anew(ages: list[float] = ages) -> bool:
            ages.append(age_s(rig))
            return ages[-1] < ages[-2]

        await until(anew, "a scan")


def age_s(rig: Rig) -> float:
    """Return how old the list is."""
    age_s = scout(rig)["age_s"]
    return math.inf if age_s is None else float(age_s)


async def gone(rig: Rig, device: str) -> None:
    """Wait until the scout has missed a device."""
    await until(lambda: "is gone: unplugged" in rig.device(device)["reason"], f"{device} is gone")


async def next_scout(rig: Rig) -> None:
    """Have another scout look."""
    pid = scout(rig)["pid"]
    os.kill(pid, signal.SIGKILL)
    await until(lambda: scout(rig)["pid"] not in {None, pid}, "another scout")
    await scanned(rig)


async def next_devd(rig: Rig) -> None:
    """Have another devd run, and wait until it has registered."""
    before = len(rig.kubelet.resources[USB].lists)
    await rig.end_daemon()
    rig.start_daemon()
    await rig.kubelet.wait_for(lambda: len(rig.kubelet.resources[USB].lists) > before, 60.0, "the next devd's list")


def test_twin_that_is_unplugged_changes_nobody_else() -> None:
    """The other keeps its id and its pod, for the next scout and the next devd as well; back, it has its own again."""

    async def play(rig: Rig, world: Path) -> None:
        for name in (ONE, TWO):
            await rig.kubelet.allocate(USB, ids=[name])
        usb_tree.unplug(world, "1-1")
        await gone(rig, ONE)
        await listed(rig, {ONE: "Unhealthy", TWO: "Healthy"})
        await next_scout(rig)
        await listed(rig, {ONE: "Unhealthy", TWO: "Healthy"})
        assert [word for _at_s, word in rig.turns(USB, TWO)] == ["Healthy"]
        with pytest.raises(AdmissionError):
            await rig.kubelet.allocate(USB)
        await next_devd(rig)
        await listed(rig, {TWO: "Healthy"})
        usb_tree.replug(world, "1-1")
        await listed(rig, {ONE: "Healthy", TWO: "Healthy"})
        assert ever_offered(rig) == {ONE, TWO}

    scenario(twins, play, healthy=2)


def test_twin_that_appears_changes_not_the_first() -> None:
    """An allocated single keeps its id, its health and its pod when its twin appears, and at its port also later."""

    def single(world: Path) -> None:
        usb_tree.tty(world, usb_tree.device(world, "1-1", serial="TW"))
        grow(world, {"dev/serial/by-id/usb-TW": "-> ../../ttyUSB0", "dev/serial/by-path/pci-1": "-> ../../ttyUSB0"})

    async def play(rig: Rig, world: Path) -> None:
        held = await rig.kubelet.allocate(USB, ids=[NAME])
        assert [one.host_path for one in held.response.devices] == ["/dev/serial/by-id/usb-TW"]
        usb_tree.tty(world, usb_tree.device(world, "1-2", serial="TW", number=6), "ttyUSB1", 1)
        # As udev does: the last one has the link that both would have.
        grow(world, {"dev/serial/by-id/usb-TW": "-> ../../ttyUSB1", "dev/serial/by-path/pci-2": "-> ../../ttyUSB1"})
        await listed(rig, {NAME: "Healthy", TWO: "Healthy"})
        assert [word for _at_s, word in rig.turns(USB, NAME)] == ["Healthy"]
        await until(lambda: rig.device(NAME)["paths"] == ["/dev/serial/by-path/pci-1"], "its own path")
        await next_devd(rig)
        await listed(rig, {NAME: "Healthy", TWO: "Healthy"})
        usb_tree.unplug(world, "1-1")
        await gone(rig, NAME)
        await listed(rig, {NAME: "Unhealthy", TWO: "Healthy"})
        await next_devd(rig)
        await listed(rig, {TWO: "Healthy"})
        usb_tree.replug(world, "1-1")
        await listed(rig, {NAME: "Healthy", TWO: "Healthy"})
        assert ever_offered(rig) == {NAME, TWO}
        rig.kubelet.free(held.pod)
        again = await rig.kubelet.allocate(USB, ids=[NAME])
        assert [one.host_path for one in again.response.devices] == ["/dev/serial/by-path/pci-1"]

    scenario(single, play, usb_config(TTYS))


def test_node_of_a_listed_device_is_not_offered_under_another_id() -> None:
    """A device that comes to a gone one's number waits, with the reason, until that one has left the list."""
    before, after = (f"0403:6001-0000:00-14.0-usb2-{port}" for port in (1, 2))

    def nameless(world: Path) -> None:
        usb_tree.tty(world, usb_tree.device(world, "1-1", serial=None))

    async def play(rig: Rig, world: Path) -> None:
        await rig.kubelet.allocate(USB, ids=[before])
        usb_tree.unplug(world, "1-1")
        usb_tree.tty(world, usb_tree.device(world, "1-2", serial=None, number=6))
        await listed(rig, {before: "Unhealthy"})
        same = f"/dev/ttyUSB0 is the same device as {before} of {USB}"
        await until(lambda: f"{USB}: {same}, which is leaving the list" in log_of(rig), "the conflict in its resource")
        await until(lambda: f"{MORE}: {same}" in log_of(rig), "the conflict in the other")
        await listed(rig, {after: "Healthy"})
        lists = [set(one.devices) for one in rig.kubelet.resources[USB].lists]
        assert {before} in lists
        assert {before, after} not in lists
        assert health(rig, MORE) == {}
        await until(lambda: scout(rig, USB)["problems"] == [], "the end of the conflict")
        [left] = scout(rig, MORE)["problems"]
        assert left.startswith(f"device id '{after}' is offered by {USB} already: narrow the match of {MORE}")

    more = usb_config('match: {port: "*-2", nodes: "ttyUSB*"}', name=MORE)
    scenario(nameless, play, usb_config(TTYS, linger="3s"), more)


def log_of(rig: Rig) -> str:
    """Return all that devd logged: a conflict that is over stands there alone."""
    return (rig.root / "devd.log").read_text(encoding="utf-8", errors="replace")
