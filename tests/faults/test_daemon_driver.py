"""A driver with signals and resets of its own, a third party's: from its entry point to what the kubelet sees."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from devd.daemon.demo.kubelet_rules import ContainerStartError
from devd.daemon.demo.rig import Rig
from tests.faults.worlds import until

LAMPS = "test.devd.io/lamps"
PACKAGE = Path(__file__).parents[1] / "support" / "lamp"
UEVENT = Path("/sys/class/mem/null/uevent")


def lamp_config(room: Path, more: str = "", period: str = "200ms") -> str:
    """Return a configuration of one resource of lamps."""
    return f"""resources:
  - name: {LAMPS}
    driver: lamp
    match: {{room: "{room}"}}
    probe: {{period: {period}, timeout: 1s}}
    discovery: {{period: 500ms, linger: 1s}}
{more}"""


def put_lamp(room: Path, name: str) -> Path:
    """Put a lamp that shines into a room."""
    folder = room / name
    fresh = room.parent / f".{name}"
    fresh.mkdir(mode=0o755)
    (fresh / "light").write_text("on\n")
    (fresh / "flickers").write_text("5\n")
    os.mkfifo(fresh / "events")
    fresh.rename(folder)
    return folder


def tell(lamp: Path, name: str, text: str) -> None:
    """Have a lamp's file say something else at once: its worker may read it at any time, and never an empty one.

    The file stays the same one: what a worker may touch is known by its inode. So the text is only ever overwritten.
    """
    with (lamp / name).open("r+b", buffering=0) as file:
        file.write(f"{text}\n".encode())


def cause_uevent() -> None:
    """Have the kernel tell a change of a device of the subsystem that the driver named."""
    UEVENT.write_text("change")


def scenario(make: Callable[[Path], str], play: Callable[[Rig, Path], Awaitable[None]]) -> None:
    """Run one scenario in a room with one lamp; the kubelet must have nothing to complain about."""

    async def run() -> None:
        rig = Rig("resources: []")
        rig.root.chmod(0o755)
        room = rig.root / "room"
        room.mkdir(mode=0o755)
        put_lamp(room, "one")
        rig.environment["PYTHONPATH"] = str(PACKAGE)
        rig.config.write_text(make(room), encoding="utf-8")
        async with rig:
            await rig.healthy(LAMPS)
            await play(rig, room / "one")
            assert rig.kubelet.violations == []

    asyncio.run(run())


def test_signal_is_named_with_what_was_seen_and_what_to_do() -> None:
    """A bad signal makes the device Unhealthy under its name, reason and meaning; a good one makes it Healthy again."""

    async def play(rig: Rig, lamp: Path) -> None:
        tell(lamp, "light", "off")
        await rig.unhealthy(LAMPS)
        assert rig.device("one")["reason"] == "light: the light is off (the lamp is dark; change the bulb)"
        tell(lamp, "light", "on")
        await rig.healthy(LAMPS)

    scenario(lamp_config, play)


def test_status_shows_what_the_device_has_and_what_counts() -> None:
    """Signals offered and those that count, notes and properties stand in the status; what is missing is no fault."""

    async def play(rig: Rig, lamp: Path) -> None:
        del lamp
        await until(lambda: bool(rig.device("one")["signals"]), "the signals in the status")
        one = rig.device("one")
        assert one["signals"] == {
            "offered": ["light", "flickers", "dust"],
            "checked": ["light", "flickers"],
            "notes": {"colour": "warm white"},
        }
        assert one["properties"] == {"bulb": "E27"}

    scenario(lamp_config, play)


def test_signals_are_switched_by_name() -> None:
    """The configuration turns a signal on and another off; one that the driver does not have fails by name."""

    async def play(rig: Rig, lamp: Path) -> None:
        def switched(words: str) -> str:
            return lamp_config(lamp.parent).replace("timeout: 1s}", f"timeout: 1s, signals: {words}}}")

        rig.config.write_text(switched("{dust: true, light: false}"), encoding="utf-8")
        await rig.unhealthy(LAMPS)
        assert rig.device("one")["reason"] == "dust: grey (there is dust on it; wipe it)"
        rig.config.write_text(switched("{glow: true}"), encoding="utf-8")
        await until(
            lambda: "probe.signals.glow: unknown" in str(rig.journal("one", "crash")), "the wrong name's refusal"
        )

    scenario(lamp_config, play)


def test_event_does_not_wait_for_the_period() -> None:
    """What a driver is told of between two probes is at the kubelet at once, with an hour to the next probe."""

    async def play(rig: Rig, lamp: Path) -> None:
        tell(lamp, "light", "off")
        began_s = time.monotonic()
        with (lamp / "events").open("wb", buffering=0) as events:
            events.write(b"!")
        await rig.unhealthy(LAMPS)
        assert time.monotonic() - began_s < 60

    scenario(lambda room: lamp_config(room, period="1h"), play)


def test_baseline_outlives_worker_and_devd() -> None:
    """A counter that grew while no worker looked is a fault to the next worker, also of the next devd."""

    async def play(rig: Rig, lamp: Path) -> None:
        await until(lambda: bool(rig.device("one")["signals"]), "the first findings")
        pid = rig.device("one")["pid"]
        os.kill(pid, signal.SIGSTOP)
        tell(lamp, "flickers", "7")
        os.kill(pid, signal.SIGKILL)
        await rig.unhealthy(LAMPS)
        # On a busy machine the lease may run out before the next worker's first word.
        await until(lambda: "flickers grew by 2 (5 -> 7)" in rig.device("one")["reason"], "the next worker's reason")
        assert (await rig.end_daemon())[0] == 0
        rig.start_daemon()
        await until(lambda: "grew by 2" in rig.device("one")["reason"], "the reason after the restart")

    scenario(lamp_config, play)


def test_reset_that_works_is_a_new_baseline() -> None:
    """A driver's reset before a container starts; what its counters said before is over then."""

    async def play(rig: Rig, lamp: Path) -> None:
        held = await rig.kubelet.allocate(LAMPS)
        tell(lamp, "flickers", "9")
        await rig.unhealthy(LAMPS)
        assert "flickers grew by 4" in rig.device("one")["reason"]
        tell(lamp, "light", "off")
        assert await rig.kubelet.pre_start(LAMPS, held.ids) is not None
        await rig.healthy(LAMPS)
        assert (lamp / "light").read_text() == "on\n"

    scenario(lambda room: lamp_config(room, "    reset: {kind: driver, method: blind}\n"), play)


