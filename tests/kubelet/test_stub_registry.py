"""The stub kubelet's plugin watcher: what it finds, asks, tells, and what does not come back by itself."""

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path

import pytest

from devd.daemon.demo.kubelet import Behaviour, KubeletTiming, StubKubelet
from devd.proto.gen import pluginregistration_pb2 as pb
from tests.kubelet.stub_plugin import (
    FAST,
    RESOURCE,
    WIRE_ROUNDING,
    TinyPlugin,
    TinyRegistrar,
    eventually,
    has,
    never,
    running,
    serving,
    streams,
)

DEVICES = {"a": "Healthy"}
UNHEALTHY = {"a": "Unhealthy"}
Scene = Callable[[StubKubelet, TinyPlugin, TinyRegistrar], Coroutine[None, None, None]]


def play(tmp_path: Path, scene: Scene, timing: KubeletTiming = FAST) -> None:
    """Play a scene with a kubelet that watches ``tmp_path``/r, and a plugin with a registrar, served by the scene."""

    async def run() -> None:
        plugin = TinyPlugin()
        plugin.send(DEVICES)
        (tmp_path / "r").mkdir()
        async with running(tmp_path, timing, registry_dir=tmp_path / "r") as kubelet:
            await scene(kubelet, plugin, TinyRegistrar())

    asyncio.run(run())


def registrations(kubelet: StubKubelet) -> int:
    """Return how often the resource was registered."""
    return len(kubelet.resources[RESOURCE].registered_at_s) if RESOURCE in kubelet.resources else 0


def test_a_socket_is_found_asked_registered_and_told(tmp_path: Path) -> None:
    """GetInfo with 1 s, then dial and options, then the good news with 5 s, on the plugin's own socket."""

    async def scene(kubelet: StubKubelet, plugin: TinyPlugin, registrar: TinyRegistrar) -> None:
        async with serving(plugin, tmp_path / "r" / "p.sock", registrar):
            await has(kubelet, DEVICES)
            await eventually(lambda: registrar.told == [(True, "")], "the good news")
            asked_s, told_s = registrar.remaining_s
            assert asked_s is not None
            assert told_s is not None
            assert 0.5 < asked_s <= 1 * WIRE_ROUNDING
            assert 4 < told_s <= 5 * WIRE_ROUNDING
            assert plugin.calls == ["options"]
            assert kubelet.violations == []
            assert await never(kubelet, lambda: registrar.asked != 1 or plugin.streams_opened != 1)

    play(tmp_path, scene, KubeletTiming(reconcile_s=0.03))


def test_the_device_plugin_may_be_on_another_socket(tmp_path: Path) -> None:
    """An absolute endpoint is dialled instead of the socket that was found."""

    async def scene(kubelet: StubKubelet, plugin: TinyPlugin, registrar: TinyRegistrar) -> None:
        registrar.info.endpoint = f"{tmp_path}/elsewhere"
        async with serving(plugin, tmp_path / "elsewhere"), serving(None, tmp_path / "r" / "p.sock", registrar):
            await has(kubelet, DEVICES)

    play(tmp_path, scene)


def test_folders_are_watched_and_dots_are_not(tmp_path: Path) -> None:
    """Sockets in old, new and nested folders are found; a dot-prefixed socket and a plain file are not asked."""

    async def scene(kubelet: StubKubelet, plugin: TinyPlugin, registrar: TinyRegistrar) -> None:
        hidden = TinyRegistrar()
        (tmp_path / "r" / "file").write_text("no socket")
        (tmp_path / "r" / "new" / "deep").mkdir(parents=True)
        async with (
            serving(TinyPlugin(), tmp_path / "r" / ".hidden", hidden),
            serving(plugin, tmp_path / "r" / "new" / "deep" / "p", registrar),
        ):
            await has(kubelet, DEVICES)
            assert await never(kubelet, lambda: hidden.asked > 0)
            (tmp_path / "r" / "shown").hardlink_to(tmp_path / "r" / ".hidden")
            await eventually(lambda: hidden.asked > 0, "the shown socket is asked")

    play(tmp_path, scene)


@pytest.mark.parametrize(
    ("info", "text"),
    [
        (pb.PluginInfo(type="CSIPlugin", name=RESOURCE, supported_versions=["v1beta1"]), "no handler registered"),
        (pb.PluginInfo(type="DevicePlugin", name=RESOURCE, supported_versions=["v1"]), "not among plugin supported"),
        (
            pb.PluginInfo(type="DevicePlugin", name="x", supported_versions=["v1beta1"]),
            'the ResourceName "x" is invalid',
        ),
    ],
)
def test_a_wrong_plugin_is_told_and_asked_again(tmp_path: Path, info: pb.PluginInfo, text: str) -> None:
    """Wrong type, version or name: the plugin is told why, not dialled, and asked again; a corrected one is taken."""

    async def scene(kubelet: StubKubelet, plugin: TinyPlugin, registrar: TinyRegistrar) -> None:
        good = TinyRegistrar().info
        registrar.info = info
        async with serving(plugin, tmp_path / "r" / "p", registrar):
            await eventually(lambda: len(registrar.told) >= 2, "two refusals")
            registered, error = registrar.told[0]
            assert not registered
            assert error.startswith("RegisterPlugin error -- ")
            assert text in error
            assert not plugin.calls
            registrar.info = good
            await has(kubelet, DEVICES)

    play(tmp_path, scene)


