"""Watcher mode against the strict kubelet's plugin watcher, and against one played by hand where it must misbehave."""

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from devd.daemon.demo.kubelet import Behaviour, KubeletTiming
from devd.daemon.endpoint_state import Timing
from devd.daemon.plugin_server import CHANNEL_OPTIONS, grpc_address
from devd.proto.gen import deviceplugin_pb2 as plugin_pb
from devd.proto.gen import deviceplugin_pb2_grpc as plugin_rpc
from devd.proto.gen import pluginregistration_pb2 as pb
from devd.proto.gen import pluginregistration_pb2_grpc as rpc
from tests.kubelet.endpoint_support import (
    DEADLINE_S,
    MemoryView,
    endpoint,
    eventually,
    healthy,
    kubelet,
    make_paths,
    sockets,
)

if TYPE_CHECKING:
    from devd.proto.gen.deviceplugin_pb2_grpc import DevicePluginAsyncStub
    from devd.proto.gen.pluginregistration_pb2_grpc import RegistrationAsyncStub

BRISK = KubeletTiming(reconcile_s=0.05, retry_s=0.1)
"""The kubelet's loop, which takes a second a round otherwise."""
QUICK = Timing(register_s=0.2, stream_s=0.2, refused_s=0.5, backoff_max_s=0.1)
TOLD = replace(QUICK, register_s=DEADLINE_S)
"""For a kubelet that does tell how it went: on a busy machine it may take its time between the question and that."""


@asynccontextmanager
async def dialled(socket: Path) -> "AsyncIterator[tuple[RegistrationAsyncStub, DevicePluginAsyncStub]]":
    """Connect to both services of a socket."""
    async with grpc.aio.insecure_channel(grpc_address(socket), options=CHANNEL_OPTIONS) as channel:
        yield rpc.RegistrationStub(channel), plugin_rpc.DevicePluginStub(channel)


def changed_ns(path: Path) -> int:
    """Return when the file was made; 0 when it is not there. Inode numbers are used again at once, this is not."""
    try:
        return path.lstat().st_ctime_ns
    except FileNotFoundError:
        return 0


def made_anew(path: Path, made_ns: int) -> bool:
    """Return whether the file is another one than the one made then."""
    return changed_ns(path) not in {0, made_ns}


def test_kubelet_finds_and_registers_the_socket(tmp_path: Path) -> None:
    """The watcher finds one socket, registers it, and lists, allocations and resets go over it."""
    paths, view = make_paths(tmp_path, "watcher"), MemoryView()

    async def scene() -> None:
        async with kubelet(paths, timing=BRISK) as stub, endpoint(view, paths) as ours:
            await stub.wait_for(lambda: healthy(stub, view), DEADLINE_S, "found")
            await eventually(lambda: ours.status.state == "registered", "the status says so")
            assert (ours.status.mode, ours.status.registrations) == ("watcher", 1)
            assert (len(sockets(paths.registry_dir)), sockets(paths.dir)) == (1, [])
            view.set("a", healthy=False)
            await stub.wait_for(lambda: stub.resources[view.name].healthy == {"b"}, DEADLINE_S, "a is Unhealthy")
            assert (await stub.allocate(view.name, 1)).ids == ("b",)
            assert await stub.pre_start(view.name, ["b"]) is not None
        assert sockets(paths.registry_dir) == []

    asyncio.run(scene())


def test_info_says_who_we_are(tmp_path: Path) -> None:
    """GetInfo: type DevicePlugin, the resource's name, this same socket (empty endpoint), v1beta1."""
    paths, view = make_paths(tmp_path, "watcher"), MemoryView()

    async def scene() -> None:
        async with endpoint(view, paths) as ours:
            await eventually(lambda: changed_ns(ours.status.socket) != 0, "serves")
            assert ours.status.state == "waiting for kubelet"
            async with dialled(ours.status.socket) as (registration, plugin):
                info = await registration.GetInfo(pb.InfoRequest(), timeout=1)
                assert (info.type, info.name, info.endpoint) == ("DevicePlugin", view.name, "")
                assert list(info.supported_versions) == ["v1beta1"]
                await eventually(lambda: ours.status.state == "registering", "asked")
                assert (await plugin.GetDevicePluginOptions(plugin_pb.Empty())).pre_start_required

    asyncio.run(scene())


