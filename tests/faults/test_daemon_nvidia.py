"""Driver ``nvidia`` from discovery to the kubelet: the real daemon, sandbox and binding, a stand-in for the library."""

import asyncio
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from devd.daemon import census
from devd.daemon.demo.kubelet_rules import ContainerStartError
from devd.daemon.demo.rig import Rig
from devd.ipc import environment
from tests.faults.worlds import until
from tests.support import nvml_standin
from tests.unit.workers.drivers import nvidia_tree
from tests.unit.workers.drivers.nvidia_tree import ADDRESS, HEALTHY, UUID

GPU = "test.devd.io/gpu"
PACKAGE = Path(__file__).parents[1] / "support" / "gpuworld"
OTHER_ADDRESS, OTHER_UUID = "0000:5e:00.0", "GPU-2b724e78-eef5-4163-d43c-e4da15d41176"
MORE_PROBES = 12
"""Twice as many as restarts would make a crash loop."""
ENV = '    env: {NVIDIA_VISIBLE_DEVICES: "{uuid}"}\n'
RESET = "    reset: {kind: driver, method: gpu, timeout: 10s}\n"
SIGNALS = "signals: {node: false}"
"""The fixture's nodes are no device nodes: only root could make them."""

SMI = """#!/bin/sh
left=$(( $(grep -c init {root}/script.calls) - $(grep -c shutdown {root}/script.calls) ))
echo "$*; $left sessions" >> {root}/resets
"""
"""Says how it was called, and how many sessions were open then."""


