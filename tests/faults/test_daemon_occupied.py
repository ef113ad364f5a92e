"""Resets and who has what: a share that is in use and a device of another pod are never reset beneath a container."""

import asyncio
import socket
from contextlib import closing
from pathlib import Path

import pytest

from devd.daemon.demo.kubelet_rules import ContainerStartError
from devd.daemon.demo.rig import Rig
from tests.faults.test_daemon_driver import LAMPS, lamp_config, put_lamp
from tests.faults.test_daemon_driver import scenario as lamps
from tests.faults.test_daemon_inject import devd as command
from tests.faults.worlds import SIM, scenario, sim, until

SHARED = "    replicas: 4\n    reset: {kind: sim, takes: 200ms, timeout: 5s}\n"
CUT = "    reset: {kind: driver, method: cut, timeout: 5s}\n"


async def devd(rig: Rig, *words: str) -> tuple[int, str]:
    """Run a command beside the stub kubelet; return its exit code and what it said."""
    done = await asyncio.to_thread(command, rig, *words)
    return done.returncode, done.stdout + done.stderr


def start(rig: Rig, pod: str) -> "asyncio.Future[str]":
    """Admit a pod with one share and start its container."""

    async def run() -> str:
        held = await rig.kubelet.allocate(SIM, pod=pod)
        await rig.kubelet.pre_start(SIM, held.ids)
        return held.ids[0]

    return asyncio.ensure_future(run())


async def spared(rig: Rig, count: int) -> list[str]:
    """Return why resets were left out, once there are so many."""
    return [one["detail"] for one in await rig.journal_has("one", "reset-spared", count)]


def test_share_of_a_device_that_runs_is_not_reset() -> None:
    """The first container's start resets the device, a second's does not; once both are gone a third's does again."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 4)
        await start(rig, "first")
        await rig.journal_has("one", "reset-done", 1)
        await start(rig, "second")
        [why] = await spared(rig, 1)
        assert why == "shared with pod default/first (main): it is probed and not reset"
        rig.kubelet.free("first")
        rig.kubelet.free("second")
        await start(rig, "third")
        await rig.journal_has("one", "reset-done", 3)
        assert len(await spared(rig, 1)) == 1

    scenario(sim("[{name: one}]", more=SHARED), play)


def test_containers_that_start_together_do_not_wait_for_each_other() -> None:
    """Four that have their shares and start at once: one reset, and none of them fails."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 4)
        assert len(set(await asyncio.gather(*(start(rig, f"pod-{number}") for number in range(4))))) == 4
        # Journals are written in order, a little later: what stands before this line is all there was.
        rig.order("cordon", "one")
        await rig.journal_has("one", "cordon", 1)
        assert len(rig.journal("one", "reset")) - len(rig.journal("one", "reset-spared")) == 1

    scenario(sim("[{name: one}]", more=SHARED), play)


def test_container_that_began_before_devd_keeps_its_device() -> None:
    """A devd that starts anew knows nothing of earlier starts: whoever has a share is taken to run."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 4)
        await start(rig, "old")
        await rig.end_daemon()
        rig.start_daemon()
        await rig.healthy(SIM, 4)
        await start(rig, "new")
        assert "shared with pod default/old (main)" in (await spared(rig, 1))[0]

    scenario(sim("[{name: one}]", more=SHARED), play)


def test_without_an_answer_a_shared_device_is_left_as_it_is() -> None:
    """Who cannot be known to be gone may be there: the reason names the socket, and what is missing."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 4)
        rig.pod_resources.unlink()
        await start(rig, "first")
        assert "mount the kubelet's pod-resources directory" in (await spared(rig, 1))[0]
        with closing(socket.socket(socket.AF_UNIX)) as deaf:
            deaf.bind(str(rig.pod_resources))
            deaf.listen(8)
            await start(rig, "second")
            assert f"{rig.pod_resources}: PodResources did not answer within 2 s" in (await spared(rig, 2))[1]
        await start(rig, "third")
        assert f"{rig.pod_resources}: PodResources failed: UNAVAILABLE" in (await spared(rig, 3))[2]

    scenario(sim("[{name: one}]", more=SHARED), play)


