"""The stub kubelet's ListAndWatch: lists, the end of a stream, and the two traps of registering again."""

import asyncio
import time
from pathlib import Path

import grpc
import pytest

from devd.daemon.demo.kubelet import KubeletTiming, StubKubelet
from devd.proto.gen import deviceplugin_pb2 as pb
from tests.kubelet.stub_plugin import (
    DEADLINE_S,
    RESOURCE,
    TinyPlugin,
    eventually,
    has,
    never,
    register,
    registered,
    running,
    serving,
    streams,
)

GRACE = KubeletTiming(grace_s=1.0)
"""Long enough for a look before it is over, on a busy machine too."""


def test_each_list_is_the_whole_truth(tmp_path: Path) -> None:
    """A device that is absent from a list is gone, an unhealthy one stays in capacity, an empty list is legal."""

    async def run() -> None:
        async with running(tmp_path) as kubelet:
            plugin = TinyPlugin()
            async with registered(kubelet, plugin, {"a": "Healthy", "b": "Healthy"}):
                assert (kubelet.capacity(RESOURCE), kubelet.allocatable(RESOURCE)) == (2, 2)
                plugin.send({"b": "Unhealthy"})
                await has(kubelet, {"b": "Unhealthy"})
                assert (kubelet.capacity(RESOURCE), kubelet.allocatable(RESOURCE)) == (1, 0)
                plugin.send({})
                await has(kubelet, {})
                assert (kubelet.capacity(RESOURCE), kubelet.allocatable(RESOURCE)) == (0, 0)
                assert kubelet.resources[RESOURCE].stream_alive
                assert plugin.streams_opened == 1
            assert kubelet.violations == []

    asyncio.run(run())


def test_lists_are_kept_with_their_time(tmp_path: Path) -> None:
    """The history holds every list in order, with monotonic stamps, its stream's number, size and NUMA nodes."""

    async def run() -> None:
        async with running(tmp_path) as kubelet:
            plugin = TinyPlugin()
            start_s = time.monotonic()
            async with registered(kubelet, plugin, {"a": "Healthy"}):
                near = pb.TopologyInfo(nodes=[pb.NUMANode(ID=1), pb.NUMANode(ID=0)])
                plugin.send([pb.Device(ID="a", health="Unhealthy", topology=near)])
                await has(kubelet, {"a": "Unhealthy"})
            first, second = kubelet.resources[RESOURCE].lists
            assert start_s <= first.at_s <= second.at_s <= time.monotonic()
            assert first.devices["a"].health == "Healthy"
            assert first.devices["a"].numa == ()
            assert second.devices["a"].numa == (0, 1)
            assert first.stream == second.stream == 1
            assert second.size_bytes > first.size_bytes > 0

    asyncio.run(run())


def test_the_end_of_the_stream_takes_all_health_at_once(tmp_path: Path) -> None:
    """However a stream ends, its devices turn unhealthy at once; the capacity stays for the grace, then it is 0."""

    async def run() -> None:
        async with running(tmp_path, GRACE) as kubelet:
            plugin = TinyPlugin()
            async with registered(kubelet, plugin, {"a": "Healthy", "b": "Unhealthy"}):
                plugin.end_stream()
                await has(kubelet, {"a": "Unhealthy", "b": "Unhealthy"})
                ended_s = time.monotonic()
                assert kubelet.capacity(RESOURCE) == 2
                assert not kubelet.resources[RESOURCE].stream_alive
                await kubelet.wait_for(lambda: kubelet.capacity(RESOURCE) == 0, DEADLINE_S)
                assert time.monotonic() - ended_s > GRACE.grace_s - 0.05
                assert plugin.streams_opened == 1

    asyncio.run(run())


def test_a_dead_plugin_is_noticed(tmp_path: Path) -> None:
    """A server that goes away ends the stream, and with it the health of every device."""

    async def run() -> None:
        async with running(tmp_path) as kubelet:
            async with registered(kubelet, TinyPlugin(), {"a": "Healthy"}):
                pass
            await has(kubelet, {"a": "Unhealthy"})

    asyncio.run(run())


