"""Socket mode against the strict kubelet: registering, the list, and every way a registration can end."""

import asyncio
import shutil
import time
from functools import partial
from pathlib import Path

import pytest

from devd.daemon.demo.kubelet import StubKubelet
from devd.daemon.endpoint import ResourceEndpoint
from devd.daemon.endpoint_state import Timing
from devd.daemon.errors import AlreadyRunningError, StartupError
from devd.daemon.plugin_server import socket_path
from tests.kubelet.endpoint_support import (
    DEADLINE_S,
    MemoryView,
    Paths,
    descriptors,
    endpoint,
    eventually,
    healthy,
    kubelet,
    make_paths,
    run_alone,
    sockets,
)

BACK_S = 10.0
"""How soon every device must be back after a kubelet's restart: well under 1 s is usual, this is for a busy machine."""


def registered(ours: ResourceEndpoint, number: int) -> bool:
    """Return whether that many registrations were accepted, and the last one stands."""
    return ours.status.registrations == number and ours.status.state == "registered"


def taken_in(stub: StubKubelet, view: MemoryView, number: int) -> bool:
    """Return whether the kubelet has taken in that many registrations."""
    return len(stub.resources[view.name].registered_at_s) >= number


async def counted(stub: StubKubelet, view: MemoryView, what: str, timeout_s: float = DEADLINE_S) -> float:
    """Wait until the kubelet counts every device of the view healthy."""
    return await stub.wait_for(lambda: healthy(stub, view), timeout_s, what)


def test_serves_registers_and_keeps_the_kubelet_up_to_date(tmp_path: Path) -> None:
    """The kubelet gets options, the list and its changes; one registration, one stream; the status tells it."""
    paths, view = make_paths(tmp_path), MemoryView()

    async def scene() -> None:
        async with kubelet(paths) as stub, endpoint(view, paths) as ours:
            await counted(stub, view, "first list")
            await eventually(lambda: ours.status.stream_open, "the status says so")
            await eventually(partial(registered, ours, 1), "the answer to Register, which may come after the list")
            state = stub.resources[view.name]
            assert state.options is not None
            assert (state.options.pre_start_required, state.options.get_preferred_allocation_available) == (True, True)
            view.set("a", healthy=False)
            await stub.wait_for(lambda: state.healthy == {"b"}, DEADLINE_S, "a is Unhealthy")
            got = await stub.allocate(view.name, 1)
            assert got.ids == ("b",)
            assert await stub.pre_start(view.name, got.ids) is not None
            status = ours.status
            assert (status.mode, status.state, status.registrations) == ("socket", "registered", 1)
            assert (status.last_error, status.socket.parent) == ("", paths.dir)
            assert len(state.registered_at_s) == 1
            assert len({one.stream for one in state.lists}) == 1

    asyncio.run(scene())


def test_kubelet_that_restarts_20_times_gets_every_device_back(tmp_path: Path) -> None:
    """Killed and started 20 times, each time the devices are back, by events, without a violation."""
    paths, view = make_paths(tmp_path), MemoryView()

    async def scene() -> list[float]:
        async with kubelet(paths) as stub, endpoint(view, paths):
            await counted(stub, view, "first list")
            times = []
            for number in range(20):
                await stub.restart()
                times.append(await counted(stub, view, f"back after restart {number}", BACK_S))
            return times

    times = asyncio.run(scene())
    print(f"back after a restart: median {sorted(times)[10] * 1000:.0f} ms, worst {max(times) * 1000:.0f} ms")


def test_kubelet_that_stays_down_leaves_a_stale_socket_and_is_met_when_it_comes(tmp_path: Path) -> None:
    """While kubelet.sock refuses the status says so; the new kubelet is found by event, not at the next retry."""
    paths, view = make_paths(tmp_path), MemoryView()
    slow = Timing(backoff_s=30.0, backoff_max_s=30.0)

    async def scene() -> None:
        async with kubelet(paths) as stub:
            await stub.stop()
            assert stub.socket_path.is_socket()
            async with endpoint(view, paths, slow) as ours:
                await eventually(lambda: ours.status.state == "waiting for kubelet", "waits")
                await eventually(lambda: "Connection refused" in ours.status.last_error, "and says why")
                await stub.start()
                await counted(stub, view, "found", BACK_S)
                # The first list may be there before the answer to Register is.
                await eventually(lambda: ours.status.last_error == "", "nothing is wrong any more")

    asyncio.run(scene())


