"""Devices that come, go and change, and what containers get of them, from a real daemon."""

import os
from pathlib import Path

import pytest

from devd.daemon.demo.kubelet import AdmissionError, ContainerStartError
from devd.daemon.demo.rig import Rig
from tests.faults.worlds import FILES, GRACE_S, SIM, alive, files, scenario, sim, until

RESET = "    reset: {kind: sim, takes: 1s, timeout: 5s}\n"


def test_devices_are_offered_only_once_they_are_known_to_be_well() -> None:
    """The first list the kubelet gets has every device, and each already Healthy."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 3)
        first = rig.kubelet.resources[SIM].lists[0]
        assert {name: one.health for name, one in first.devices.items()} == {
            "a": "Healthy",
            "b": "Healthy",
            "c": "Healthy",
        }

    scenario(sim("[{name: a}, {name: b}, {name: c}]"), play)


def test_file_that_appears_and_vanishes() -> None:
    """A new device is in the list soon; one that goes turns Unhealthy with the reason, then leaves the list."""

    async def play(rig: Rig) -> None:
        devices = rig.root / "dev"
        devices.mkdir()
        (devices / "a").touch()
        rig.config.write_text(files(devices / "*"), encoding="utf-8")
        rig.start_daemon()
        await rig.healthy(FILES, 1)
        (devices / "b").touch()
        await rig.healthy(FILES, 2, GRACE_S)
        name = next(one["id"] for one in rig.status()["devices"] if one["paths"] == [str(devices / "b")])
        (devices / "b").unlink()
        await rig.unhealthy(FILES, 1, GRACE_S)
        await until(lambda: "gone" in rig.device(name)["reason"], "the reason")
        await rig.kubelet.wait_for(lambda: rig.kubelet.capacity(FILES) == 1, GRACE_S, "its leaving")
        assert rig.kubelet.allocatable(FILES) == 1

    async def empty_first(rig: Rig) -> None:
        # The pattern needs the rig's own directory: the first daemon knows nothing yet and is replaced.
        await rig.end_daemon()
        await play(rig)

    scenario(files("/nonexistent/none*"), empty_first)


def test_node_replaced_by_another_is_unhealthy_until_probed() -> None:
    """When another file takes a device's path, its worker is replaced and nothing of the old verdict holds."""

    async def play(rig: Rig) -> None:
        await rig.end_daemon()
        device = rig.root / "dev-a"
        device.touch()
        rig.config.write_text(files(device), encoding="utf-8")
        rig.start_daemon()
        await rig.healthy(FILES, 1)
        pid = rig.status()["devices"][0]["pid"]
        name = rig.status()["devices"][0]["id"]
        other = rig.root / "other"
        other.touch()
        other.replace(device)
        await until(lambda: rig.device(name)["pid"] not in (None, pid), "a new worker")
        await until(lambda: rig.device(name)["health"] == "Healthy", "health of the new one")
        assert not alive(pid)
        await rig.kubelet.wait_for(lambda: len(rig.turns(FILES, name)) >= 2, GRACE_S, "its fall at the kubelet")
        assert [health for _at_s, health in rig.turns(FILES, name)][:2] == ["Healthy", "Unhealthy"]

    scenario(files("/nonexistent/none*"), play)


def test_one_device_in_two_resources_is_offered_once() -> None:
    """A node that two resources match is offered by the first alone; the status names both."""
    second = """
  - name: test.devd.io/again
    driver: node
    match: {path: /dev/null}
    probe: {kind: exists, period: 200ms, timeout: 500ms}
"""

    async def play(rig: Rig) -> None:
        await rig.healthy(FILES, 1)
        await rig.kubelet.wait_for(lambda: "test.devd.io/again" in rig.kubelet.resources, GRACE_S, "the second one")
        again = next(one for one in rig.status()["resources"] if one["name"] == "test.devd.io/again")
        assert again["devices"] == 0
        assert FILES in again["discovery"]["problems"][0]
        assert rig.kubelet.capacity("test.devd.io/again") == 0

    scenario(files("/dev/null", more=second), play)


def test_container_gets_node_and_environment() -> None:
    """Allocate gives the node with the configured rights and the environment with its templates filled in."""
    config = (
        files("/dev/null").replace(", type: any", "") + '    access: rw\n    env: {NULLS: "{paths}", WHICH: "{ids}"}\n'
    )

    async def play(rig: Rig) -> None:
        await rig.healthy(FILES, 1)
        given = await rig.kubelet.allocate(FILES, 1)
        node = given.response.devices[0]
        assert (node.host_path, node.container_path, node.permissions) == ("/dev/null", "/dev/null", "rw")
        assert {"NULLS": "/dev/null", "WHICH": "null"}.items() <= dict(given.response.envs).items()

    scenario(config, play)