def test_the_kubelet_can_end_a_stream(tmp_path: Path) -> None:
    """A stream cancelled from the kubelet's side ends at the plugin, and the devices turn unhealthy."""

    async def run() -> None:
        async with running(tmp_path) as kubelet:
            plugin, other = TinyPlugin(), TinyPlugin()
            async with (
                registered(kubelet, plugin, {"a": "Healthy"}),
                registered(kubelet, other, {"b": "Healthy"}, "devd.io/other", "o"),
            ):
                kubelet.cancel_streams(RESOURCE)
                await has(kubelet, {"a": "Unhealthy"})
                await has(kubelet, {"b": "Healthy"}, "devd.io/other")
                await streams(kubelet, 0)
                await eventually(lambda: not plugin.streams, "the plugin sees its stream end")

    asyncio.run(run())


def test_five_thousand_devices_work(tmp_path: Path) -> None:
    """A list of 5,000 devices is taken."""

    async def run() -> None:
        async with running(tmp_path) as kubelet:
            devices = {f"device-{number:040d}": "Healthy" for number in range(5000)}
            async with registered(kubelet, TinyPlugin(), devices):
                assert kubelet.allocatable(RESOURCE) == 5000

    asyncio.run(run())


def test_a_list_over_four_mebibytes_ends_the_stream(tmp_path: Path) -> None:
    """A list longer than gRPC's default limit is not taken: the stream is over and the devices are unhealthy."""

    async def run() -> None:
        async with running(tmp_path) as kubelet:
            plugin = TinyPlugin()
            async with registered(kubelet, plugin, {"a": "Healthy"}):
                plugin.send({f"{number:060d}": "Healthy" for number in range(60000)})
                await has(kubelet, {"a": "Unhealthy"})
                await streams(kubelet, 0)
                assert len(kubelet.resources[RESOURCE].lists) == 1

    asyncio.run(run())


# ---- registering again ----------------------------------------------------------------------------------------------


def test_a_new_registration_brings_the_devices_back(tmp_path: Path) -> None:
    """Registering after the old stream has ended gives a new stream, and nothing is amiss."""

    async def run() -> None:
        async with running(tmp_path) as kubelet:
            async with registered(kubelet, TinyPlugin(), {"a": "Healthy"}):
                pass
            await streams(kubelet, 0)
            async with registered(kubelet, TinyPlugin(), {"a": "Healthy"}):
                assert kubelet.resources[RESOURCE].stream_alive
                assert len(kubelet.resources[RESOURCE].registered_at_s) == 2
                assert [one.stream for one in kubelet.resources[RESOURCE].lists] == [1, 2]
            assert kubelet.violations == []

    asyncio.run(run())


def test_trap_the_old_stream_takes_the_new_client_with_it(tmp_path: Path) -> None:
    """Registered while the old stream lived: when that ends, the NEW client is disconnected, and nothing comes back."""

    async def run() -> None:
        async with running(tmp_path) as kubelet:
            old, new = TinyPlugin(), TinyPlugin()
            async with (
                registered(kubelet, old, {"a": "Healthy"}),
                registered(kubelet, new, {"b": "Healthy"}, RESOURCE, "n"),
            ):
                assert kubelet.violations == [
                    f"{RESOURCE}: registered again while the stream of the earlier registration is open"
                ]
                await streams(kubelet, 2)
                old.end_stream()
                await has(kubelet, {"b": "Unhealthy"})
                await streams(kubelet, 0)
                new.send({"c": "Healthy"})
                assert await never(kubelet, lambda: kubelet.allocatable(RESOURCE) > 0)
                assert new.streams_opened == 1
                await register(kubelet, "n")
                await has(kubelet, {"c": "Healthy"})

    asyncio.run(run())


def test_trap_both_streams_speak_for_the_resource(tmp_path: Path) -> None:
    """While both streams live, a list of the old one counts as well: it replaces the new one's."""

    async def run() -> None:
        async with running(tmp_path) as kubelet:
            old, new = TinyPlugin(), TinyPlugin()
            async with (
                registered(kubelet, old, {"a": "Healthy"}),
                registered(kubelet, new, {"b": "Healthy"}, RESOURCE, "n"),
            ):
                old.send({"late": "Healthy"})
                await has(kubelet, {"late": "Healthy"})

    asyncio.run(run())