class World:
    """The files that stand for /proc, /sys and the library."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(mode=0o755)
        nvidia_tree.gpu(root)
        for folder in ("dev", "lib", "bin"):
            (root / folder).mkdir()
        self.library = nvml_standin.build(root / "lib")
        self.script = root / "script"
        self.script.write_text(HEALTHY)
        for written in (root / "script.calls", root / "resets"):
            written.touch()
            written.chmod(0o666)
        smi = root / "bin/nvidia-smi"
        smi.write_text(SMI.format(root=root))
        smi.chmod(0o755)

    @property
    def resets(self) -> str:
        """What nvidia-smi was run for."""
        return (self.root / "resets").read_text()

    @property
    def calls(self) -> list[str]:
        """What was opened and closed of NVML."""
        return (self.root / "script.calls").read_text().splitlines()

    def say(self, *lines: str, without: str = "") -> None:
        """Have NVML answer so from now on, in one piece: it may read at any time."""
        well = [one for one in HEALTHY.splitlines() if one.split()[0] != without]
        self._put(self.script, (*well, *lines))

    def say_of(self, address: str, uuid: str, *lines: str) -> None:
        """Have NVML answer so of this GPU alone."""
        well = HEALTHY.replace(UUID, uuid).splitlines()
        self._put(self.script.with_name(f"{self.script.name}.{address}"), (*well, *lines))

    def _put(self, file: Path, lines: Sequence[str]) -> None:
        fresh = self.root / "fresh"
        fresh.write_text("".join(f"{line}\n" for line in lines))
        fresh.rename(file)


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
            environment.MORE: f"GPU_WORLD,{nvml_standin.VARIABLE}",
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
        probed = rig.device(UUID)["last_probe"]["at"]
        rig.order("restart", UUID)
        await until(lambda: rig.device(UUID)["restarts"] == 1, "another worker")
        # The last probe shown is the old worker's until the new one has had its own.
        await until(lambda: rig.device(UUID)["last_probe"]["at"] != probed, "its probe")
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
        assert "only a new process loads the new library" in reason
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
        world.say_of(OTHER_ADDRESS, OTHER_UUID)
        nvidia_tree.gpu(world.root, address=OTHER_ADDRESS, uuid=OTHER_UUID, minor=1)
        await rig.healthy(GPU, 8)
        world.say("fail uuid 15")
        await rig.unhealthy(GPU, 4)
        devices = rig.kubelet.resources[GPU].lists[-1].devices
        assert {name for name, one in devices.items() if one.health != "Healthy"} == {f"{UUID}::{n}" for n in range(4)}
        assert {name for name, one in devices.items() if one.health == "Healthy"} == {
            f"{OTHER_UUID}::{n}" for n in range(4)
        }

    scenario(gpu_config("    replicas: 4\n"), play, healthy=4)


def test_gpus_joined_by_nvlink_are_given_together() -> None:
    """Of three GPUs on one switch the two that are joined are preferred, once their scout has asked NVML."""
    third_address, third_uuid = "0000:8a:00.0", "GPU-3b724e78-eef5-4163-d43c-e4da15d41176"

    async def play(rig: Rig, world: World) -> None:
        world.say("link 0 0 00000000:8A:00.0")
        world.say_of(OTHER_ADDRESS, OTHER_UUID)
        world.say_of(third_address, third_uuid, "link 3 0 00000000:3B:00.0")
        nvidia_tree.gpu(world.root, address=OTHER_ADDRESS, uuid=OTHER_UUID, minor=1)
        nvidia_tree.gpu(world.root, address=third_address, uuid=third_uuid, minor=2)
        await rig.healthy(GPU, 3)
        await until(lambda: rig.device(UUID)["properties"].get("links") == third_address, "the links")
        held = await rig.kubelet.allocate(GPU, 2)
        assert sorted(held.ids) == sorted([UUID, third_uuid])

    scenario(gpu_config(), play)


def test_configuration_decides_what_an_xid_means() -> None:
    """One that the catalogue wants a reset for is a note, one that it leaves to the application ends health."""

    async def play(rig: Rig, world: World) -> None:
        world.say("event 8 95 4294967295 4294967295")
        await until(lambda: "xid 95" in rig.device(UUID)["signals"]["notes"], "the note")
        assert rig.device(UUID)["health"] == "Healthy"
        world.say("event 8 95 4294967295 4294967295", "event 8 94 4294967295 4294967295")
        await rig.unhealthy(GPU)
        assert "xid: XID 94 (contained ECC error): the GPU has to be reset" in rig.device(UUID)["reason"]
        assert "XID 95" not in rig.device(UUID)["reason"]

    scenario(gpu_config(probe=f"{SIGNALS}, xids: {{'95': ignore, '94': reset}}"), play)


def test_library_that_stays_too_old_keeps_its_reason() -> None:
    """A new worker that finds the same old library says so and stays: no crash loop hides what is to be done."""

    async def play(rig: Rig, world: World) -> None:
        world.say("fail init 18", "fail uuid 18")
        await rig.unhealthy(GPU)
        await rig.journal_has(UUID, "crash", 1)
        probes: set[str] = set()

        def probed_on() -> bool:
            one = rig.device(UUID)
            if one["restarts"] and one["last_probe"] is not None:
                probes.add(one["last_probe"]["at"])
            return len(probes) > MORE_PROBES

        await until(probed_on, "probes of the new worker")
        assert "only a new process loads the new library" in rig.device(UUID)["reason"]
        assert rig.device(UUID)["restarts"] == 1
        assert len(rig.journal(UUID, "crash")) == 1
        assert "was changed beneath its worker" in str(rig.journal(UUID, "crash")[0]["stderr"])
        world.say()
        await rig.healthy(GPU)

    scenario(gpu_config(period="100ms"), play)


def test_mig_devices_have_their_own_health() -> None:
    """An XID of one part is that part's, one of the GPU is everybody's; a part that is taken away leaves the list."""
    first, second = f"{UUID}-gi1-ci0", f"{UUID}-gi2-ci0"
    parts = ("instance 1 0 MIG-one", "instance 2 0 MIG-two")

    async def play(rig: Rig, world: World) -> None:
        world.say(*parts)
        for number in (1, 2):
            nvidia_tree.instance(world.root, number, 0)
        await rig.healthy(GPU, 2)
        await until(lambda: rig.device(first)["properties"]["uuid"] == "MIG-one", "the name containers ask for")
        held = await rig.kubelet.allocate(GPU, ids=[first])
        assert held.response.envs["NVIDIA_VISIBLE_DEVICES"] == "MIG-one"
        assert sorted(one.host_path for one in held.response.devices) == [
            "/dev/nvidia-caps/nvidia-cap12",
            "/dev/nvidia-caps/nvidia-cap13",
            "/dev/nvidia-uvm",
            "/dev/nvidia0",
            "/dev/nvidiactl",
        ]
        world.say(*parts, "event 8 95 2 0")
        await rig.unhealthy(GPU)
        assert "XID 95" in rig.device(second)["reason"]
        assert rig.device(first)["health"] == "Healthy"
        world.say(*parts, "event 8 95 2 0", "event 8 79 4294967295 4294967295")
        await rig.unhealthy(GPU, 2)
        assert "XID 79" in rig.device(first)["reason"]
        assert "XID 95" not in rig.device(first)["reason"]
        shutil.rmtree(world.root / "proc/driver/nvidia/capabilities/gpu0/mig/gi2")
        await until(lambda: second not in {one["id"] for one in rig.status()["devices"]}, "its end in the list")

    mig = f"    match: {{offer: mig}}\n{ENV}"
    scenario(gpu_config(mig), play, healthy=0)


def test_container_gets_the_vendors_names() -> None:
    """The UUID in the variable, and the vendor's CDI name once his specification has it."""

    async def play(rig: Rig, world: World) -> None:
        assert world.script.exists()
        name = f"nvidia.com/gpu={UUID}"
        held = await rig.kubelet.allocate(GPU)
        assert held.response.envs["NVIDIA_VISIBLE_DEVICES"] == UUID
        assert not held.response.cdi_devices
        rig.kubelet.free(held.pod)
        (rig.cdi_dir / "nvidia.yaml").write_text(
            f"cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n- name: {UUID}\n  containerEdits: {{}}\n"
        )
        await until(lambda: rig.device(UUID)["cdi"] == name, "the name")
        given = (await rig.kubelet.allocate(GPU)).response
        assert [one.name for one in given.cdi_devices] == [name]
        assert given.devices

    scenario(gpu_config(f"    cdi: auto\n{ENV}"), play)


