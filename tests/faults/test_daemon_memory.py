"""What of a device outlives devd: cordons, failures, flaps, fences; and what becomes of a damaged memory."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from devd.daemon import memory
from devd.daemon.demo.rig import Rig
from tests.faults.worlds import FILES, GRACE_S, SIM, alive, answers, files, scenario, sim, until
from tests.support.hungfuse import HungFile

TWO = "[{name: one}, {name: two}]"
HUNG = "{kind: open, period: 200ms, timeout: 500ms}"


@pytest.fixture
def hung(tmp_path: Path) -> Iterator[HungFile]:
    """Mount a file whose open never returns."""
    if os.geteuid() != 0:
        pytest.skip("mounts a filesystem")
    try:
        made = HungFile(tmp_path / "mnt", "open")
    except PermissionError as error:
        pytest.skip(f"FUSE is not to be had here: {error}")
    with made:
        yield made


async def begun(rig: Rig, devices: int) -> None:
    """Wait until devd answers and has listed its devices."""
    await until(lambda: answers(rig) and len(rig.status()["devices"]) == devices, "the devices")


async def restarted(rig: Rig, number: int = signal.SIGTERM) -> None:
    """End devd and start it again, when what it has to remember is on the disk."""
    await until(lambda: rig.status()["daemon"]["counters"]["state"]["waiting"] == 0, "the disk has taken all")
    await rig.end_daemon(number)
    rig.start_daemon()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_cordon_outlives_a_restart(number: int) -> None:
    """A cordoned device is well and not offered, says who wants it so, also after a restart; uncordon gives it back."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 2)
        rig.order("cordon", "one", reason="fan is broken")
        await rig.unhealthy(SIM, 1)
        assert "cordoned: fan is broken" in rig.device("one")["reason"]
        assert rig.device("one")["last_probe"]["verdict"] == "pass"
        await restarted(rig, number)
        await begun(rig, 2)
        await until(lambda: rig.device("one")["last_probe"] is not None, "a probe")
        await until(lambda: rig.device("two")["health"] == "Healthy", "the other")
        assert rig.device("one")["health"] == "Unhealthy"
        assert rig.device("one")["cordon"] == "fan is broken"
        rig.order("uncordon", "one")
        await rig.healthy(SIM, 2)
        await restarted(rig)
        await rig.healthy(SIM, 2)

    scenario(sim(TWO), play)


def test_cordon_touches_no_worker_and_no_container_that_runs() -> None:
    """The worker goes on probing; a container that holds the device is still made ready, a new one is refused."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 1)
        pid = rig.device("one")["pid"]
        held = await rig.kubelet.allocate(SIM)
        rig.order("cordon", "one")
        await rig.unhealthy(SIM, 1)
        assert await rig.kubelet.pre_start(SIM, held.ids) is not None
        assert rig.device("one")["pid"] == pid

    scenario(sim("[{name: one}]", more="    reset: {kind: sim, timeout: 2s}\n"), play)


def test_device_that_failed_is_not_tried_at_once_by_the_next_daemon() -> None:
    """FAILED outlives a restart with its reason; an operator's restart clears it."""
    more = "    restart: {intensity: 1, backoff: 10ms, backoff_max: 10ms, retry: 1h}\n"

    async def play(rig: Rig) -> None:
        await until(lambda: rig.device("bad")["phase"] == "failed", "the failure")
        await restarted(rig)
        await begun(rig, 2)
        bad = rig.device("bad")
        assert bad["phase"] == "failed"
        assert "SIGSEGV" in bad["reason"]
        assert bad["pid"] is None
        assert bad["incarnation"] == 0
        await rig.healthy(SIM, 1)
        rig.order("restart", "bad")
        await until(lambda: rig.device("bad")["incarnation"] > 0, "another try")

    scenario(sim("[{name: well}, {name: bad, script: [{do: segv}]}]", more=more), play)


def test_flapping_device_is_held_back_across_a_restart() -> None:
    """After `count` falls the device has to be well for `hold`; a restart does not cut that short; then it is back."""
    script = ", ".join(["{for: 600ms, do: pass}, {for: 400ms, do: fail}"] * 2)
    more = "    flap: {count: 2, within: 60s, hold: 3s}\n"

    async def play(rig: Rig) -> None:
        await until(lambda: rig.device("one")["held"], "the hold")
        await until(lambda: rig.device("one")["reason"].startswith("held back: it fell 2 times"), "its reason")
        assert rig.device("one")["last_probe"]["verdict"] == "pass"
        rig.config.write_text(sim("[{name: one}]", more=more), encoding="utf-8")
        await restarted(rig)
        await begun(rig, 1)

        def held_still() -> bool:
            """Return whether it is held for both falls: by one look, the hold is short."""
            one = rig.device("one")
            return "held back" in one["reason"] and one["falls"] == 2

        await until(held_still, "the hold, still")
        await rig.healthy(SIM, 1)
        assert rig.device("one")["falls"] == 0

    scenario(sim(f"[{{name: one, script: [{script}, {{do: pass}}]}}]", more=more), play)


def _listed_unhealthy(rig: Rig) -> bool:
    """Return whether the stream that is open now lists one device, which is not healthy."""
    state = rig.kubelet.resources.get(FILES)
    return state is not None and state.stream_alive and len(state.devices) == 1 and not state.healthy