def test_no_kubelet_socket_at_all_is_waited_for(tmp_path: Path) -> None:
    """With an empty directory the endpoint serves and waits, and registers as soon as a kubelet comes."""
    paths, view = make_paths(tmp_path), MemoryView()

    async def scene() -> None:
        async with kubelet(paths, start=False) as stub, endpoint(view, paths, Timing(backoff_max_s=30.0)) as ours:
            await eventually(lambda: "kubelet.sock is not there" in ours.status.last_error, "says what is missing")
            assert len(sockets(paths.dir)) == 1
            await stub.start()
            await counted(stub, view, "found", BACK_S)

    asyncio.run(scene())


def test_directory_removed_and_made_again(tmp_path: Path) -> None:
    """The kubelet dies with its directory; both come back (five times), and so do the devices."""
    paths, view = make_paths(tmp_path), MemoryView()

    async def scene() -> None:
        async with kubelet(paths) as stub, endpoint(view, paths) as ours:
            for number in range(5):
                await counted(stub, view, f"devices, round {number}", BACK_S)
                await stub.stop()
                shutil.rmtree(paths.dir)
                await eventually(lambda: ours.status.state == "waiting for kubelet", "waits")
                await stub.start()
            await counted(stub, view, "devices at the end", BACK_S)

    asyncio.run(scene())


def test_directory_missing_at_the_start_is_waited_for(tmp_path: Path) -> None:
    """A kubelet that was never there is no error: the endpoint waits for the directory, and says so."""
    paths, view = Paths(tmp_path / "later" / "dp", tmp_path / "r"), MemoryView()

    async def scene() -> None:
        async with kubelet(paths, start=False) as stub, endpoint(view, paths, Timing(backoff_max_s=30.0)) as ours:
            await eventually(lambda: "is not there; the kubelet makes it" in ours.status.last_error, "says so")
            await stub.start()
            await counted(stub, view, "found", BACK_S)

    asyncio.run(scene())


def test_stream_the_kubelet_ended_is_replaced(tmp_path: Path) -> None:
    """The stream ends while the kubelet lives: each time a new registration follows, from a new socket, in order."""
    paths, view = make_paths(tmp_path), MemoryView()

    async def scene() -> None:
        async with kubelet(paths) as stub, endpoint(view, paths) as ours:
            await counted(stub, view, "first list")
            for number in range(5):
                stub.cancel_streams()
                await stub.wait_for(lambda: not healthy(stub, view), DEADLINE_S, "the loss shows")
                await counted(stub, view, f"back, round {number}")
            await eventually(lambda: ours.status.registrations == 6, "six registrations")

    asyncio.run(scene())


def test_own_socket_lost_while_the_kubelet_lives(tmp_path: Path) -> None:
    """Someone removes our socket: old stream ended first, then a new socket and one clean registration."""
    paths, view = make_paths(tmp_path), MemoryView()

    async def scene() -> None:
        async with kubelet(paths) as stub, endpoint(view, paths) as ours:
            for number in range(5):
                await counted(stub, view, f"devices, round {number}")
                await eventually(partial(registered, ours, number + 1), f"registration {number + 1}")
                ours.status.socket.unlink()
                await stub.wait_for(lambda: not healthy(stub, view), DEADLINE_S, "the old stream was ended")
            await counted(stub, view, "devices at the end")
            await eventually(partial(registered, ours, 6), "six registrations")

    asyncio.run(scene())


def test_own_socket_lost_while_registering(tmp_path: Path) -> None:
    """Our socket goes the moment the kubelet took us in, the answer maybe still on its way: no trap, it heals."""
    paths, view = make_paths(tmp_path), MemoryView()

    async def scene() -> None:
        async with kubelet(paths) as stub, endpoint(view, paths, Timing(backoff_max_s=0.1)) as ours:
            await counted(stub, view, "first list")
            for number in range(10):
                ours.status.socket.unlink(missing_ok=True)  # it may be on its way to the next one already
                taken = partial(taken_in, stub, view, len(stub.resources[view.name].registered_at_s) + 1)
                await stub.wait_for(taken, DEADLINE_S, f"round {number}")
            await counted(stub, view, "devices at the end")

    asyncio.run(scene())


