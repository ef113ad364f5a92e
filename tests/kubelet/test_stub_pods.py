"""The stub kubelet's pods: how devices are chosen, what fails a pod, and what is remembered."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path

import grpc
import pytest

from devd.daemon.demo.kubelet import AdmissionError, ContainerStartError, StubKubelet
from devd.proto.gen import deviceplugin_pb2 as pb
from devd.proto.gen import podresources_pb2 as resources_pb
from devd.proto.gen import podresources_pb2_grpc as resources_rpc
from tests.kubelet.stub_plugin import RESOURCE, WIRE_ROUNDING, TinyPlugin, eventually, has, registered, running

TEN = {f"d{number}": "Healthy" for number in range(10)}
Scene = Callable[[StubKubelet, TinyPlugin], Coroutine[None, None, None]]


def play(tmp_path: Path, scene: Scene, devices: dict[str, str] = TEN, *, preferred: bool = False) -> None:
    """Play a scene with a kubelet and a registered plugin."""

    async def run() -> None:
        plugin = TinyPlugin(preferred=preferred)
        async with (
            running(tmp_path, pod_resources_path=tmp_path / "pr" / "s") as kubelet,
            registered(kubelet, plugin, devices),
        ):
            await scene(kubelet, plugin)

    asyncio.run(run())


def test_a_container_gets_what_the_plugin_answers(tmp_path: Path) -> None:
    """Without a preference on offer it is not asked for one; Allocate gets one container's ids, without a deadline."""

    async def scene(kubelet: StubKubelet, plugin: TinyPlugin) -> None:
        held = await kubelet.allocate(RESOURCE, 2, pod="web", container="app")
        assert plugin.calls == ["options", "allocate"]
        assert plugin.remaining_s == [None, None]
        assert sorted(plugin.allocated[0]) == list(held.ids)
        assert set(held.ids) <= set(TEN)
        assert (held.pod, held.container, held.resource) == ("web", "app", RESOURCE)
        assert dict(held.response.envs) == {"A": "1"}
        assert held.preferred is None
        assert kubelet.allocations == (held,)
        assert kubelet.violations == []

    play(tmp_path, scene)


def test_ids_come_in_any_order(tmp_path: Path) -> None:
    """The ids of Allocate, PreStartContainer and GetPreferredAllocation are mixed: over eight calls, orders differ."""

    async def scene(kubelet: StubKubelet, plugin: TinyPlugin) -> None:
        plugin.prefer = lambda asked: sorted(asked.available_deviceIDs)
        for _ in range(8):
            held = await kubelet.allocate(RESOURCE, 10)
            await kubelet.pre_start(RESOURCE, held.ids)
            kubelet.free(held.pod)
        for calls in (plugin.available, plugin.allocated, plugin.pre_started):
            assert {frozenset(one) for one in calls} == {frozenset(TEN)}
            assert len({tuple(one) for one in calls}) > 1

    play(tmp_path, scene, preferred=True)


def test_a_preference_is_followed(tmp_path: Path) -> None:
    """The healthy devices not in use are offered for a choice, and what is preferred is allocated."""

    async def scene(kubelet: StubKubelet, plugin: TinyPlugin) -> None:
        plugin.prefer = lambda asked: sorted(asked.available_deviceIDs)[-asked.allocation_size :]
        first = await kubelet.allocate(RESOURCE, 2)
        second = await kubelet.allocate(RESOURCE, 1)
        assert (first.ids, second.ids) == (("c", "d"), ("b",))
        assert [sorted(one) for one in plugin.available] == [["a", "b", "c", "d"], ["a", "b"]]
        assert plugin.must_include == [[], []]
        assert second.preferred == ("b",)
        assert kubelet.violations == []

    play(
        tmp_path,
        scene,
        {"a": "Healthy", "b": "Healthy", "c": "Healthy", "d": "Healthy", "x": "Unhealthy"},
        preferred=True,
    )


def test_a_preference_is_asked_for_when_there_is_no_choice(tmp_path: Path) -> None:
    """It is asked for also when as many devices are needed as there are."""

    async def scene(kubelet: StubKubelet, plugin: TinyPlugin) -> None:
        plugin.prefer = lambda asked: list(asked.available_deviceIDs)
        assert (await kubelet.allocate(RESOURCE, 10)).ids == tuple(sorted(TEN))
        assert "preferred" in plugin.calls

    play(tmp_path, scene, preferred=True)


