"""The stub kubelet's Register: what it refuses, what it waits for, and how it can be told to misbehave."""

import asyncio
from pathlib import Path

import grpc
import pytest

from devd.daemon.demo.kubelet import Behaviour, KubeletTiming
from devd.daemon.demo.kubelet_rules import is_extended_resource
from devd.proto.gen import deviceplugin_pb2 as pb
from tests.kubelet.stub_plugin import DEADLINE_S, FAST, RESOURCE, TinyPlugin, has, never, register, running, serving

DIAL_FAILED = "failed to dial device plugin: context deadline exceeded"


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        ("devd.io/serial", True),
        ("a/b", True),
        ("nvidia.com/gpu.shared_2-x", True),
        ("devd.io/" + "n" * 63, True),
        ("d" * 63 + ".io/x", True),
        ("devd.io/" + "n" * 64, False),
        ("d" + ".".join(["d" * 60] * 4) + "/x", True),
        ("dd" + ".".join(["d" * 60] * 4) + "/x", False),
        ("serial", False),
        ("", False),
        ("devd.io/", False),
        ("/serial", False),
        ("devd.io/a/b", False),
        ("kubernetes.io/x", False),
        ("sub.kubernetes.io/x", False),
        ("requests.devd.io/x", False),
        ("Devd.io/x", False),
        ("devd_io/x", False),
        ("devd.io/-x", False),
        ("devd.io/x-", False),
        ("devd.io/x y", False),
        ("devd.io/x\n", False),
    ],
)
def test_names_of_extended_resources(*, name: str, valid: bool) -> None:
    """The kubelet's rules for an extended resource's name, each side of each limit."""
    assert is_extended_resource(name) is valid


def refusal(tmp_path: Path, **request: str) -> grpc.aio.AioRpcError:
    """Register a serving plugin with a bad request; return the error. The plugin must not have been asked."""

    async def run() -> grpc.aio.AioRpcError:
        async with running(tmp_path) as kubelet:
            plugin = TinyPlugin()
            async with serving(plugin, kubelet.plugin_dir / "p"):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await register(kubelet, "p", **request)
                assert not plugin.calls
                assert not kubelet.resources
                return caught.value

    return asyncio.run(run())


def test_a_wrong_version_is_refused(tmp_path: Path) -> None:
    """Another API version is refused, in the kubelet's words, as UNKNOWN, before the plugin is dialled."""
    error = refusal(tmp_path, version="v1")
    assert error.code() is grpc.StatusCode.UNKNOWN
    assert error.details() == 'requested API version "v1" is not supported by kubelet. Supported version is ["v1beta1"]'


def test_a_bad_resource_name_is_refused(tmp_path: Path) -> None:
    """A name that is no extended resource is refused as UNKNOWN before the plugin is dialled."""
    error = refusal(tmp_path, resource_name="kubernetes.io/x")
    assert error.code() is grpc.StatusCode.UNKNOWN
    assert error.details() == 'the ResourceName "kubernetes.io/x" is invalid'


def test_the_version_is_looked_at_first(tmp_path: Path) -> None:
    """With both wrong, the refusal is about the version."""
    assert "API version" in (refusal(tmp_path, version="v2", resource_name="x").details() or "")


@pytest.mark.parametrize("endpoint", ["nobody", "", "/tmp"])
def test_an_endpoint_that_does_not_serve_fails_after_the_dial(tmp_path: Path, endpoint: str) -> None:
    """A missing socket, an empty endpoint and an absolute path (joined below the directory) fail, not before time."""

    async def run() -> None:
        async with running(tmp_path) as kubelet:
            start_s = asyncio.get_running_loop().time()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await register(kubelet, endpoint)
            assert asyncio.get_running_loop().time() - start_s >= FAST.dial_s
            assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNKNOWN, DIAL_FAILED)

    asyncio.run(run())


def test_an_absolute_endpoint_is_below_the_directory(tmp_path: Path) -> None:
    """The absolute path of a socket that does serve is not taken for what it says."""

    async def run() -> None:
        async with running(tmp_path) as kubelet, serving(TinyPlugin(), kubelet.plugin_dir / "p"):
            with pytest.raises(grpc.aio.AioRpcError, match="failed to dial"):
                await register(kubelet, f"{kubelet.plugin_dir}/p")

    asyncio.run(run())


def test_the_dial_waits_for_a_socket_that_comes_late(tmp_path: Path) -> None:
    """The dial blocks and tries again: a plugin that begins to serve meanwhile is taken in."""

    async def run() -> None:
        async with running(tmp_path, KubeletTiming(dial_s=DEADLINE_S)) as kubelet:
            attempt = asyncio.create_task(register(kubelet, "p"))
            assert await never(kubelet, attempt.done)
            async with serving(TinyPlugin(), kubelet.plugin_dir / "p"):
                await attempt
                assert kubelet.resources[RESOURCE].registered_at_s

    asyncio.run(run())


def test_register_is_answered_after_the_options(tmp_path: Path) -> None:
    """Register stays open until the plugin has answered GetDevicePluginOptions, which has no deadline."""

    async def run() -> None:
        async with running(tmp_path) as kubelet:
            plugin = TinyPlugin()
            plugin.gate.clear()
            async with serving(plugin, kubelet.plugin_dir / "p"):
                attempt = asyncio.create_task(register(kubelet, "p"))
                assert await never(kubelet, attempt.done)
                assert plugin.calls == ["options"]
                assert plugin.remaining_s == [None]
                assert plugin.streams_opened == 0
                plugin.gate.set()
                await attempt

    asyncio.run(run())