def test_kubelet_restart_20_times(tmp_path: Path) -> None:
    """The new kubelet finds the socket in its directory, which it does not wipe; nothing is lost, 20 times."""
    paths, view = make_paths(tmp_path, "watcher"), MemoryView()

    async def scene() -> list[float]:
        async with kubelet(paths, timing=BRISK) as stub, endpoint(view, paths):
            await stub.wait_for(lambda: healthy(stub, view), DEADLINE_S, "found")
            times = []
            for number in range(20):
                await stub.restart()
                times.append(await stub.wait_for(lambda: healthy(stub, view), DEADLINE_S, f"restart {number}"))
            return times

    times = asyncio.run(scene())
    print(f"back after a restart: median {sorted(times)[10] * 1000:.0f} ms, worst {max(times) * 1000:.0f} ms")


def test_ended_stream_makes_the_socket_anew(tmp_path: Path) -> None:
    """A kubelet that lives but ended the stream does not come back to the same file: it gets a new one."""
    paths, view = make_paths(tmp_path, "watcher"), MemoryView()

    async def scene() -> None:
        async with kubelet(paths, timing=BRISK) as stub, endpoint(view, paths) as ours:
            await stub.wait_for(lambda: healthy(stub, view), DEADLINE_S, "found")
            for number in range(3):
                stub.cancel_streams()
                await stub.wait_for(lambda: not healthy(stub, view), DEADLINE_S, "the loss shows")
                await eventually(lambda: "ended the ListAndWatch stream" in ours.status.last_error, "and why")
                await stub.wait_for(lambda: healthy(stub, view), DEADLINE_S, f"back, round {number}")
            await eventually(lambda: ours.status.registrations == 4, "four registrations")

    asyncio.run(scene())


def test_lost_socket_and_lost_directory(tmp_path: Path) -> None:
    """The socket removed, then the whole directory removed and made again: both times the resource is back."""
    paths, view = make_paths(tmp_path, "watcher"), MemoryView()

    async def scene() -> None:
        async with kubelet(paths, timing=BRISK) as stub, endpoint(view, paths) as ours:
            await stub.wait_for(lambda: healthy(stub, view), DEADLINE_S, "found")
            ours.status.socket.unlink()
            await stub.wait_for(lambda: not healthy(stub, view), DEADLINE_S, "the loss shows")
            await stub.wait_for(lambda: healthy(stub, view), DEADLINE_S, "back after the socket's loss")
            await stub.stop()
            shutil.rmtree(paths.registry_dir)
            await eventually(lambda: "is not there" in ours.status.last_error, "says what is missing")
            await stub.start()
            await stub.wait_for(lambda: healthy(stub, view), DEADLINE_S, "back after the directory's loss")

    asyncio.run(scene())


def test_failed_registration_is_tried_again_on_a_new_socket(tmp_path: Path) -> None:
    """A kubelet that finds us but cannot dial tells so and forgets the file: a new one follows until it works."""
    paths, view = make_paths(tmp_path, "watcher"), MemoryView()

    async def scene() -> None:
        timing = KubeletTiming(reconcile_s=0.05, retry_s=0.1, dial_s=0.3)
        async with kubelet(paths, timing=timing) as stub:
            stub.behaviour = Behaviour(dial_back=False)
            async with endpoint(view, paths) as ours:
                await eventually(lambda: "plugin registration failed" in ours.status.last_error, "the kubelet's word")
                stub.behaviour = Behaviour()
                await stub.wait_for(lambda: healthy(stub, view), 2 * DEADLINE_S, "registered in the end")

    asyncio.run(scene())