@pytest.mark.parametrize("answer", [[], ["d1"], ["nonsense", "d1"], ["d1", "d1"], ["d1", "d2", "d3"]])
def test_a_bad_preference_is_cut_and_topped_up(tmp_path: Path, answer: list[str]) -> None:
    """What is preferred but not available is left out, what is missing is chosen from the rest; it is noted."""

    async def scene(kubelet: StubKubelet, plugin: TinyPlugin) -> None:
        plugin.prefer = lambda _: answer
        held = await kubelet.allocate(RESOURCE, 2)
        assert len(set(held.ids)) == 2
        assert set(held.ids) <= set(TEN)
        assert len(set(answer) & set(held.ids)) == min(2, len(set(answer) & set(TEN)))
        assert len(kubelet.violations) == 1
        assert "were asked for" in kubelet.violations[0]

    play(tmp_path, scene, preferred=True)


def test_an_init_containers_devices_must_be_included(tmp_path: Path) -> None:
    """Devices to be used again are taken first, are among the available ones, and must be in; size counts them."""

    async def scene(kubelet: StubKubelet, plugin: TinyPlugin) -> None:
        plugin.prefer = lambda asked: [*asked.must_include_deviceIDs, "d7"]
        await kubelet.allocate(RESOURCE, ids=["d3"], pod="p", container="init")
        held = await kubelet.allocate(RESOURCE, 2, pod="p", reuse=["d3"])
        assert held.ids == ("d3", "d7")
        assert plugin.must_include == [["d3"]]
        assert sorted(plugin.available[0]) == sorted(TEN)
        assert kubelet.violations == []

    play(tmp_path, scene, preferred=True)


def test_an_error_of_the_preference_fails_the_pod(tmp_path: Path) -> None:
    """GetPreferredAllocation that fails fails the pod, with the plugin's text, and Allocate is not called."""

    async def scene(kubelet: StubKubelet, plugin: TinyPlugin) -> None:
        plugin.refuse = "no idea"
        with pytest.raises(AdmissionError) as caught:
            await kubelet.allocate(RESOURCE)
        assert str(caught.value) == (
            "device plugin GetPreferredAllocation rpc failed with err: "
            "rpc error: code = FailedPrecondition desc = no idea"
        )
        assert not plugin.allocated

    play(tmp_path, scene, preferred=True)


def test_too_few_healthy_devices_fail_the_pod(tmp_path: Path) -> None:
    """Unhealthy devices and those in use are never chosen: without enough others the pod fails unasked."""

    async def scene(kubelet: StubKubelet, plugin: TinyPlugin) -> None:
        with pytest.raises(AdmissionError, match=r"unavailable for devd\.io/tiny\. Requested: 3, Available: 2"):
            await kubelet.allocate(RESOURCE, 3)
        assert not plugin.allocated
        first = await kubelet.allocate(RESOURCE)
        second = await kubelet.allocate(RESOURCE)
        assert sorted(first.ids + second.ids) == ["a", "b"]
        with pytest.raises(AdmissionError, match="Requested: 1, Available: 0"):
            await kubelet.allocate(RESOURCE)
        kubelet.free(first.pod)
        assert (await kubelet.allocate(RESOURCE)).ids == first.ids

    play(tmp_path, scene, {"a": "Healthy", "b": "Healthy", "c": "Unhealthy"})


def test_a_resource_nobody_registered(tmp_path: Path) -> None:
    """A pod that asks for an unknown resource fails."""

    async def scene(kubelet: StubKubelet, _: TinyPlugin) -> None:
        with pytest.raises(AdmissionError, match=r"cannot allocate unregistered device devd\.io/none"):
            await kubelet.allocate("devd.io/none")

    play(tmp_path, scene)


def test_an_error_of_allocate_fails_the_pod(tmp_path: Path) -> None:
    """The plugin's text reaches the pod, it is not tried again, and the devices are free."""

    async def scene(kubelet: StubKubelet, plugin: TinyPlugin) -> None:
        plugin.refuse = "d1 is Unhealthy"
        with pytest.raises(AdmissionError) as caught:
            await kubelet.allocate(RESOURCE, 10)
        assert str(caught.value) == (
            "Allocate failed due to rpc error: code = FailedPrecondition desc = d1 is Unhealthy, which is unexpected"
        )
        assert len(plugin.allocated) == 1
        plugin.refuse = ""
        assert len((await kubelet.allocate(RESOURCE, 10)).ids) == 10

    play(tmp_path, scene)


