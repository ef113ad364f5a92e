"""One process a wedged device, never more: also a command a worker left, and also under another id or resource."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from devd.daemon import proc
from devd.daemon.cli.render import render
from devd.daemon.demo.rig import Rig
from devd.daemon.device_state import BLANK
from devd.daemon.memory import Kept, WorkerMark, encode, here
from devd.ipc.messages import Node
from tests.faults.worlds import FILES, SIM, alive, answers, files, scenario, until
from tests.support.hungfuse import HungFile

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts a filesystem"),
]

OPEN = "{kind: open, period: 200ms, timeout: 500ms}"
EXEC = '{kind: exec, command: [/bin/cat, "{path}"], period: 200ms, timeout: 500ms}'
OTHER = "test.devd.io/other"
WELL = f"""
  - name: {SIM}
    driver: sim
    match: {{devices: [{{name: well}}]}}
    probe: {{kind: sim, period: 200ms, timeout: 500ms}}
"""


@pytest.fixture
def hung(tmp_path: Path) -> Iterator[HungFile]:
    """Mount a file whose open never returns."""
    try:
        made = HungFile(tmp_path / "mnt", "open")
    except PermissionError as error:
        pytest.skip(f"FUSE is not to be had here: {error}")
    with made:
        yield made


def in_the_call() -> set[int]:
    """Return the processes that hang in a FUSE server's answer, none of which may be asked for anything else."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and _hangs(entry):
            found.add(int(entry.name))
    return found


def _hangs(process: Path) -> bool:
    try:
        return (process / "wchan").read_text(encoding="utf-8") == "request_wait_answer"
    except OSError:
        return False


def listed(rig: Rig, resource: str) -> list[dict[str, Any]]:
    """Return a resource's devices."""
    return [one for one in rig.status()["devices"] if one["resource"] == resource]


async def the_device(rig: Rig) -> str:
    """Wait until the file is listed; return its id."""
    await until(lambda: answers(rig) and bool(listed(rig, FILES)), "the device")
    return str(listed(rig, FILES)[0]["id"])


async def probed_on(rig: Rig, times: int = 5) -> None:
    """Let time pass that counts: probes of the neighbour are the clock."""
    await until(lambda: rig.device("well")["last_probe"] is not None, "a probe of the neighbour")
    for _ in range(times):
        before = rig.device("well")["last_probe"]["at"]
        await until(partial(_probed_since, rig, before), "a probe of the neighbour")


def _probed_since(rig: Rig, at: str) -> bool:
    return str(rig.device("well")["last_probe"]["at"]) > at


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_command_that_a_worker_left_fences_its_device(hung: HungFile, number: int) -> None:
    """The worker of the last devd is gone, its command hangs: the next devd starts none, and names the command."""

    async def play(rig: Rig) -> None:
        name = await the_device(rig)
        await until(hung.hangs, "the call")
        worker = rig.device(name)["pid"]
        (command,) = hanging(hung)
        await until(lambda: rig.status()["daemon"]["counters"]["state"]["waiting"] == 0, "the disk has taken all")
        await rig.end_daemon(number)
        await until(lambda: not alive(worker), "the worker's end")
        rig.start_daemon()
        await until(lambda: answers(rig) and rig.device(name)["wedged"], "the fence")
        device = rig.device(name)
        assert (device["pid"], device["incarnation"]) == (command, 0)
        assert (
            f"process {command} (cat), which worker {worker} of an earlier devd left, still holds" in device["reason"]
        )
        await until(lambda: "uninterruptible sleep (D)" in rig.device(name)["reason"], "the look at it")
        await probed_on(rig)
        assert hanging(hung) == [command]
        assert not hung.hangs()
        hung.release()
        await until(lambda: rig.device(name)["incarnation"] > 0, "a worker of its own")
        assert not alive(command)

    scenario(files(hung.path, probe=EXEC, more=WELL), play)


def hanging(hung: HungFile) -> list[int]:
    """Return the processes that hang in this file's open."""
    return sorted(pid for pid in in_the_call() if _has(pid, hung.path))


def _has(pid: int, path: str) -> bool:
    """Return whether a command has the path on its command line: one that hangs in open(2) has it in reach."""
    return path.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_living_workers_command_is_named(hung: HungFile) -> None:
    """A command that SIGKILL cannot end fails each probe, with name, state and kernel stack; none runs beside it."""

    async def play(rig: Rig) -> None:
        name = await the_device(rig)
        await until(hung.hangs, "the call")
        (command,) = hanging(hung)
        seen = f"its process {command} (cat) is in uninterruptible sleep (D) in request_wait_answer, kernel stack"
        await until(lambda: seen in rig.device(name)["reason"], "the command")
        assert "hangs in the kernel" in rig.device(name)["reason"]
        await probed_on(rig)
        assert hanging(hung) == [command]
        assert rig.device(name)["incarnation"] == 1

    scenario(files(hung.path, probe=EXEC, more=WELL), play)


def test_dead_workers_command_is_named(hung: HungFile) -> None:
    """A worker is killed while its command hangs: the command is told, with its name, state and kernel stack."""

    async def play(rig: Rig) -> None:
        name = await the_device(rig)
        await until(hung.hangs, "the call")
        worker = rig.device(name)["pid"]
        (command,) = hanging(hung)
        os.kill(worker, signal.SIGKILL)
        await until(lambda: rig.device(name)["wedged"], "the fence")
        await until(lambda: f"process {command} (cat)" in rig.device(name)["reason"], "the command")
        reason = rig.device(name)["reason"]
        assert f"process {worker} is gone, what it started is left" in reason
        assert "in uninterruptible sleep (D) in request_wait_answer, kernel stack" in reason
        assert hanging(hung) == [command]
        hung.release()
        await until(lambda: rig.device(name)["incarnation"] > 1, "the next worker")

    scenario(files(hung.path, probe=EXEC, more=WELL), play)


