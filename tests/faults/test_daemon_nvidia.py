"""Driver ``nvidia`` from discovery to the kubelet: the real daemon, sandbox and binding, a stand-in for the library."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from devd.daemon.demo.rig import Rig
from tests.faults.worlds import until
from tests.support import nvml_standin
from tests.unit.workers.drivers import nvidia_tree
from tests.unit.workers.drivers.nvidia_tree import HEALTHY, UUID

GPU = "test.devd.io/gpu"
PACKAGE = Path(__file__).parents[1] / "support" / "gpuworld"
OTHER_ADDRESS, OTHER_UUID = "0000:5e:00.0", "GPU-2b724e78-eef5-4163-d43c-e4da15d41176"
SIGNALS = "signals: {node: false}"
"""The fixture's nodes are no device nodes: only root could make them."""


class World:
    """The files that stand for /proc, /sys and the library."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(mode=0o755)
        nvidia_tree.gpu(root)
        (root / "dev").mkdir()
        (root / "lib").mkdir()
        self.library = nvml_standin.build(root / "lib")
        self.script = root / "script"
        self.script.write_text(HEALTHY)
        calls = root / "script.calls"
        calls.touch()
        calls.chmod(0o666)

    def say(self, *lines: str, without: str = "") -> None:
        """Have NVML answer so from now on, in one piece: it may read at any time."""
        fresh = self.root / "fresh"
        well = [one for one in HEALTHY.splitlines() if one.split()[0] != without]
        fresh.write_text("".join(f"{line}\n" for line in (*well, *lines)))
        fresh.rename(self.script)


def gpu_config(more: str = "", *, period: str = "300ms", probe: str = SIGNALS) -> str:
    """Return a configuration of one resource of GPUs."""
    return f"""resources:
  - name: {GPU}
    driver: gpuworld
    probe: {{kind: driver, period: {period}, timeout: 2s, {probe}}}
    discovery: {{period: 500ms, linger: 1s}}
{more}"""


def scenario(config: str, play: Callable[[Rig, World], Awaitable[None]], *, healthy: int = 1) -> None:
    """Run one scenario in a world with one GPU that is well."""

    async def run() -> None:
        rig = Rig(config)
        rig.root.chmod(0o755)
        world = World(rig.root / "world")
        rig.environment |= {
            "PYTHONPATH": str(PACKAGE),
            "GPU_WORLD": str(world.root),
            nvml_standin.VARIABLE: str(world.script),
        }
        async with rig:
            await rig.healthy(GPU, healthy)
            await play(rig, world)
            assert rig.kubelet.violations == []

    asyncio.run(run())


def test_gpu_is_known_by_its_uuid_and_told_whole() -> None:
    """Id, properties, NUMA node and the signals it has stand in the status; the library was loaded in the sandbox."""

    async def play(rig: Rig, world: World) -> None:
        assert world.library.exists()
        await until(lambda: bool(rig.device(UUID)["signals"]), "the signals")
        one = rig.device(UUID)
        assert (one["properties"]["model"], one["numa_node"]) == ("NVIDIA H200", 1)
        assert {"nvml", "gpu", "xid", "ecc", "row-remap", "recovery-action"} <= set(one["signals"]["checked"])
        assert "node" in one["signals"]["offered"]
        assert "node" not in one["signals"]["checked"]
        if os.geteuid() == 0:
            assert "seccomp" in one["sandbox"]["active"]
        held = await rig.kubelet.allocate(GPU)
        assert sorted(one.host_path for one in held.response.devices) == [
            "/dev/nvidia-uvm",
            "/dev/nvidia0",
            "/dev/nvidiactl",
        ]

    scenario(gpu_config(), play)


def test_xid_does_not_wait_for_the_next_probe() -> None:
    """An XID that needs a reset is at the kubelet by NVML's event, an hour before the next probe, and outlives it."""

    async def play(rig: Rig, world: World) -> None:
        await until(lambda: bool(rig.device(UUID)["signals"]), "the first probe")
        began_s = time.monotonic()
        world.say("event 8 95 4294967295 4294967295")
        await rig.unhealthy(GPU)
        assert time.monotonic() - began_s < 60
        assert "xid: " in rig.device(UUID)["reason"]
        assert "95" in rig.device(UUID)["reason"]
        world.say()
        rig.order("restart", UUID)
        await until(lambda: rig.device(UUID)["restarts"] == 1, "another worker")
        await until(lambda: rig.device(UUID)["last_probe"] is not None, "its probe")
        assert "95" in rig.device(UUID)["reason"]

    scenario(gpu_config(period="1h"), play)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("fail uuid 15", "gpu: "),
        ("action 2", "recovery-action: "),
        ("remap 0 0 1 0", "row-remap: "),
        ("ecc 7", "ecc: "),
    ],
)
def test_sick_gpu_is_told_by_its_signal(line: str, words: str) -> None:
    """A lost GPU, an action asked for, a remapped row, memory errors: each under the name of its signal."""

    async def play(rig: Rig, world: World) -> None:
        key = line.split(maxsplit=1)[0]
        world.say(line, without=key)
        await rig.unhealthy(GPU)
        assert rig.device(UUID)["reason"].startswith(words), rig.device(UUID)["reason"]
        assert "not the GPU's fault" not in rig.device(UUID)["reason"]
        world.say()
        if key != "ecc":  # counted until a reset or a boot
            await rig.healthy(GPU)

    scenario(gpu_config(), play)


def test_nvml_in_trouble_is_told_apart_from_a_sick_gpu() -> None:
    """A driver that was changed beneath the worker is no fault of the GPU's, says what to do, and ends by itself."""

    async def play(rig: Rig, world: World) -> None:
        world.say("fail init 18", "fail uuid 18")
        await rig.unhealthy(GPU)
        reason = rig.device(UUID)["reason"]
        assert "not the GPU's fault" in reason
        assert "only a new one loads the new library" in reason
        world.say()
        await rig.healthy(GPU)

    scenario(gpu_config(), play)


def test_library_that_is_missing_says_what_to_do() -> None:
    """Without libnvidia-ml the GPU is listed by /proc and Unhealthy with the remedy; with it, it is Healthy."""

    async def play(rig: Rig, world: World) -> None:
        away = world.library.with_name("away")
        world.library.rename(away)
        rig.order("restart", UUID)
        await rig.unhealthy(GPU)
        await until(lambda: "nvml: " in rig.device(UUID)["reason"], "NVML's reason")
        assert "mount the driver's libraries" in rig.device(UUID)["reason"]
        away.rename(world.library)
        rig.order("restart", UUID)
        await rig.healthy(GPU)

    scenario(gpu_config(), play)


def test_fault_reaches_every_replica() -> None:
    """All shares of a sick GPU turn Unhealthy, and none of its neighbour's."""

    async def play(rig: Rig, world: World) -> None:
        world.say("fail uuid 15")
        await rig.unhealthy(GPU, 4)
        devices = rig.kubelet.resources[GPU].lists[-1].devices
        assert {name for name, one in devices.items() if one.health != "Healthy"} == {f"{UUID}::{n}" for n in range(4)}

    scenario(gpu_config("    replicas: 4\n"), play, healthy=4)