def test_an_empty_answer_fails_the_pod(tmp_path: Path) -> None:
    """An Allocate answer without a container fails the pod."""

    async def scene(kubelet: StubKubelet, plugin: TinyPlugin) -> None:
        plugin.response = pb.AllocateResponse()
        with pytest.raises(AdmissionError, match="no containers return in allocation response"):
            await kubelet.allocate(RESOURCE)
        assert kubelet.allocations == ()

    play(tmp_path, scene)


def test_the_first_answer_is_read(tmp_path: Path) -> None:
    """Of several container answers [0] counts; that, and permissions that are none, are noted."""

    async def scene(kubelet: StubKubelet, plugin: TinyPlugin) -> None:
        first = pb.ContainerAllocateResponse(devices=[pb.DeviceSpec(host_path="/dev/x", permissions="rx")])
        second = pb.ContainerAllocateResponse(envs={"B": "2"})
        plugin.response = pb.AllocateResponse(container_responses=[first, second])
        assert (await kubelet.allocate(RESOURCE)).response == first
        assert kubelet.violations == [
            f"{RESOURCE}: 2 answers to Allocate, [0] is read",
            f"{RESOURCE}: /dev/x with permissions 'rx'",
        ]

    play(tmp_path, scene)


def test_a_forced_choice_goes_to_the_plugin(tmp_path: Path) -> None:
    """Named ids are sent though unhealthy by now: that is the plugin's to refuse; those in use are not."""

    async def scene(kubelet: StubKubelet, plugin: TinyPlugin) -> None:
        assert (await kubelet.allocate(RESOURCE, ids=["b"])).ids == ("b",)
        assert plugin.allocated == [["b"]]
        with pytest.raises(AdmissionError, match="b in use"):
            await kubelet.allocate(RESOURCE, ids=["a", "b"])

    play(tmp_path, scene, {"a": "Healthy", "b": "Unhealthy"})


def test_a_restarting_container_keeps_its_devices(tmp_path: Path) -> None:
    """The same container again gets the same without a call, unless they are unhealthy by now: then the pod fails."""

    async def scene(kubelet: StubKubelet, plugin: TinyPlugin) -> None:
        held = await kubelet.allocate(RESOURCE, pod="p")
        assert await kubelet.allocate(RESOURCE, pod="p") is held
        assert len(plugin.allocated) == 1
        with pytest.raises(AdmissionError, match="changed request"):
            await kubelet.allocate(RESOURCE, 2, pod="p")
        devices = TEN | {held.ids[0]: "Unhealthy"}
        plugin.send(devices)
        await has(kubelet, devices)
        with pytest.raises(AdmissionError, match="previously allocated devices are no longer healthy"):
            await kubelet.allocate(RESOURCE, pod="p")

    play(tmp_path, scene)


def test_admissions_wait_for_each_other(tmp_path: Path) -> None:
    """Allocate runs in the kubelet's one sync loop: a pod waits for the one before, whatever it asks for."""

    async def scene(kubelet: StubKubelet, plugin: TinyPlugin) -> None:
        other = TinyPlugin()
        async with registered(kubelet, other, {"o": "Healthy"}, "devd.io/other", "o"):
            plugin.gate.clear()
            first = asyncio.create_task(kubelet.allocate(RESOURCE))
            await eventually(lambda: bool(plugin.allocated), "the first Allocate")
            second = asyncio.create_task(kubelet.allocate("devd.io/other"))
            await kubelet.pre_start("devd.io/other", ["o"])
            assert not other.allocated
            plugin.gate.set()
            await first
            await second

    play(tmp_path, scene)


def test_a_stopped_endpoint_is_not_called(tmp_path: Path) -> None:
    """After the stream's end neither Allocate nor PreStartContainer reaches the plugin, though it still serves."""

    async def scene(kubelet: StubKubelet, plugin: TinyPlugin) -> None:
        plugin.end_stream()
        await has(kubelet, dict.fromkeys(TEN, "Unhealthy"))
        with pytest.raises(AdmissionError, match="no healthy devices present"):
            await kubelet.allocate(RESOURCE)
        with pytest.raises(AdmissionError, match=r"endpoint .* has been stopped"):
            await kubelet.allocate(RESOURCE, ids=["d1"])
        with pytest.raises(ContainerStartError, match=r"endpoint .* has been stopped"):
            await kubelet.pre_start(RESOURCE, ["d1"])
        assert plugin.calls == ["options"]

    play(tmp_path, scene)


