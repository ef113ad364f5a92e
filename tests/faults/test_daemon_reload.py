"""A configuration that changes under a running devd: taken if it is right, refused in whole if it is not."""

import os
import signal
from pathlib import Path

import pytest

from devd.daemon.demo.rig import Rig
from tests.faults.worlds import SIM, scenario, sim, until

OTHER = "test.devd.io/other"
MORE = f"""
  - name: {OTHER}
    driver: sim
    match: {{devices: [{{name: x}}, {{name: y}}]}}
    probe: {{kind: sim, period: 200ms, timeout: 500ms}}
"""
TWO = "[{name: one}, {name: two}]"


def pids(rig: Rig) -> dict[str, int]:
    """Return the workers' pids by device, without those that are being replaced."""
    return {one["id"]: one["pid"] for one in rig.status()["devices"] if one["pid"]}


def write(rig: Rig, text: str) -> None:
    """Replace the file as a careful writer does: whole."""
    fresh = rig.config.with_suffix(".new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(rig.config)


def taken(rig: Rig, count: int) -> bool:
    """Return whether so many new configurations were taken."""
    return bool(rig.status()["daemon"]["reloads"] == count)


def wants_pre_start(rig: Rig) -> bool:
    """Return whether the kubelet was told to call PreStartContainer."""
    options = rig.kubelet.resources[SIM].options
    return options is not None and options.pre_start_required


def test_wrong_file_changes_nothing_and_is_told_of() -> None:
    """A file with errors leaves all as it is, shows in status and log with the place; a right one clears it."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 2)
        before = pids(rig)
        write(rig, sim(TWO, more="    replicas: many\n"))
        await until(lambda: rig.status()["daemon"]["config_error"] is not None, "the error")
        assert "resources[0].replicas" in rig.status()["daemon"]["config_error"]
        assert "the configuration that runs stays" in rig.log_text()
        assert pids(rig) == before
        assert rig.kubelet.allocatable(SIM) == 2
        write(rig, sim(TWO))
        await until(lambda: rig.status()["daemon"]["config_error"] is None, "its end")
        assert taken(rig, 0), "what came back is what runs: nothing was to be taken"
        assert pids(rig) == before

    scenario(sim(TWO), play)


def test_file_that_is_gone_or_cannot_be_taken_leaves_all_as_it_is() -> None:
    """A removed file and a change that needs a restart are refused with the reason."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 2)
        before = pids(rig)
        rig.config.unlink()
        await until(lambda: "ENOENT" in str(rig.status()["daemon"]["config_error"]), "the error")
        write(rig, sim(TWO, kubelet="registration: watcher"))
        await until(lambda: "restart it" in str(rig.status()["daemon"]["config_error"]), "the other error")
        assert "kubelet.registration" in rig.status()["daemon"]["config_error"]
        assert pids(rig) == before

    scenario(sim(TWO), play)


def test_resource_comes_and_goes_beside_others() -> None:
    """A new resource is served and a removed one withdrawn; the workers of the others are the same processes."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 2)
        before = pids(rig)
        write(rig, sim(TWO) + MORE)
        await rig.healthy(OTHER, 2)
        assert {name: pid for name, pid in pids(rig).items() if name in before} == before
        others = [pid for name, pid in pids(rig).items() if name not in before]
        write(rig, sim(TWO))
        await until(lambda: len(pids(rig)) == 2, "the withdrawal")
        await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in others), "their workers' end")
        assert pids(rig) == before
        assert [one["name"] for one in rig.status()["resources"]] == [SIM]
        await until(lambda: rig.kubelet.allocatable(OTHER) == 0, "the kubelet knows")
        write(rig, sim(TWO) + MORE)
        await rig.healthy(OTHER, 2)
        assert rig.turns(SIM, "one")[-1][1] == "Healthy"
        assert len(rig.turns(SIM, "one")) == 1

    scenario(sim(TWO), play)


def test_selector_lets_go_of_some_devices_and_keeps_the_rest() -> None:
    """A narrower or wider match touches only the devices it takes away or adds."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 2)
        one = pids(rig)["one"]
        write(rig, sim("[{name: one}, {name: three}]"))
        await until(lambda: set(pids(rig)) == {"one", "three"}, "the new selection")
        assert pids(rig)["one"] == one
        assert len(rig.turns(SIM, "one")) == 1

    scenario(sim(TWO), play)


def test_new_probe_replaces_workers_without_a_word_at_the_kubelet() -> None:
    """Changed probe numbers are lived by at once; each worker is replaced within its lease."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 2)
        before = pids(rig)
        write(rig, sim(TWO, period="300ms", timeout="700ms"))
        await until(lambda: taken(rig, 1), "the new configuration")
        await until(lambda: len(pids(rig)) == 2 and not set(pids(rig).values()) & set(before.values()), "new workers")
        await until(lambda: all(one["phase"] == "serving" for one in rig.status()["devices"]), "all serving")
        assert [len(rig.turns(SIM, name)) for name in before] == [1, 1]
        assert [one["restarts"] for one in rig.status()["devices"]] == [1, 1]

    scenario(sim(TWO, period="2s", timeout="3s"), play)


def test_what_containers_get_changes_without_touching_a_worker() -> None:
    """Another env, more replicas: in force from the next answer on, with the same workers."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 2)
        before = pids(rig)
        write(rig, sim(TWO, more='    replicas: 2\n    env: {WHICH: "{ids}"}\n'))
        await rig.healthy(SIM, 4)
        assert pids(rig) == before
        allocation = await rig.kubelet.allocate(SIM)
        assert allocation.response.envs["WHICH"] in {"one", "two"}

    scenario(sim(TWO), play)


def test_reset_that_is_added_is_announced() -> None:
    """A reset added while running makes the kubelet call PreStartContainer from then on."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 2)
        write(rig, sim(TWO, more="    reset: {kind: sim, timeout: 2s}\n"))
        await until(lambda: taken(rig, 1), "the new configuration")
        await until(lambda: wants_pre_start(rig), "the announcement")
        await rig.healthy(SIM, 2)
        assert len(rig.journal("one", "reset")) == 0

    scenario(sim(TWO), play)


def test_script_of_one_device_concerns_that_device_alone() -> None:
    """What is changed of one device among several replaces that device's worker alone."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 2)
        before = pids(rig)
        write(rig, sim("[{name: one, script: [{do: fail, reason: 'as told'}]}, {name: two}]"))
        await rig.unhealthy(SIM, 1)
        await until(lambda: "as told" in rig.device("one")["reason"], "the new script's reason")
        assert pids(rig)["two"] == before["two"]

    scenario(sim(TWO), play)


@pytest.mark.parametrize("way", ["signal", "order"])
def test_reload_can_be_asked_for(way: str) -> None:
    """SIGHUP and 'devd reload' have the file read again, and harm nothing when it has not changed."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 2)
        before = pids(rig)
        if way == "signal":
            os.kill(rig.pid, signal.SIGHUP)
        else:
            rig.order("reload", "")
        await until(lambda: "configuration taken: nothing that matters" in rig.log_text(), "its word")
        assert pids(rig) == before
        assert taken(rig, 0)

    scenario(sim(TWO), play)


def test_swapped_configmap_is_one_change() -> None:
    """The kubelet's swap of a ConfigMap's directory link is seen, and counts once."""

    async def play(rig: Rig) -> None:
        await rig.end_daemon()
        volume = rig.root / "volume"
        for number, text in (("1", sim(TWO)), ("2", sim(TWO) + MORE)):
            (volume / f"..{number}").mkdir(parents=True)
            (volume / f"..{number}" / "devd.yaml").write_text(text, encoding="utf-8")
        (volume / "..data").symlink_to("..1")
        (volume / "devd.yaml").symlink_to("..data/devd.yaml")
        rig.config = volume / "devd.yaml"
        rig.start_daemon()
        await rig.healthy(SIM, 2)
        (volume / "..data_tmp").symlink_to("..2")
        (volume / "..data_tmp").replace(volume / "..data")
        (volume / "..1" / "devd.yaml").unlink()
        (volume / "..1").rmdir()
        await rig.healthy(OTHER, 2)
        assert taken(rig, 1)

    scenario(sim(TWO), play)