def test_trap_a_failed_registration_hides_the_death_of_the_live_one(tmp_path: Path) -> None:
    """A Register that fails takes the live client's entry away: its devices stay healthy after its death."""

    async def run() -> None:
        async with running(tmp_path) as kubelet:
            async with registered(kubelet, TinyPlugin(), {"a": "Healthy"}):
                with pytest.raises(grpc.aio.AioRpcError, match="failed to dial"):
                    await register(kubelet, "nobody")
                allocation = await kubelet.allocate(RESOURCE)
                assert allocation.ids == ("a",)
            await streams(kubelet, 0)
            assert await never(kubelet, lambda: kubelet.allocatable(RESOURCE) != 1)

    asyncio.run(run())


def test_trap_a_stream_that_ends_while_its_successor_is_asked(tmp_path: Path) -> None:
    """The old stream's end during the new one's Register takes the new entry: registered, but its death unnoticed."""

    async def run() -> None:
        async with running(tmp_path, KubeletTiming(dial_s=DEADLINE_S)) as kubelet:
            new = TinyPlugin()
            new.send({"b": "Healthy"})
            async with registered(kubelet, TinyPlugin(), {"a": "Healthy"}):
                late = asyncio.create_task(register(kubelet, "n"))
                await kubelet.wait_for(lambda: bool(kubelet.violations), DEADLINE_S)
            await has(kubelet, {"a": "Unhealthy"})
            async with serving(new, kubelet.plugin_dir / "n"):
                await late
                await has(kubelet, {"b": "Healthy"})
            await streams(kubelet, 0)
            assert await never(kubelet, lambda: kubelet.allocatable(RESOURCE) != 1)

    asyncio.run(run())


# ---- what a good plugin does not do ---------------------------------------------------------------------------------


async def violations(kubelet: StubKubelet, plugin: TinyPlugin, lists: list[list[pb.Device]]) -> list[str]:
    """Send the lists one by one after a good first one; return the violations."""
    async with registered(kubelet, plugin, {"a": "Healthy"}):
        for number, one in enumerate(lists, 2):
            plugin.send(one)
            await kubelet.wait_for(lambda want=number: len(kubelet.resources[RESOURCE].lists) == want, DEADLINE_S)  # type: ignore[misc] # mypy cannot infer a lambda's default
        return list(kubelet.violations)


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        ([[("a", "Healthy"), ("b", "Healthy")]], []),
        ([[("x" * 63, "Healthy")]], []),
        ([[("x" * 64, "Healthy")]], [f"device id {'x' * 64} has 64 characters, 63 are allowed"]),
        ([[("b", "Healthy"), ("b", "Healthy")]], ["device id b stands twice in a list"]),
        ([[("", "Healthy")]], ["an empty device id"]),
        ([[("b", "healthy")]], ["device b has health 'healthy'"]),
        ([[("a", "Healthy")]], ["an unchanged list was sent again"]),
        (
            [[("a", "Healthy"), ("b", "Healthy")], [("b", "Healthy"), ("a", "Healthy")]],
            ["an unchanged list was sent again"],
        ),
        ([[("a", "Unhealthy")], [("a", "Healthy")]], []),
    ],
)
def test_oddities_of_lists_are_noted(tmp_path: Path, lists: list[list[tuple[str, str]]], expected: list[str]) -> None:
    """Long, double and empty ids, unknown healths and unchanged lists (in any order) are noted; good lists are not."""

    async def run() -> None:
        async with running(tmp_path) as kubelet:
            sent = [[pb.Device(ID=one, health=health) for one, health in each] for each in lists]
            found = await violations(kubelet, TinyPlugin(), sent)
            assert found == [f"{RESOURCE}: {text}" for text in expected]

    asyncio.run(run())


def test_any_other_health_counts_as_unhealthy(tmp_path: Path) -> None:
    """Only the exact string counts as healthy."""

    async def run() -> None:
        async with running(tmp_path) as kubelet, registered(kubelet, TinyPlugin(), {"a": "healthy", "b": "Healthy "}):
            assert (kubelet.capacity(RESOURCE), kubelet.allocatable(RESOURCE)) == (2, 0)

    asyncio.run(run())


def test_an_id_of_two_resources_is_noted(tmp_path: Path) -> None:
    """Device ids must be unique over all resources of the node."""

    async def run() -> None:
        async with (
            running(tmp_path) as kubelet,
            registered(kubelet, TinyPlugin(), {"a": "Healthy"}),
            registered(kubelet, TinyPlugin(), {"a": "Healthy"}, "devd.io/other", "o"),
        ):
            assert kubelet.violations == [f"devd.io/other: device id a is one of {RESOURCE} too"]

    asyncio.run(run())