# ---- PreStartContainer ----------------------------------------------------------------------------------------------


def test_pre_start_comes_with_thirty_seconds(tmp_path: Path) -> None:
    """The call carries a deadline of 30 s and all ids of the container."""

    async def scene(kubelet: StubKubelet, plugin: TinyPlugin) -> None:
        took_s = await kubelet.pre_start(RESOURCE, ["d1", "d2"])
        assert took_s is not None
        assert took_s < 30
        assert sorted(plugin.pre_started[0]) == ["d1", "d2"]
        remaining_s = plugin.remaining_s[-1]
        assert remaining_s is not None
        assert 25 < remaining_s <= 30 * WIRE_ROUNDING

    play(tmp_path, scene)


def test_pre_start_is_cancelled_at_its_deadline(tmp_path: Path) -> None:
    """A plugin that is not done in time is cancelled, and the start attempt fails."""

    async def scene(kubelet: StubKubelet, plugin: TinyPlugin) -> None:
        plugin.gate.clear()
        with pytest.raises(ContainerStartError, match="code = DeadlineExceeded"):
            await kubelet.pre_start(RESOURCE, ["d1"], timeout_s=1.0)
        await eventually(lambda: plugin.cancelled == ["pre-start"], "the plugin's call is cancelled")

    play(tmp_path, scene)


def test_an_error_of_pre_start_fails_the_attempt(tmp_path: Path) -> None:
    """The plugin's text is in the error."""

    async def scene(kubelet: StubKubelet, plugin: TinyPlugin) -> None:
        plugin.refuse = "d1: reset failed"
        with pytest.raises(ContainerStartError) as caught:
            await kubelet.pre_start(RESOURCE, ["d1"])
        assert str(caught.value) == (
            "device plugin PreStartContainer rpc failed with err: "
            "rpc error: code = FailedPrecondition desc = d1: reset failed"
        )

    play(tmp_path, scene)


def test_pre_start_is_left_out_where_it_is_not_asked_for(tmp_path: Path) -> None:
    """A plugin whose options do not ask for it gets no call."""

    async def run() -> None:
        plugin = TinyPlugin(pre_start=False)
        async with running(tmp_path) as kubelet, registered(kubelet, plugin, TEN):
            assert await kubelet.pre_start(RESOURCE, ["d1"]) is None
            assert plugin.calls == ["options"]

    asyncio.run(run())


# ---- PodResources ---------------------------------------------------------------------------------------------------


def test_pod_resources_tell_who_holds_what(tmp_path: Path) -> None:
    """List names pod, container and device ids, GetAllocatableResources the healthy ones; a freed pod is gone."""

    async def scene(kubelet: StubKubelet, plugin: TinyPlugin) -> None:
        near = pb.TopologyInfo(nodes=[pb.NUMANode(ID=1)])
        plugin.send([pb.Device(ID="a", health="Healthy", topology=near), pb.Device(ID="b", health="Unhealthy")])
        await has(kubelet, {"a": "Healthy", "b": "Unhealthy"})
        await kubelet.allocate(RESOURCE, ids=["a", "b"], pod="web", container="app")
        async with grpc.aio.insecure_channel(f"unix:{tmp_path}/pr/s") as channel:
            stub = resources_rpc.PodResourcesListerStub(channel)
            listed = await stub.List(resources_pb.ListPodResourcesRequest())
            allocatable = await stub.GetAllocatableResources(resources_pb.AllocatableResourcesRequest())
            kubelet.free("web")
            after = await stub.List(resources_pb.ListPodResourcesRequest())
        first = resources_pb.ContainerDevices(resource_name=RESOURCE, device_ids=["a"])
        first.topology.nodes.add(ID=1)
        second = resources_pb.ContainerDevices(resource_name=RESOURCE, device_ids=["b"])
        containers = [resources_pb.ContainerResources(name="app", devices=[first, second])]
        assert list(listed.pod_resources) == [
            resources_pb.PodResources(name="web", namespace="default", containers=containers)
        ]
        assert list(allocatable.devices) == [first]
        assert not after.pod_resources

    play(tmp_path, scene)