def test_operators_reset_is_a_new_baseline() -> None:
    """``devd reset`` forgives what the counters said before it, as a container's start does."""

    async def play(rig: Rig, lamp: Path) -> None:
        await until(lambda: bool(rig.device("one")["signals"]), "the first findings")
        tell(lamp, "flickers", "9")
        await rig.unhealthy(LAMPS)
        order = asyncio.to_thread(rig.order, "reset", "one")
        await order
        await rig.healthy(LAMPS)

    scenario(lambda room: lamp_config(room, "    reset: {kind: driver, method: blind}\n"), play)


def test_operator_has_the_counters_begin_anew() -> None:
    """Growth that is known is forgotten at the operator's word alone: a restart keeps it, ``--forget`` does not."""

    async def play(rig: Rig, lamp: Path) -> None:
        await until(lambda: bool(rig.device("one")["signals"]), "the first findings")
        tell(lamp, "flickers", "9")
        await rig.unhealthy(LAMPS)
        before = rig.device("one")["pid"]
        rig.order("restart", "one")
        await until(lambda: rig.device("one")["pid"] not in {None, before}, "the next worker")
        await until(lambda: "flickers grew by 4 (5 -> 9)" in rig.device("one")["reason"], "its word")
        rig.order("restart", "one", forget=True)
        await rig.healthy(LAMPS)
        assert rig.journal("one", "forgotten") != []
        tell(lamp, "flickers", "11")
        await rig.unhealthy(LAMPS)
        await until(lambda: "flickers grew by 2 (9 -> 11)" in rig.device("one")["reason"], "growth from then on")

    scenario(lamp_config, play)


