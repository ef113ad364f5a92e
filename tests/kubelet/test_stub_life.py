"""The stub kubelet's own life: start, death, what it leaves behind, and what it brings back."""

import asyncio
import os
import socket
from pathlib import Path

import grpc
import pytest

from devd.daemon.demo.kubelet import AdmissionError, StubKubelet
from tests.kubelet.stub_plugin import (
    DEADLINE_S,
    FAST,
    RESOURCE,
    TinyPlugin,
    TinyRegistrar,
    eventually,
    has,
    register,
    registered,
    running,
    serving,
)


def listens(path: Path) -> bool:
    """Return whether somebody accepts connections on a socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(os.fspath(path)) == 0


def names(directory: Path) -> set[str]:
    """Return the names of everything in a directory."""
    return {one.name for one in directory.iterdir()}


def descriptors() -> set[str]:
    """Return the process's open descriptors, as what they lead to."""
    links = set()
    for one in Path("/proc/self/fd").iterdir():
        try:
            links.add(f"{one.name} {one.readlink()}")
        except FileNotFoundError:
            continue  # the listing's own
    return links


def test_a_dead_kubelet_leaves_its_socket_behind(tmp_path: Path) -> None:
    """After stop the kubelet.sock is still there, the same file, and nobody listens on it."""

    async def run() -> None:
        async with running(tmp_path) as kubelet:
            inode = kubelet.socket_path.lstat().st_ino
            assert listens(kubelet.socket_path)
            await kubelet.stop()
            assert kubelet.socket_path.lstat().st_ino == inode
            assert not listens(kubelet.socket_path)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await register(kubelet, "p")
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE

    asyncio.run(run())


def test_start_wipes_sockets_and_nothing_else(tmp_path: Path) -> None:
    """A starting kubelet removes every socket in its directory, other files and folders stay; its socket is new."""

    async def run() -> None:
        async with running(tmp_path) as kubelet:
            await kubelet.stop()
            before = kubelet.socket_path.lstat()
            directory = kubelet.plugin_dir
            (directory / "kubelet_internal_checkpoint").write_text("{}")
            (directory / "folder").mkdir()
            with socket.socket(socket.AF_UNIX) as live, socket.socket(socket.AF_UNIX) as hidden:
                live.bind(os.fspath(directory / "live.sock"))
                live.listen()
                hidden.bind(os.fspath(directory / ".hidden.sock"))
                await kubelet.start()
            assert names(directory) == {
                "kubelet_internal_checkpoint",
                "folder",
                "kubelet.sock",
            }
            after = kubelet.socket_path.lstat()
            assert (before.st_ino, before.st_ctime_ns) != (after.st_ino, after.st_ctime_ns)
            assert listens(kubelet.socket_path)
            assert names(tmp_path) == {"dp"}

    asyncio.run(run())


def test_a_restarted_kubelet_waits_for_the_plugin(tmp_path: Path) -> None:
    """Over a restart the stream ends, the capacity is 0 until the plugin registers, and pods keep their devices."""

    async def run() -> None:
        async with running(tmp_path) as kubelet:
            plugin = TinyPlugin()
            async with registered(kubelet, plugin, {"a": "Healthy", "b": "Healthy"}):
                held = await kubelet.allocate(RESOURCE, ids=["a"])
                await kubelet.restart()
                assert kubelet.capacity(RESOURCE) == 0
                await eventually(lambda: not plugin.streams, "the plugin sees its stream end")
                with pytest.raises(AdmissionError, match="no healthy devices present"):
                    await kubelet.allocate(RESOURCE)
            async with registered(kubelet, TinyPlugin(), {"a": "Healthy", "b": "Healthy"}):
                assert kubelet.allocations == (held,)
                assert (await kubelet.allocate(RESOURCE)).ids == ("b",)
            assert kubelet.violations == []

    asyncio.run(run())