def test_replicas_share_a_device_and_its_fate() -> None:
    """Each replica is an id of its own; all turn at once; a container with two replicas gets the node once."""
    script = "[{for: 3s, do: pass}, {for: 30s, do: fail, reason: dead}]"

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 3)
        assert set(rig.kubelet.resources[SIM].devices) == {"card::0", "card::1", "card::2"}
        given = await rig.kubelet.allocate(SIM, 2)
        assert len(given.ids) == 2
        await rig.unhealthy(SIM, 3, GRACE_S)
        last = rig.kubelet.resources[SIM].lists[-1]
        assert {one.health for one in last.devices.values()} == {"Unhealthy"}
        assert len({at_s for at_s, health in rig.turns(SIM, "card::0") if health == "Unhealthy"}) == 1

    scenario(sim(f"[{{name: card, script: {script}}}]", more="    replicas: 3\n"), play)


def test_unhealthy_device_is_refused_with_its_reason() -> None:
    """An Allocate that the kubelet had already decided on fails with the device's own reason."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM)
        rig.inject("sick", "fail", reason="fan stopped")
        await rig.unhealthy(SIM)
        with pytest.raises(AdmissionError, match="fan stopped"):
            await rig.kubelet.allocate(SIM, ids=["sick"])

    scenario(sim("[{name: sick}]"), play)


def test_pre_start_resets_once_for_two_containers() -> None:
    """Two PreStarts at once for replicas of one device share one reset, and both succeed."""

    async def play(rig: Rig) -> None:
        import asyncio  # noqa: PLC0415 - for this test alone

        await rig.healthy(SIM, 2)
        both = [rig.kubelet.pre_start(SIM, [one]) for one in ("card::0", "card::1")]
        await asyncio.gather(*both)
        await rig.journal_has("card", "reset-done", 1)
        assert len(rig.journal("card", "reset")) == 1
        assert len(rig.journal("card", "reset-done")) == 1
        assert rig.device("card")["health"] == "Healthy"

    scenario(sim("[{name: card}]", more="    replicas: 2\n" + RESET), play)


@pytest.mark.parametrize(
    ("result", "words"), [("fail", "reset"), ("hang", "has not returned"), ("crash", "ended during the reset")]
)
def test_pre_start_fails_with_device_and_cause(result: str, words: str) -> None:
    """A reset that fails, hangs or kills its worker fails PreStart with the device and the cause, and heals after."""
    more = f"    reset: {{kind: sim, takes: 50ms, result: {result}, timeout: 1s}}\n"

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM)
        with pytest.raises(ContainerStartError, match=rf"card: .*{words}.*kubelet tries") as caught:
            await rig.kubelet.pre_start(SIM, ["card"])
        assert "back-off" in str(caught.value)
        await until(lambda: rig.device("card")["health"] == "Healthy", "health after it")

    scenario(sim("[{name: card}]", more=more), play)


def test_watcher_mode_registers_and_survives_the_kubelet() -> None:
    """With registration by the plugin watcher the devices are there, and back after a kubelet restart."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 1)
        assert [path.name for path in rig.plugins.iterdir() if path.name.startswith("devd")] == []
        await rig.kubelet.restart()
        await rig.healthy(SIM, 1, GRACE_S)
        assert os.listdir(rig.registry) != []  # noqa: PTH208 - the socket is all that may be there

    scenario(sim("[{name: card}]", kubelet="registration: watcher"), play)


def test_device_whose_worker_is_replaced_again_and_again_is_never_taken_for_gone(tmp_path: Path) -> None:
    """The scan passes a device by while its worker is being ended; a list that arrives late is no word about it."""
    (tmp_path / "port1").touch()

    async def play(rig: Rig) -> None:
        await rig.healthy(FILES)
        [device] = [one["id"] for one in rig.status()["devices"]]
        for number in range(1, 41):
            rig.order("restart", device)
            await until(lambda number=number: rig.device(device)["restarts"] >= number, "another worker")  # type: ignore[misc]  # mypy infers no default
        await until(lambda: rig.device(device)["phase"] == "serving", "the last worker's report")
        assert rig.journal(device, "vanished") == []

    scenario(files(tmp_path / "port*"), play)