def test_reset_is_refused_with_the_list_of_who_is_in_the_way() -> None:
    """A device that somebody uses is not reset: the worker cannot see other processes, the front tells it."""

    async def play(rig: Rig, lamp: Path) -> None:
        held = await rig.kubelet.allocate(LAMPS)
        tell(lamp, "light", "on ")
        user = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        try:
            with pytest.raises(ContainerStartError, match=r"one: .*refused") as caught:
                await rig.kubelet.pre_start(LAMPS, held.ids)
        finally:
            os.close(user)
        if os.geteuid() == 0:
            assert f"pid {os.getpid()}" in str(caught.value)
            assert "has /dev/fuse open" in str(caught.value)
        assert (lamp / "light").read_text() == "on \n"

    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("/dev/fuse may not be opened here")
    scenario(lambda room: lamp_config(room, "    reset: {kind: driver, method: rewire}\n"), play)


def test_driver_changed_beneath_its_worker_gets_a_new_worker() -> None:
    """What a process has loaded and no longer fits ends with the process; the device's next worker begins anew."""

    async def play(rig: Rig, lamp: Path) -> None:
        before = rig.device("one")["pid"]
        (lamp / "old").touch()
        await until(lambda: "changed beneath its worker" in str(rig.journal("one")), "the worker's last words")
        (lamp / "old").unlink()
        await rig.healthy(LAMPS)
        await until(lambda: rig.device("one")["pid"] not in {None, before}, "another worker")

    scenario(lamp_config, play)


def test_device_that_went_before_its_worker_began_is_told_in_a_line() -> None:
    """A worker that finds nothing of its device says what it looked for, and after a while lets another one look."""

    async def play(rig: Rig, lamp: Path) -> None:
        (lamp / "unscrewed").touch()
        rig.order("restart", "one")
        await rig.unhealthy(LAMPS)
        # The last probe shown, and what ends its lease on a busy machine, may still be the worker's before it.
        await until(lambda: rig.device("one")["reason"].startswith(f"begin with {lamp}: ENOENT"), "its verdict")
        (words, *_) = [str(one["stderr"]) for one in await rig.journal_has("one", "crash", 1)]
        assert "nothing was left of one when its worker began" in words
        assert "Traceback" not in words
        (lamp / "unscrewed").unlink()
        await rig.healthy(LAMPS)

    scenario(lamp_config, play)


def test_object_that_is_no_driver_is_refused_by_name() -> None:
    """An entry point that leads to something else is named in the status; other resources go on."""

    async def play(rig: Rig, lamp: Path) -> None:
        room = lamp.parent
        more = f"""  - name: test.devd.io/broken
    driver: broken
    match: {{room: "{room}"}}
"""
        rig.config.write_text(lamp_config(room, more), encoding="utf-8")
        await until(lambda: "is no DriverKind" in str(rig.journal("scout:test.devd.io/broken")), "the refusal")
        assert rig.device("one")["health"] == "Healthy"

    scenario(lamp_config, play)


@pytest.mark.skipif(not os.access(UEVENT, os.W_OK), reason="uevents may not be caused here")
def test_uevent_brings_the_next_scan_forward() -> None:
    """A device that no directory tells of is listed at the kernel's word, long before the next scan."""

    async def play(rig: Rig, lamp: Path) -> None:
        put_lamp(lamp.parent, "two")
        cause_uevent()
        await rig.healthy(LAMPS, 2)

    def slow(room: Path) -> str:
        return lamp_config(room).replace("period: 500ms", "period: 1h")

    scenario(slow, play)


@pytest.mark.skipif(not os.access(UEVENT, os.W_OK), reason="uevents may not be caused here")
def test_kernels_word_of_a_change_does_not_wait_for_the_period() -> None:
    """A uevent of a device that is listed has its worker probe at once, with an hour to the next probe and scan."""

    async def play(rig: Rig, lamp: Path) -> None:
        tell(lamp, "sysfs", "/sys/devices/virtual/mem/null")
        cause_uevent()
        await until(lambda: "sysfs" in rig.device("one")["properties"], "the device's directory in the status")
        tell(lamp, "light", "off")
        cause_uevent()
        await rig.unhealthy(LAMPS)
        tell(lamp, "light", "on ")
        cause_uevent()
        await rig.healthy(LAMPS)

    def slow(room: Path) -> str:
        (room / "one" / "sysfs").write_text("/sys/nowhere/that/can/change\n")
        return lamp_config(room, period="1h").replace("period: 500ms", "period: 1h")

    scenario(slow, play)