def test_death_ends_what_runs(tmp_path: Path) -> None:
    """A kubelet that dies ends the Allocate in flight and a Register that hangs; both fail, the plugin notices."""

    async def run() -> None:
        async with running(tmp_path) as kubelet:
            plugin, slow = TinyPlugin(), TinyPlugin()
            slow.gate.clear()
            async with (
                registered(kubelet, plugin, {"a": "Healthy"}),
                serving(slow, kubelet.plugin_dir / "s"),
            ):
                plugin.gate.clear()
                admission = asyncio.create_task(kubelet.allocate(RESOURCE))
                attempt = asyncio.create_task(register(kubelet, "s", "devd.io/slow"))
                await eventually(lambda: bool(plugin.allocated and slow.calls), "both calls under way")
                await kubelet.stop()
                with pytest.raises(AdmissionError):
                    await admission
                with pytest.raises(grpc.aio.AioRpcError):
                    await attempt
                await eventually(lambda: bool(plugin.cancelled and slow.cancelled), "both calls cancelled")
                assert kubelet.allocations == ()

    asyncio.run(run())


def test_wait_for_is_woken_and_ends(tmp_path: Path) -> None:
    """wait_for returns the seconds a change took, and when none comes says what was waited for and how things stand."""

    async def run() -> None:
        async with running(tmp_path) as kubelet:
            plugin = TinyPlugin()
            async with registered(kubelet, plugin, {"a": "Healthy"}):
                waiting = asyncio.create_task(kubelet.wait_for(lambda: kubelet.allocatable(RESOURCE) == 0, DEADLINE_S))
                plugin.send({"a": "Unhealthy"})
                assert 0 <= await waiting < DEADLINE_S
                with pytest.raises(TimeoutError, match=r"not within 0\.05 s: two devices; .*'a': 'Unhealthy'"):
                    await kubelet.wait_for(lambda: kubelet.capacity(RESOURCE) == 2, 0.05, "two devices")

    asyncio.run(run())


def test_starting_twice_is_an_error(tmp_path: Path) -> None:
    """One object is one kubelet: a second start says so, a second stop is fine."""

    async def run() -> None:
        async with running(tmp_path) as kubelet:
            with pytest.raises(RuntimeError, match="runs already"):
                await kubelet.start()
            await kubelet.stop()
            await kubelet.stop()
            assert not kubelet.running

    asyncio.run(run())


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    """Twenty lives, with plugins that hang in every call and both ways in, leave no task and no descriptor."""

    async def life(kubelet: StubKubelet, number: int) -> None:
        plugin, hung = TinyPlugin(), TinyPlugin()
        registrar = TinyRegistrar()
        registrar.gate.clear()
        hung.gate.clear()
        await kubelet.start()
        async with (
            serving(hung, tmp_path / "r" / f"w{number}", registrar),
            serving(hung, kubelet.plugin_dir / "h"),
            registered(kubelet, plugin, {"a": "Healthy"}),
        ):
            plugin.gate.clear()
            calls = [
                asyncio.create_task(kubelet.allocate(RESOURCE, pod="p")),
                asyncio.create_task(register(kubelet, "h", "devd.io/hung")),
                asyncio.create_task(kubelet.pre_start(RESOURCE, ["a"])),
            ]
            await eventually(
                lambda: bool(plugin.allocated and plugin.pre_started and hung.calls), "all calls under way"
            )
            await kubelet.stop()
            await asyncio.gather(*calls, return_exceptions=True)
        await has(kubelet, {"a": "Unhealthy"})
        await eventually(lambda: asyncio.all_tasks() == {asyncio.current_task()}, "no task is left")

    async def run() -> None:
        kubelet = StubKubelet(tmp_path / "dp", tmp_path / "r", tmp_path / "pr" / "s", timing=FAST)
        await life(kubelet, 0)
        before = len(descriptors())
        for number in range(1, 20):
            await life(kubelet, number)
        # gRPC's core closes its connections in threads of its own, a little later.
        await eventually(lambda: len(descriptors()) <= before, f"{before} descriptors, as after the first life")

    asyncio.run(run())