def test_reset_that_takes_another_pods_device_along_is_refused() -> None:
    """The lamp of another pod is in the way while that pod has it, whether it has it open or not."""

    async def play(rig: Rig, lamp: Path) -> None:
        (lamp / "address").write_text("0000:01:00.0\n")
        (lamp / "circuit").write_text("0000:01:00.0 0000:01:00.1\n")
        beside = put_lamp(lamp.parent, "two")
        (beside / "address").write_text("0000:01:00.1\n")
        (beside / "circuit").write_text("0000:01:00.0 0000:01:00.1\n")
        await rig.healthy(LAMPS, 2)
        # The kubelet is told nothing of properties, and an address may be read before it is written.
        both = {"0000:01:00.0", "0000:01:00.1"}
        await until(lambda: {one["properties"].get("address") for one in rig.status()["devices"]} == both, "addresses")
        held = await rig.kubelet.allocate(LAMPS, ids=["one"], pod="one")
        other = await rig.kubelet.allocate(LAMPS, ids=["two"], pod="two")
        # Both were admitted and none has begun: the first that asks is not held up by the other.
        await rig.kubelet.pre_start(LAMPS, other.ids)
        with pytest.raises(ContainerStartError) as caught:
            await rig.kubelet.pre_start(LAMPS, held.ids)
        words = "refused, 0000:01:00.0, 0000:01:00.1 would go out: pod default/two (main) has two allocated"
        assert words in str(caught.value)
        rig.kubelet.free("two")
        assert await rig.kubelet.pre_start(LAMPS, held.ids) is not None

    lamps(lambda room: lamp_config(room, CUT), play)


def test_operator_resets_what_nobody_has() -> None:
    """`devd reset` waits for the reset and tells how it went; a pod that has the device is in the way, by name."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 2)
        code, output = await devd(rig, "reset", "one")
        assert (code, output) == (0, "one: reset, and well\n")
        await rig.journal_has("one", "reset-done", 1)
        held = await rig.kubelet.allocate(SIM, ids=["one"], pod="mine")
        await rig.kubelet.pre_start(SIM, held.ids)
        code, output = await devd(rig, "reset", "one")
        assert code == 1
        assert "one: pod default/mine (main) has it: wait until that has ended, or order it with --force" in output
        assert (await devd(rig, "reset", "one", "--force"))[0] == 0
        await rig.journal_has("one", "reset-done", 3)
        rig.kubelet.free("mine")
        rig.pod_resources.unlink()
        code, output = await devd(rig, "reset", "one")
        assert code == 1
        assert "it is not known who has it" in output
        code, output = await devd(rig, "reset", "none", "--force")
        assert code == 1
        assert "no device 'none'" in output

    scenario(sim("[{name: one}, {name: two}]", more="    reset: {kind: sim}\n"), play)


def test_operator_is_told_why_a_reset_failed() -> None:
    """What the reset itself says is the answer, and no kubelet is spoken of."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 1)
        code, output = await devd(rig, "reset", "one")
        assert code == 1
        assert output.startswith("devd: one: ")
        assert "reset" in output
        assert "kubelet" not in output

    scenario(sim("[{name: one}]", more="    reset: {kind: sim, result: fail}\n"), play)


def test_operator_resets_a_device_that_is_cordoned() -> None:
    """Maintenance is cordon, reset, uncordon: a cordon does not hold a reset up, and outlives it."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 1)
        rig.order("cordon", "one")
        await rig.unhealthy(SIM)
        assert await devd(rig, "reset", "one") == (0, "one: reset, and well\n")
        assert rig.device("one")["reason"].startswith("cordoned")

    scenario(sim("[{name: one}]", more="    reset: {kind: sim}\n"), play)


def test_reset_that_was_not_configured_is_refused() -> None:
    """A resource without a reset says so, whoever asks."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 1)
        code, output = await devd(rig, "reset", "one")
        assert code == 1
        assert f"one: {SIM} has no reset in its configuration" in output

    scenario(sim("[{name: one}]"), play)