def test_bad_name_is_refused_for_good(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A name the kubelet never takes gives "refused", one error in the log, and a socket that stays."""
    paths, view = make_paths(tmp_path, "watcher"), MemoryView("kubernetes.io/test")

    async def scene() -> None:
        async with kubelet(paths, timing=BRISK), endpoint(view, paths, Timing(refused_s=30.0)) as ours:
            await eventually(lambda: ours.status.state == "refused", "refused")
            assert 'the ResourceName "kubernetes.io/test" is invalid' in ours.status.last_error
            made_ns = changed_ns(ours.status.socket)
            await asyncio.sleep(0.5)
            assert ours.status.state == "refused"
            assert changed_ns(ours.status.socket) == made_ns != 0

    with caplog.at_level(logging.WARNING, logger="devd.test"):
        asyncio.run(scene())
    # The kubelet asks again by itself; it is told the same, and so is the operator, but once.
    assert [one.levelname for one in caplog.records] == ["ERROR"]


def test_refusal_by_word_makes_the_socket_anew(tmp_path: Path) -> None:
    """NotifyRegistrationStatus(false) with a passing fault: a new socket, since the kubelet comes to no old one."""
    paths, view = make_paths(tmp_path, "watcher"), MemoryView()

    async def scene() -> None:
        async with endpoint(view, paths, TOLD) as ours:
            await eventually(lambda: changed_ns(ours.status.socket) != 0, "serves")
            for _ in range(3):
                made_ns = changed_ns(ours.status.socket)
                async with dialled(ours.status.socket) as (registration, _plugin):
                    await registration.GetInfo(pb.InfoRequest(), timeout=1)
                    status = pb.RegistrationStatus(plugin_registered=False, error="dial\nfailed")
                    await registration.NotifyRegistrationStatus(status, timeout=1)
                await eventually(partial(made_anew, ours.status.socket, made_ns), "a new socket")
                assert ours.status.last_error == "the kubelet refused: dial failed"

    asyncio.run(scene())


@pytest.mark.parametrize("tell", [False, True])
def test_kubelet_that_stops_half_way(tmp_path: Path, *, tell: bool) -> None:
    """Asked but never told, or told well but no stream opened: in bounded time the socket is made anew."""
    paths, view = make_paths(tmp_path, "watcher"), MemoryView()

    async def scene() -> None:
        async with endpoint(view, paths, TOLD if tell else QUICK) as ours:
            await eventually(lambda: changed_ns(ours.status.socket) != 0, "serves")
            made_ns = changed_ns(ours.status.socket)
            async with dialled(ours.status.socket) as (registration, _plugin):
                await registration.GetInfo(pb.InfoRequest(), timeout=1)
                if tell:
                    await registration.NotifyRegistrationStatus(pb.RegistrationStatus(plugin_registered=True))
            await eventually(partial(made_anew, ours.status.socket, made_ns), "a new socket")
            expected = "opened no ListAndWatch" if tell else "neither registered nor refused"
            assert expected in ours.status.last_error

    asyncio.run(scene())


def test_directory_missing_at_the_start(tmp_path: Path) -> None:
    """plugins_registry is made by the kubelet when it first starts: until then the endpoint waits, and says so."""
    paths, view = make_paths(tmp_path, "watcher"), MemoryView()
    paths.registry_dir.rmdir()

    async def scene() -> None:
        slow = Timing(backoff_s=30.0, backoff_max_s=30.0)
        async with kubelet(paths, timing=BRISK, start=False) as stub, endpoint(view, paths, slow) as ours:
            await eventually(lambda: "is not there" in ours.status.last_error, "says what is missing")
            await stub.start()
            await stub.wait_for(lambda: healthy(stub, view), DEADLINE_S, "found")

    asyncio.run(scene())