def test_options_that_fail_refuse_the_registration(tmp_path: Path) -> None:
    """An error of GetDevicePluginOptions comes back as UNKNOWN with its text, and nothing is registered."""

    async def run() -> None:
        async with running(tmp_path) as kubelet:
            plugin = TinyPlugin()
            plugin.refuse = "not today"
            async with serving(plugin, kubelet.plugin_dir / "p"):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await register(kubelet, "p")
            assert caught.value.code() is grpc.StatusCode.UNKNOWN
            assert caught.value.details() == (
                "failed to get device plugin options: rpc error: code = FailedPrecondition desc = not today"
            )
            assert not kubelet.resources

    asyncio.run(run())


def test_the_options_of_the_request_are_not_read(tmp_path: Path) -> None:
    """What counts is the plugin's own answer, whatever stands in RegisterRequest."""

    async def run() -> None:
        async with running(tmp_path) as kubelet:
            plugin = TinyPlugin(pre_start=False, preferred=True)
            async with serving(plugin, kubelet.plugin_dir / "p"):
                await register(kubelet, "p", options=pb.DevicePluginOptions(pre_start_required=True))
                options = kubelet.resources[RESOURCE].options
                assert options is not None
                assert not options.pre_start_required
                assert options.get_preferred_allocation_available

    asyncio.run(run())


def test_a_plugin_that_gives_up_is_registered_all_the_same(tmp_path: Path) -> None:
    """A Register whose caller's deadline passes goes on in the kubelet."""

    async def run() -> None:
        async with running(tmp_path) as kubelet:
            plugin = TinyPlugin()
            plugin.gate.clear()
            plugin.send({"a": "Healthy"})
            async with serving(plugin, kubelet.plugin_dir / "p"):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await register(kubelet, "p", timeout_s=1.0)
                assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
                plugin.gate.set()
                await has(kubelet, {"a": "Healthy"})

    asyncio.run(run())


# ---- misbehaviour ---------------------------------------------------------------------------------------------------


def test_register_can_be_late(tmp_path: Path) -> None:
    """With a delay Register is answered, but not before it."""

    async def run() -> None:
        async with running(tmp_path) as kubelet, serving(TinyPlugin(), kubelet.plugin_dir / "p"):
            kubelet.behaviour = Behaviour(register_delay_s=0.2)
            start_s = asyncio.get_running_loop().time()
            await register(kubelet, "p")
            assert asyncio.get_running_loop().time() - start_s >= 0.2

    asyncio.run(run())


def test_register_can_be_refused(tmp_path: Path) -> None:
    """The error and the code told are what the plugin gets; it is not dialled."""

    async def run() -> None:
        async with running(tmp_path) as kubelet:
            plugin = TinyPlugin()
            kubelet.behaviour = Behaviour(register_error="go away", register_code=grpc.StatusCode.UNAVAILABLE)
            async with serving(plugin, kubelet.plugin_dir / "p"):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await register(kubelet, "p")
            assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNAVAILABLE, "go away")
            assert not plugin.calls

    asyncio.run(run())


def test_the_dial_back_can_be_left_out(tmp_path: Path) -> None:
    """A kubelet that never dials fails Register once the dial's time is over, though the plugin serves."""

    async def run() -> None:
        async with running(tmp_path) as kubelet:
            plugin = TinyPlugin()
            kubelet.behaviour = Behaviour(dial_back=False)
            async with serving(plugin, kubelet.plugin_dir / "p"):
                with pytest.raises(grpc.aio.AioRpcError, match="failed to dial"):
                    await register(kubelet, "p")
            assert not plugin.calls

    asyncio.run(run())


@pytest.mark.parametrize(
    ("behaviour", "calls"), [(Behaviour(register_hang=True), []), (Behaviour(options_hang=True), ["options"])]
)
def test_register_can_hang(tmp_path: Path, behaviour: Behaviour, calls: list[str]) -> None:
    """A hang before the dial, or after the options, keeps Register open until the behaviour is a good one again."""

    async def run() -> None:
        async with running(tmp_path) as kubelet:
            plugin = TinyPlugin()
            plugin.send({"a": "Healthy"})
            kubelet.behaviour = behaviour
            async with serving(plugin, kubelet.plugin_dir / "p"):
                attempt = asyncio.create_task(register(kubelet, "p"))
                assert await never(kubelet, attempt.done)
                assert plugin.calls == calls
                kubelet.behaviour = Behaviour()
                await attempt
                await has(kubelet, {"a": "Healthy"})

    asyncio.run(run())


def test_the_stream_can_be_left_unopened(tmp_path: Path) -> None:
    """Register is answered, but ListAndWatch is opened only once the behaviour is a good one again."""

    async def run() -> None:
        async with running(tmp_path) as kubelet:
            plugin = TinyPlugin()
            plugin.send({"a": "Healthy"})
            kubelet.behaviour = Behaviour(stream_hang=True)
            async with serving(plugin, kubelet.plugin_dir / "p"):
                await register(kubelet, "p")
                assert await never(kubelet, lambda: plugin.streams_opened > 0)
                kubelet.behaviour = Behaviour()
                await has(kubelet, {"a": "Healthy"})

    asyncio.run(run())