@pytest.mark.parametrize("restart", [False, True], ids=["reload", "restart"])
@pytest.mark.parametrize("change", ["id", "resource"])
def test_node_is_fenced_under_whatever_name(hung: HungFile, change: str, restart: bool) -> None:  # noqa: FBT001 - by name
    """A configuration that gives a wedged node another id or resource starts no second process on it."""
    config = files(hung.path, probe=OPEN, more=WELL)
    renamed = config.replace(f'path: "{hung.path}"', f'groups: [{{name: foo, path: "{hung.path}"}}]')
    resource = FILES if change == "id" else OTHER
    renamed = renamed.replace(FILES, resource)

    async def play(rig: Rig) -> None:
        name = await the_device(rig)
        await until(lambda: rig.device(name)["wedged"], "the fence")
        old = rig.device(name)["pid"]
        assert hung.hangs()
        if restart:
            await until(lambda: rig.status()["daemon"]["counters"]["state"]["waiting"] == 0, "the disk has taken all")
            await rig.end_daemon()
        rig.config.write_text(renamed, encoding="utf-8")
        if restart:
            rig.start_daemon()
        else:
            await until(lambda: rig.status()["daemon"]["reloads"] == 1, "the new configuration")
        await until(lambda: answers(rig) and rig.device("well")["last_probe"] is not None, "the neighbour")
        await until(lambda: _scanned(rig, resource), "a scan")
        await probed_on(rig)
        assert alive(old)
        assert not hung.hangs(), "another process has touched it"
        assert {one["pid"] for one in rig.status()["devices"] if one["id"] in {name, "foo"}} <= {old}
        if change == "resource":
            (fence,) = rig.status()["daemon"]["fences"]
            assert (fence["device"], fence["pid"], fence["paths"]) == (name, old, [hung.path])
            shown = render(rig.status(), 200, colour=False, now_s=0.0)
            assert f"{name} is not listed: worker {old}" in " ".join(shown.split())
        hung.release()
        await until(lambda: not alive(old), "its end")
        await until(lambda: not rig.status()["daemon"]["fences"], "the end of the fence")

    scenario(config, play)


def _scanned(rig: Rig, resource: str) -> bool:
    """Return whether a resource's scout has ended a scan."""
    return any(one["name"] == resource and one["discovery"]["age_s"] is not None for one in rig.status()["resources"])


def test_numbers_of_a_node_count_and_not_its_path(tmp_path: Path) -> None:
    """The held node listed by another path, under another id: it is fenced, says by whom, and comes back."""
    node = tmp_path / "node"
    node.touch()
    who = node.stat()
    leader, ticks, left = leave_one_behind()
    mark = WorkerMark(leader, ticks, (Node("/dev/by-id/x", "other", who.st_dev, who.st_ino),), FILES)

    async def play(rig: Rig) -> None:
        await rig.healthy(FILES, 1)
        await rig.end_daemon()
        kept = Kept("x", replace(BLANK, worker=leader), mark)
        (rig.state_dir / "devices" / "x.json").write_bytes(encode(kept, here()))
        rig.start_daemon()
        await until(lambda: answers(rig) and bool(listed(rig, FILES)), "the device")
        (device,) = listed(rig, FILES)
        assert (device["pid"], device["incarnation"], device["wedged"]) == (left, 0, True)
        told = f"process {left} (sleep), which worker {leader} of an earlier devd left, still holds the device (as x)"
        assert told in device["reason"]
        await probed_on(rig)
        assert alive(left), "what is only thought to be a worker's was killed"
        assert listed(rig, FILES)[0]["incarnation"] == 0
        os.kill(left, signal.SIGKILL)
        await rig.healthy(FILES, 1)
        assert rig.status()["daemon"]["fences"] == []

    try:
        scenario(files(node, more=WELL), play)
    finally:
        with suppress(ProcessLookupError):
            os.kill(left, signal.SIGKILL)


def leave_one_behind() -> tuple[int, int, int]:
    """Start a session whose leader ends; return its pid and start, and the pid of what it leaves."""
    command = ["sh", "-c", "sleep 600 >/dev/null & echo $!; read end"]
    leader = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    assert leader.stdin is not None
    assert leader.stdout is not None
    left = int(leader.stdout.readline())
    ticks = proc.start_time_ticks(leader.pid)
    assert ticks is not None
    leader.communicate(b"end\n")
    return leader.pid, ticks, left


def test_process_of_another_that_had_the_number_is_no_fence(tmp_path: Path) -> None:
    """A group with the worker's number that was there before the worker is somebody else's."""
    (tmp_path / "node").touch()
    leader, ticks, left = leave_one_behind()
    mark = WorkerMark(leader, ticks + 100, (), FILES)

    async def play(rig: Rig) -> None:
        await rig.healthy(FILES, 1)
        name = listed(rig, FILES)[0]["id"]
        await rig.end_daemon()
        file = rig.state_dir / "devices" / f"{name}.json"
        file.write_bytes(encode(Kept(name, replace(BLANK, worker=leader), mark), here()))
        rig.start_daemon()
        await rig.healthy(FILES, 1)
        assert alive(left)
        assert rig.journal(name, "fenced") == []

    try:
        scenario(files(tmp_path / "node"), play)
    finally:
        os.kill(left, signal.SIGKILL)
