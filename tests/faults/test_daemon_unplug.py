"""A device that goes, or is another one, while something is being done with it."""

import asyncio
import os

import pytest

from devd.daemon.demo.kubelet_rules import AdmissionError, ContainerStartError
from devd.daemon.demo.rig import Rig
from tests.faults.worlds import FILES, GRACE_S, alive, files, scenario, until

SLOW = "    reset: {kind: exec, command: [/bin/sleep, '30'], timeout: 20s}\n"


async def begin(rig: Rig, **more: str) -> str:
    """Start devd anew on one file below the rig, and return the device's id."""
    await rig.end_daemon()
    device = rig.root / "dev-a"
    device.touch()
    rig.config.write_text(files(device, **more), encoding="utf-8")
    rig.start_daemon()
    await rig.healthy(FILES, 1)
    return str(rig.status()["devices"][0]["id"])


def test_unplugged_during_its_reset() -> None:
    """The container's start fails at once with the device and what happened; the reset's worker is gone."""

    async def play(rig: Rig) -> None:
        name = await begin(rig, more=SLOW)
        held = await rig.kubelet.allocate(FILES)
        call = asyncio.create_task(rig.kubelet.pre_start(FILES, held.ids))
        await until(lambda: rig.device(name)["phase"] == "resetting", "the reset")
        pid = rig.device(name)["pid"]
        (rig.root / "dev-a").unlink()
        with pytest.raises(ContainerStartError, match="is gone: unplugged"):
            await call
        await until(lambda: not alive(pid), "the worker's end")
        await until(lambda: rig.status()["devices"] == [], "its leaving the list")
        await until(lambda: rig.kubelet.capacity(FILES) == 0, "the kubelet knows")

    scenario(files("/nonexistent/none*"), play)


def test_unplugged_between_choice_and_allocate() -> None:
    """An Allocate for a device that is gone fails with that as the reason, as long as it is listed and after."""

    async def play(rig: Rig) -> None:
        name = await begin(rig)
        (rig.root / "dev-a").unlink()
        await rig.unhealthy(FILES, 1)
        with pytest.raises(AdmissionError, match=r"is Unhealthy: .* is gone"):
            await rig.kubelet.allocate(FILES, ids=[name])
        await until(lambda: rig.status()["devices"] == [], "its leaving the list")
        with pytest.raises(AdmissionError):
            await rig.kubelet.allocate(FILES, ids=[name])

    scenario(files("/nonexistent/none*"), play)


def test_path_that_becomes_a_link_to_elsewhere_is_another_device() -> None:
    """A link in the device's place leads to another node: the old verdict is worth nothing; both are named."""

    async def play(rig: Rig) -> None:
        name = await begin(rig)
        pid = rig.device(name)["pid"]
        link = rig.root / "link"
        link.symlink_to("/dev/null")
        os.replace(link, rig.root / "dev-a")  # noqa: PTH105 - the link itself is moved
        records = await rig.journal_has(name, "replaced", 1)
        assert "another device stands in its place" in records[0]["detail"]
        assert "char 1:3" in records[0]["detail"]
        await until(lambda: rig.device(name)["pid"] not in (None, pid), "a worker of its own")
        assert not alive(pid)
        await rig.kubelet.wait_for(lambda: len(rig.turns(FILES, name)) >= 2, GRACE_S, "its fall at the kubelet")
        assert [word for _at_s, word in rig.turns(FILES, name)][:2] == ["Healthy", "Unhealthy"]

    scenario(files("/nonexistent/none*"), play)