@pytest.mark.root
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_fence_outlives_the_daemon(hung: HungFile, number: int) -> None:
    """While a worker of the last devd hangs, the next starts none for its device, says so, and does once it is gone."""

    async def play(rig: Rig) -> None:
        await begun(rig, 1)
        name = rig.status()["devices"][0]["id"]
        await until(lambda: rig.device(name)["wedged"], "the fence")
        old = rig.device(name)["pid"]
        await restarted(rig, number)
        await begun(rig, 1)
        device = rig.device(name)
        assert alive(old)
        assert device["pid"] == old
        assert device["wedged"]
        assert device["incarnation"] == 0
        assert f"worker {old} of an earlier devd still holds the device" in device["reason"]
        # It is looked at after the status tells of it.
        await until(lambda: "uninterruptible sleep (D)" in rig.device(name)["reason"], "the look at it")
        await rig.kubelet.wait_for(lambda: _listed_unhealthy(rig), GRACE_S, "the kubelet knows of it by this devd")
        hung.release()
        await until(lambda: rig.device(name)["incarnation"] > 0, "a worker of its own")
        assert not alive(old)
        records = await rig.journal_has(name, "fenced", 1)
        assert f"worker {old}" in records[0]["detail"]

    scenario(files(hung.path, probe=HUNG), play)


@pytest.mark.root
def test_fence_is_kept_before_it_is_known_to_be_one(hung: HungFile) -> None:
    """A devd killed while its worker merely hangs leaves a fence as well: the next one starts no second process."""

    async def play(rig: Rig) -> None:
        await begun(rig, 1)
        await until(hung.hangs, "the call")
        name = rig.status()["devices"][0]["id"]
        old = rig.device(name)["pid"]
        await restarted(rig, signal.SIGKILL)
        await begun(rig, 1)
        assert alive(old)
        assert rig.device(name)["pid"] == old
        assert rig.device(name)["wedged"]

    scenario(files(hung.path, probe="{kind: open, period: 200ms, timeout: 60s}"), play)


@pytest.mark.parametrize(
    "damage",
    [b"", b"\0" * 200, b"{}", b"[" * 5000, b'{"version": 1, "cordon": null, "checksum": 7}\n', None],
    ids=["empty", "zeros", "bare", "deep", "checksum", "flipped"],
)
def test_damaged_memory_is_set_aside_and_never_means_all_is_well(damage: bytes | None) -> None:
    """A file that is not what devd wrote is set aside and shown; its device alone comes back cordoned, with the why."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 2)
        rig.order("cordon", "one", reason="fan is broken")
        await until(lambda: rig.status()["daemon"]["counters"]["state"]["waiting"] == 0, "the disk has taken it")
        await rig.end_daemon(signal.SIGKILL)
        file = rig.state_dir / "devices" / "one.json"
        data = file.read_bytes()
        file.write_bytes(data.replace(b"fan", b"van") if damage is None else damage)
        rig.start_daemon()
        await rig.healthy(SIM, 1)
        assert rig.device("two")["health"] == "Healthy"
        assert rig.device("one")["health"] == "Unhealthy"
        assert "cannot be read" in rig.device("one")["reason"]
        assert "devd uncordon one" in rig.device("one")["reason"]
        assert file.with_name("one.json.corrupt").exists()
        assert "cordoned until an operator has looked" in rig.log_text()
        rig.order("uncordon", "one")
        await rig.healthy(SIM, 2)
        await restarted(rig)
        await rig.healthy(SIM, 2)

    scenario(sim(TWO), play)


def test_reboot_forgets_what_a_reboot_cures() -> None:
    """Under another boot id failures and flaps are forgotten; a cordon is not."""
    more = "    restart: {intensity: 0, retry: 1h}\n"

    async def play(rig: Rig) -> None:
        await until(lambda: rig.device("bad")["phase"] == "failed", "the failure")
        rig.order("cordon", "well", reason="mine")
        await until(lambda: rig.status()["daemon"]["counters"]["state"]["waiting"] == 0, "the disk has taken it")
        await rig.end_daemon(signal.SIGKILL)
        _as_of_another_boot(rig.state_dir / "devices")
        rig.config.write_text(sim("[{name: well}, {name: bad}]", more=more), encoding="utf-8")
        rig.start_daemon()
        await rig.healthy(SIM, 1)
        assert rig.device("bad")["health"] == "Healthy"
        assert rig.device("well")["cordon"] == "mine"

    scenario(sim("[{name: well}, {name: bad, script: [{do: segv}]}]", more=more), play)


def _as_of_another_boot(directory: Path) -> None:
    place = memory.here()
    for file in directory.glob("*.json"):
        kept = memory.decode(file.read_bytes(), place)
        file.write_bytes(memory.encode(kept, memory.Here("another-boot", place.pid_namespace)))


def test_state_directory_has_one_daemon() -> None:
    """A second devd on the same state directory refuses to start, names the first and the remedy, and harms nothing."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 1)
        first = rig.daemon
        command = [str(rig.root / "run2") if word == str(rig.layout.root) else word for word in rig.command()]
        second = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
        _, stderr = await second.communicate()
        assert second.returncode == 1
        assert f"another devd (pid {rig.pid}) keeps its state in {rig.state_dir}" in stderr.decode()
        assert "--state-dir" in stderr.decode()
        assert rig.daemon is first
        assert rig.device("one")["health"] == "Healthy"

    scenario(sim("[{name: one}]"), play)