def test_new_kubelet_socket_without_a_wipe(tmp_path: Path) -> None:
    """kubelet.sock is made anew but ours stays, its stream alive: that is ended, forgotten, and then we register."""
    paths, view = make_paths(tmp_path), MemoryView()
    # Long enough to be told from the time that either side's news take on a busy machine.
    slow = Timing(backoff_s=30.0, backoff_max_s=30.0, settle_s=1.0)
    aside = tmp_path / "aside"

    async def scene() -> None:
        async with kubelet(paths) as stub:
            stub.socket_path.rename(aside)
            async with endpoint(view, paths, slow) as ours:
                await eventually(lambda: "kubelet.sock is not there" in ours.status.last_error, "waits")
                aside.rename(stub.socket_path)
                await counted(stub, view, "found", BACK_S)
                # The list may be there before the answer to Register: an attempt that is cut short is not counted.
                await eventually(partial(registered, ours, 1), "the first registration")
                stub.socket_path.rename(aside)
                aside.rename(stub.socket_path)  # the same socket, but another file by its change time
                state = stub.resources[view.name]
                await stub.wait_for(lambda: not state.stream_alive, DEADLINE_S, "the old stream was ended")
                ended_s = time.monotonic()
                await counted(stub, view, "registered again", BACK_S)
                assert state.registered_at_s[-1] - ended_s > slow.settle_s * 0.5, "the kubelet had time to forget"
                await eventually(partial(registered, ours, 2), "two registrations")

    asyncio.run(scene())


def test_own_socket_lost_and_no_way_to_register_again_keeps_the_stream(tmp_path: Path) -> None:
    """With kubelet.sock gone too, a living stream is worth more than a socket: it goes on carrying lists."""
    paths, view = make_paths(tmp_path), MemoryView()

    async def scene() -> None:
        async with kubelet(paths) as stub, endpoint(view, paths) as ours:
            await counted(stub, view, "first list")
            await eventually(partial(registered, ours, 1), "the first registration")
            stub.socket_path.unlink()
            ours.status.socket.unlink()
            await asyncio.sleep(0.3)
            view.set("c", healthy=True)
            await counted(stub, view, "the list with c")
            assert ours.status.registrations == 1
            await stub.restart()
            await counted(stub, view, "registered with the next kubelet", BACK_S)

    asyncio.run(scene())


def test_two_endpoints_on_one_socket(tmp_path: Path) -> None:
    """The second one ends at once with AlreadyRunningError naming the holder; the first does not even notice."""
    paths, view = make_paths(tmp_path), MemoryView()

    async def scene() -> None:
        async with kubelet(paths) as stub, endpoint(view, paths) as ours:
            await counted(stub, view, "first list")
            with pytest.raises(AlreadyRunningError, match=r"pid \d+ \(.+\) serves there"):
                await run_alone(MemoryView(), paths)
            await asyncio.sleep(0.1)
            assert (ours.status.registrations, ours.status.stream_open) == (1, True)
            assert healthy(stub, view)

    asyncio.run(scene())


def test_path_that_cannot_be_made_is_a_startup_error(tmp_path: Path) -> None:
    """Something that is no socket in the way ends ``run`` with a StartupError naming it."""
    paths = make_paths(tmp_path)

    async def scene() -> None:
        socket_path(paths.dir, MemoryView().name).write_text("mine")
        with pytest.raises(StartupError, match="something else is in the way"):
            await run_alone(MemoryView(), paths)

    asyncio.run(scene())
    assert [one.read_text() for one in paths.dir.iterdir()] == ["mine"]


def test_stop_leaves_no_socket_task_or_descriptor(tmp_path: Path) -> None:
    """Stopped in the middle of everything, also of a PreStart that hangs, nothing is left, ten times over."""
    paths, view = make_paths(tmp_path), MemoryView()

    async def once(stub: StubKubelet) -> None:
        view.pre_start_gate = asyncio.Event()
        async with endpoint(view, paths):
            await counted(stub, view, "devices")
            hanging = asyncio.ensure_future(stub.pre_start(view.name, ["a"]))
            await eventually(lambda: len(view.pre_started) == 1, "the reset began")
        await asyncio.wait([hanging])
        assert hanging.exception() is not None
        view.pre_started.clear()
        assert sockets(paths.dir) == []

    async def scene() -> None:
        async with kubelet(paths) as stub:
            await once(stub)
            tasks, before = len(asyncio.all_tasks()), len(descriptors())
            for _ in range(10):
                await once(stub)
            await eventually(lambda: len(asyncio.all_tasks()) <= tasks, "no task is left")
            await eventually(lambda: len(descriptors()) <= before + 2, "no descriptor is left")

    asyncio.run(scene())
    assert view.subscribers == []


def test_bug_in_the_list_does_not_end_the_endpoint(tmp_path: Path) -> None:
    """A view that fails to list ends the stream with INTERNAL; the endpoint comes back and heals with the view."""
    paths, view = make_paths(tmp_path), MemoryView()

    async def scene() -> None:
        async with kubelet(paths) as stub, endpoint(view, paths):
            await counted(stub, view, "first list")
            view.bug = ValueError("odd row")
            view.tell()
            await stub.wait_for(lambda: not healthy(stub, view), DEADLINE_S, "the stream ended")
            view.bug = None
            await counted(stub, view, "back")

    asyncio.run(scene())