def test_reset_is_refused_while_somebody_computes() -> None:
    """The container's start fails with the list of who is in the way, and nvidia-smi is not run."""

    async def play(rig: Rig, world: World) -> None:
        held = await rig.kubelet.allocate(GPU)
        world.say("process 4711", "process 4712")
        with pytest.raises(ContainerStartError, match="pid 4711 computes on it, pid 4712 computes on it") as caught:
            await rig.kubelet.pre_start(GPU, held.ids)
        assert f"refused, {ADDRESS} would be reset" in str(caught.value)
        assert world.resets == ""

    scenario(gpu_config(RESET), play)


@pytest.mark.root
def test_reset_cures_what_asked_for_one() -> None:
    """A GPU that nobody uses is reset by nvidia-smi, without a session in its way, and its XID is over."""
    if unseen := census.look().unseen:
        pytest.skip(f"no reset is right here: {unseen}")

    async def play(rig: Rig, world: World) -> None:
        held = await rig.kubelet.allocate(GPU)
        world.say("event 8 95 4294967295 4294967295")
        await rig.unhealthy(GPU)
        opened = world.calls.count("init")
        assert opened > world.calls.count("shutdown")
        assert await rig.kubelet.pre_start(GPU, held.ids) is not None
        assert world.resets == f"--gpu-reset -i {ADDRESS}; 0 sessions\n"
        await rig.healthy(GPU)

    scenario(gpu_config(RESET), play)
