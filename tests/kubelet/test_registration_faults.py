"""Socket mode against a kubelet that refuses, hangs, is late or forgets: bounded waits, no trap, and it heals."""

import asyncio
import logging
from pathlib import Path

import pytest

from devd.daemon.demo.kubelet import Behaviour, KubeletTiming
from devd.daemon.endpoint import ResourceEndpoint
from devd.daemon.endpoint_state import Timing
from devd.daemon.errors import RegistrationError
from devd.daemon.kubelet_watch import KubeletWatch
from devd.daemon.plugin_server import socket_path
from devd.daemon.registration import KubeletAbsentError, KubeletSilentError, register
from tests.kubelet.endpoint_support import (
    DEADLINE_S,
    LOG,
    MemoryView,
    endpoint,
    eventually,
    healthy,
    kubelet,
    make_paths,
    served,
)

QUICK = Timing(register_s=0.3, stream_s=0.3, refused_s=0.5, backoff_max_s=0.1)
WRONG_VERSION = 'requested API version "v9" is not supported by kubelet. Supported version is ["v1beta1"]'


def test_refused_for_now_is_tried_again_until_it_works(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A passing fault of the kubelet is retried with growing pauses, logged once, and over as soon as it is over."""
    paths, view = make_paths(tmp_path), MemoryView()

    async def scene() -> None:
        async with kubelet(paths) as stub:
            stub.behaviour = Behaviour(register_error="out of sorts")
            async with endpoint(view, paths, QUICK) as ours:
                await eventually(lambda: "out of sorts" in ours.status.last_error, "the refusal shows")
                assert ours.status.state == "registering"
                await asyncio.sleep(0.5)
                assert ours.status.registrations == 0
                stub.behaviour = Behaviour()
                await stub.wait_for(lambda: healthy(stub, view), DEADLINE_S, "registered in the end")

    with caplog.at_level(logging.WARNING, logger="devd.test"):
        asyncio.run(scene())
    assert [one.getMessage() for one in caplog.records].count(
        "devd.io/test: registering: the kubelet refused: out of sorts"
    ) == 1


@pytest.mark.parametrize(
    ("name", "behaviour", "text"),
    [
        ("devd.io/test", Behaviour(register_error=WRONG_VERSION), "not supported by kubelet"),
        ("kubernetes.io/test", Behaviour(), 'the ResourceName "kubernetes.io/test" is invalid'),
    ],
)
def test_configuration_error_is_told_once_and_retried_slowly(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, behaviour: Behaviour, text: str
) -> None:
    """Wrong version and bad name give "refused" with one error in the log, and no retry until the slow one."""
    paths, view = make_paths(tmp_path), MemoryView(name)

    async def scene() -> None:
        async with kubelet(paths) as stub:
            stub.behaviour = behaviour
            async with endpoint(view, paths, Timing(refused_s=30.0)) as ours:
                await eventually(lambda: ours.status.state == "refused", "refused")
                assert text in ours.status.last_error
                stub.behaviour = Behaviour()
                await asyncio.sleep(0.5)
                assert (ours.status.state, ours.status.registrations) == ("refused", 0)

    with caplog.at_level(logging.WARNING, logger="devd.test"):
        asyncio.run(scene())
    assert [one.levelname for one in caplog.records] == ["ERROR"]


def test_refused_resource_is_offered_to_the_next_kubelet_at_once(tmp_path: Path) -> None:
    """A kubelet restart (an upgrade, say) ends the slow pause; so does the slow retry itself."""
    paths, view = make_paths(tmp_path), MemoryView()

    async def scene() -> None:
        async with kubelet(paths) as stub:
            stub.behaviour = Behaviour(register_error=WRONG_VERSION)
            async with endpoint(view, paths, Timing(refused_s=30.0)) as ours:
                await eventually(lambda: ours.status.state == "refused", "refused")
                stub.behaviour = Behaviour()
                await stub.restart()
                await stub.wait_for(lambda: healthy(stub, view), DEADLINE_S, "the next kubelet took it")
            stub.behaviour = Behaviour(register_error=WRONG_VERSION)
            async with endpoint(view, paths, Timing(refused_s=0.3)) as ours:
                await eventually(lambda: ours.status.state == "refused", "refused")
                stub.behaviour = Behaviour()
                await stub.wait_for(lambda: healthy(stub, view), DEADLINE_S, "the slow retry")

    asyncio.run(scene())


def test_kubelet_that_hangs_in_register_is_given_up_and_comes_back(tmp_path: Path) -> None:
    """Unanswered Registers end by our deadline; when the kubelet wakes and takes up all of them, one clean stays."""
    paths, view = make_paths(tmp_path), MemoryView()

    async def scene() -> None:
        async with kubelet(paths) as stub:
            stub.behaviour = Behaviour(register_hang=True)
            async with endpoint(view, paths, QUICK) as ours:
                await eventually(lambda: "no answer to Register within 0.3 s" in ours.status.last_error, "deadline")
                await asyncio.sleep(0.5)
                stub.behaviour = Behaviour()
                await stub.wait_for(lambda: healthy(stub, view), DEADLINE_S, "registered")
                state = stub.resources[view.name]
                await eventually(lambda: state.streams_open == 1 and state.stream_alive, "one stream is left")
                view.set("c", healthy=True)
                await stub.wait_for(lambda: healthy(stub, view), DEADLINE_S, "and it is the one that counts")

    asyncio.run(scene())


def test_register_taken_up_late_is_replaced_by_a_clean_one(tmp_path: Path) -> None:
    """A kubelet acts on a Register we gave up, while we pause: its stream is ended before we register again."""
    paths, view = make_paths(tmp_path), MemoryView()

    async def scene() -> None:
        async with kubelet(paths) as stub:
            stub.behaviour = Behaviour(register_hang=True)
            async with endpoint(view, paths, Timing(register_s=1.0, backoff_s=30.0, backoff_max_s=30.0)) as ours:
                await eventually(lambda: "no answer to Register" in ours.status.last_error, "deadline")
                stub.behaviour = Behaviour()
                await eventually(lambda: ours.status.registrations == 1, "registered in order")
                await stub.wait_for(lambda: healthy(stub, view), DEADLINE_S, "devices")
                state = stub.resources[view.name]
                assert (len(state.registered_at_s), state.streams_open) == (2, 1)

    asyncio.run(scene())


def test_restart_ends_a_register_that_hangs(tmp_path: Path) -> None:
    """The next kubelet is not kept waiting for the deadline of a Register to the last one."""
    paths, view = make_paths(tmp_path), MemoryView()

    async def scene() -> None:
        async with kubelet(paths) as stub:
            stub.behaviour = Behaviour(register_hang=True)
            async with endpoint(view, paths, Timing(register_s=60.0)) as ours:
                await eventually(lambda: ours.status.state == "registering", "the attempt shows")
                stub.behaviour = Behaviour()
                await stub.stop()
                await stub.start()
                await stub.wait_for(lambda: healthy(stub, view), DEADLINE_S, "registered with the next one")

    asyncio.run(scene())


def test_slow_kubelet_is_waited_for(tmp_path: Path) -> None:
    """A Register answered late, but in time, is one registration and not two."""
    paths, view = make_paths(tmp_path), MemoryView()

    async def scene() -> None:
        async with kubelet(paths) as stub:
            stub.behaviour = Behaviour(register_delay_s=1.0)
            async with endpoint(view, paths):
                await stub.wait_for(lambda: healthy(stub, view), DEADLINE_S, "registered")
                assert len(stub.resources[view.name].registered_at_s) == 1

    asyncio.run(scene())


def test_kubelet_that_never_dials_back(tmp_path: Path) -> None:
    """Register fails after the kubelet's dial time; it is retried until the kubelet can dial."""
    paths, view = make_paths(tmp_path), MemoryView()

    async def scene() -> None:
        async with kubelet(paths, timing=KubeletTiming(dial_s=0.1)) as stub:
            stub.behaviour = Behaviour(dial_back=False)
            async with endpoint(view, paths, QUICK) as ours:
                await eventually(lambda: "failed to dial device plugin" in ours.status.last_error, "the kubelet's word")
                stub.behaviour = Behaviour()
                await stub.wait_for(lambda: healthy(stub, view), DEADLINE_S, "registered")

    asyncio.run(scene())


def test_registration_without_a_stream_is_not_believed(tmp_path: Path) -> None:
    """Register answered but no ListAndWatch in time: registered anew, on a fresh socket, until there is a stream."""
    paths, view = make_paths(tmp_path), MemoryView()

    async def scene() -> None:
        async with kubelet(paths) as stub:
            stub.behaviour = Behaviour(stream_hang=True)
            async with endpoint(view, paths, QUICK) as ours:
                await eventually(lambda: "opened no ListAndWatch in 0.3 s" in ours.status.last_error, "noticed")
                await eventually(lambda: ours.status.registrations >= 2, "registered again")
                stub.behaviour = Behaviour()
                await eventually(lambda: ours.status.stream_open and healthy(stub, view), "a stream in the end")
                view.set("c", healthy=True)
                await stub.wait_for(lambda: healthy(stub, view), DEADLINE_S, "and it carries lists")

    asyncio.run(scene())


def test_kubelet_that_ends_every_stream_is_not_stormed(tmp_path: Path) -> None:
    """Streams that end at once make the pauses grow: in two seconds a handful of registrations, not hundreds."""
    paths, view = make_paths(tmp_path), MemoryView()
    timing = Timing(stream_s=0.5, backoff_max_s=1.0)

    async def scene() -> int:
        async with kubelet(paths) as stub, endpoint(view, paths, timing) as ours:
            loop = asyncio.get_running_loop()
            end_s = loop.time() + 2.0
            while loop.time() < end_s:
                stub.cancel_streams()
                await asyncio.sleep(0.01)
            count = ours.status.registrations
            await stub.wait_for(lambda: healthy(stub, view), 2 * DEADLINE_S, "and it heals")
            return count

    assert 3 <= asyncio.run(scene()) <= 12


def test_register_tells_its_failures_apart(tmp_path: Path) -> None:
    """Nobody there, a stale file, a refusal and silence are different errors, each naming its place."""
    paths = make_paths(tmp_path)

    async def scene() -> None:
        with pytest.raises(KubeletAbsentError, match="No such file"):
            await register(paths.dir, "x.sock", "devd.io/test", DEADLINE_S)
        async with kubelet(paths, timing=KubeletTiming(dial_s=0.1)) as stub:
            with pytest.raises(RegistrationError, match="failed to dial"):
                await register(paths.dir, "x.sock", "devd.io/test", DEADLINE_S)
            stub.behaviour = Behaviour(register_hang=True)
            with pytest.raises(KubeletSilentError, match=r"kubelet\.sock: no answer to Register within 0\.1 s"):
                await register(paths.dir, "x.sock", "devd.io/test", 0.1)
            await stub.stop()
            with pytest.raises(KubeletAbsentError, match="Connection refused"):
                await register(paths.dir, "x.sock", "devd.io/test", DEADLINE_S)

    asyncio.run(scene())


def test_something_else_on_kubelet_sock_is_told(tmp_path: Path) -> None:
    """A server that knows no Registration service gives an error with its status, worth a retry."""
    paths = make_paths(tmp_path)

    async def scene() -> None:
        async with served(MemoryView(), paths.dir / "kubelet.sock"):
            with pytest.raises(RegistrationError, match="UNIMPLEMENTED") as caught:
                await register(paths.dir, "x.sock", "devd.io/test", DEADLINE_S)
            assert not caught.value.permanent

    asyncio.run(scene())


def test_many_resources_share_one_watch(tmp_path: Path) -> None:
    """Sixteen resources, one kubelet, three restarts: all come back each time."""
    paths = make_paths(tmp_path)
    views = [MemoryView(f"devd.io/r{number}", ids=(f"r{number}-a", f"r{number}-b")) for number in range(16)]
    assert len({socket_path(paths.dir, one.name) for one in views}) == len(views)

    async def scene() -> None:
        watch = KubeletWatch(paths.dir, log=LOG, poll_s=30.0)
        watch.start()
        endpoints = [ResourceEndpoint(one, paths, watch, log=LOG) for one in views]
        async with kubelet(paths) as stub, asyncio.TaskGroup() as group:
            for one in endpoints:
                group.create_task(one.run())
            for _ in range(4):
                took_s = await stub.wait_for(lambda: all(healthy(stub, one) for one in views), DEADLINE_S, "all back")
                print(f"16 resources back in {took_s * 1000:.0f} ms")
                await stub.restart()
            await stub.wait_for(lambda: all(healthy(stub, one) for one in views), DEADLINE_S, "all back")
            for one in endpoints:
                await one.stop()
        watch.close()

    asyncio.run(scene())