def test_a_silent_plugin_is_asked_again(tmp_path: Path) -> None:
    """GetInfo has its deadline; a plugin that lets it pass is asked again, and taken once it answers."""

    async def scene(kubelet: StubKubelet, plugin: TinyPlugin, registrar: TinyRegistrar) -> None:
        registrar.gate.clear()
        async with serving(plugin, tmp_path / "r" / "p", registrar):
            await eventually(lambda: registrar.asked >= 2, "asked twice")
            registrar.gate.set()
            await has(kubelet, DEVICES)

    play(tmp_path, scene)


def test_a_socket_nobody_serves_is_dialled_again(tmp_path: Path) -> None:
    """A socket that does not answer is tried again until it does."""

    async def scene(kubelet: StubKubelet, plugin: TinyPlugin, registrar: TinyRegistrar) -> None:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(os.fspath(tmp_path / "r" / "p"))
        assert await never(kubelet, lambda: RESOURCE in kubelet.resources)
        async with serving(plugin, tmp_path / "r" / "p", registrar):
            await has(kubelet, DEVICES)

    play(tmp_path, scene)


def test_a_removed_socket_is_let_go_and_a_new_one_taken(tmp_path: Path) -> None:
    """Removing the file deregisters though the plugin still serves; making it anew registers again."""

    async def scene(kubelet: StubKubelet, plugin: TinyPlugin, registrar: TinyRegistrar) -> None:
        path, aside = tmp_path / "r" / "p", tmp_path / "aside"
        async with serving(plugin, path, registrar):
            await has(kubelet, DEVICES)
            aside.hardlink_to(path)
            path.unlink()
            await has(kubelet, UNHEALTHY)
            await streams(kubelet, 0)
            path.hardlink_to(aside)
            await has(kubelet, DEVICES)
            assert registrations(kubelet) == 2
            assert kubelet.violations == []

    play(tmp_path, scene)


def test_a_socket_made_anew_between_two_looks_is_noticed(tmp_path: Path) -> None:
    """Removed and made again at once, faster than the loop looks, it is registered again all the same."""

    async def scene(kubelet: StubKubelet, plugin: TinyPlugin, registrar: TinyRegistrar) -> None:
        path, aside = tmp_path / "r" / "p", tmp_path / "aside"
        async with serving(plugin, path, registrar):
            await has(kubelet, DEVICES)
            aside.hardlink_to(path)
            path.unlink()
            path.hardlink_to(aside)
            await kubelet.wait_for(lambda: registrations(kubelet) == 2, 5)
            await has(kubelet, DEVICES)

    play(tmp_path, scene)


def test_a_stream_that_ends_does_not_come_back(tmp_path: Path) -> None:
    """The stream ended while the socket file stays: the devices are unhealthy, and nobody asks again."""

    async def scene(kubelet: StubKubelet, plugin: TinyPlugin, registrar: TinyRegistrar) -> None:
        async with serving(plugin, tmp_path / "r" / "p", registrar):
            await has(kubelet, DEVICES)
            plugin.end_stream()
            await has(kubelet, UNHEALTHY)
            assert await never(kubelet, lambda: registrations(kubelet) > 1 or registrar.asked > 1)

    play(tmp_path, scene)


def test_a_registration_that_fails_is_not_tried_again(tmp_path: Path) -> None:
    """When dial or options fail the plugin is told, and only a new socket file is asked again."""

    async def scene(kubelet: StubKubelet, plugin: TinyPlugin, registrar: TinyRegistrar) -> None:
        path, aside = tmp_path / "r" / "p", tmp_path / "aside"
        kubelet.behaviour = Behaviour(register_error="go away")
        async with serving(plugin, path, registrar):
            await eventually(lambda: bool(registrar.told), "the refusal")
            assert registrar.told == [(False, "RegisterPlugin error -- plugin registration failed with err: go away")]
            kubelet.behaviour = Behaviour()
            assert await never(kubelet, lambda: registrar.asked > 1)
            aside.hardlink_to(path)
            path.unlink()
            path.hardlink_to(aside)
            await has(kubelet, DEVICES)

    play(tmp_path, scene, replace(FAST, notify_s=5.0))


def test_a_plugin_that_does_not_listen_to_the_news_stays_registered(tmp_path: Path) -> None:
    """NotifyRegistrationStatus has its deadline; that it passes changes nothing about the registration."""

    async def scene(kubelet: StubKubelet, plugin: TinyPlugin, registrar: TinyRegistrar) -> None:
        registrar.notify_gate.clear()
        async with serving(plugin, tmp_path / "r" / "p", registrar):
            await has(kubelet, DEVICES)
            assert await never(kubelet, lambda: registrar.asked > 1 or kubelet.allocatable(RESOURCE) != 1)

    play(tmp_path, scene)


def test_a_restarted_kubelet_registers_by_itself(tmp_path: Path) -> None:
    """Over a restart the registry is not wiped, and its plugins are asked and registered again unasked."""

    async def scene(kubelet: StubKubelet, plugin: TinyPlugin, registrar: TinyRegistrar) -> None:
        path = tmp_path / "r" / "p"
        async with serving(plugin, path, registrar):
            await has(kubelet, DEVICES)
            inode = path.lstat().st_ino
            await kubelet.restart()
            assert path.lstat().st_ino == inode
            assert kubelet.capacity(RESOURCE) == 0
            await has(kubelet, DEVICES)
            assert registrations(kubelet) == 2
            assert kubelet.violations == []

    play(tmp_path, scene)
