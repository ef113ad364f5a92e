"""Real workers of a real fork server: what their sandboxes come to, and what one that was taken over gets."""

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from devd.daemon.demo.rig import Rig
from devd.ipc.messages import Device, Node, Reset
from tests.faults.worlds import SIM, sim, until
from tests.support.forkbench import ForkBench, Worker

NULL = Device("null", (Node("/dev/null", "char", 1, 3),), {"sysfs": "/sys/devices/virtual/mem/null"})
PYTHON = "/usr/bin/python3"
IS_ROOT = os.geteuid() == 0


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[ForkBench]:
    with ForkBench(tmp_path / "run") as one:
        yield one


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _begin(bench: ForkBench, **spec: object) -> Worker:
    worker = bench.fork(bench.spec("null", target=NULL, **spec))
    bench.until_verdict("null")
    bench.until(lambda: bool(worker.hellos))
    return worker


@pytest.mark.parametrize(
    "probe",
    [
        {"kind": "exists"},
        {"kind": "open", "mode": "rw"},
        {"kind": "sysfs", "attribute": "uevent", "matches": "DEVNAME=null"},
        {"kind": "exec", "command": ["true"]},
        {"kind": "sim"},
    ],
    ids=lambda probe: str(probe["kind"]),
)
def test_each_probe_works_in_its_sandbox(bench: ForkBench, probe: dict[str, object]) -> None:
    """Every kind of probe passes, and what the worker says of its sandbox is what the kernel says."""
    worker = _begin(bench, probe=probe)
    assert bench.verdicts("null")[-1].verdict == "pass", bench.verdicts("null")[-1].reason
    active = worker.hellos[0].sandbox.active
    for task in Path(f"/proc/{worker.pid}/task").iterdir():
        status = _status(int(task.name))
        assert status["CapPrm"] == status["CapEff"] == status["CapAmb"] == "0" * 16 or "capabilities" not in active
        assert (status["Seccomp"] == "2") == ("seccomp" in active)
        assert status["NoNewPrivs"] == "1"
        own_uid = len(set(status["Uid"].split())) == 1 and status["Uid"].split()[0] != str(os.getuid())
        assert own_uid == ("identity" in active)


def test_missing_layers_say_why(bench: ForkBench) -> None:
    """A sandbox is full, or names each layer it lacks with the reason; an ordinary user's lacks the uid."""
    sandbox = _begin(bench).hellos[0].sandbox
    assert (sandbox.level == "full") == (not sandbox.missing)
    assert not set(sandbox.active) & set(sandbox.missing)
    if not IS_ROOT:
        assert sandbox.level in {"partial", "basic"}
        assert sandbox.missing["identity"] == "EPERM: only root can give a worker a uid of its own"


def test_uid_of_the_spec_is_the_workers(bench: ForkBench) -> None:
    """The uid that the front hands out is what the worker runs under, with its own group and no others."""
    if not IS_ROOT:
        pytest.skip("only root can give a worker a uid of its own")
    worker = _begin(bench, sandbox={"uid": 1_900_000_001})
    status = _status(worker.pid)
    assert set(status["Uid"].split()) == set(status["Gid"].split()) == {"1900000001"}
    assert status["Groups"] == ""


def test_uid_is_not_changed_where_nobody_could_end_the_worker(tmp_path: Path) -> None:
    """Without CAP_KILL a worker keeps the front's uid, and says why: one that hangs has to be killed."""
    if not IS_ROOT or shutil.which("setpriv") is None:
        pytest.skip("takes root and setpriv to give one capability up")
    with ForkBench(tmp_path / "run", server_prefix=["setpriv", "--bounding-set=-kill", "--inh-caps=-kill"]) as bench:
        worker = _begin(bench)
        missing = worker.hellos[0].sandbox.missing
        assert missing["identity"] == "EPERM: without CAP_KILL devd could not end a worker of another uid"
        status = _status(worker.pid)
        assert (status["CapPrm"], set(status["Uid"].split())) == ("0" * 16, {"0"})


def test_required_sandbox_that_lacks_a_layer_touches_nothing(bench: ForkBench, tmp_path: Path) -> None:
    """Where all layers are required and one cannot be, neither probe nor reset run, and the reason names the layer."""
    mark = tmp_path / "touched"
    command = {"kind": "exec", "command": ["touch", str(mark)]}
    options = {"required": True, "write": [str(tmp_path)], "cgroup": str(tmp_path / "no-such-group")}
    worker = bench.fork(bench.spec("null", target=NULL, probe=command, reset=command, sandbox=options))
    verdict = bench.until_verdict("null")
    assert verdict.verdict == "fail"
    assert "the sandbox is required and lacks cgroup (ENOENT: No such file or directory)" in verdict.reason
    bench.send(worker, Reset(1, 1.0))
    bench.until(lambda: bool(worker.resets))
    assert not worker.resets[0].ok
    assert not mark.exists()


def test_node_made_anew_gets_a_new_worker(bench: ForkBench, tmp_path: Path) -> None:
    """A worker whose node was replaced by one with the same numbers ends, saying so: the next one's rules fit."""
    path = tmp_path / "node"
    if not IS_ROOT:
        pytest.skip("only root makes device nodes")
    try:
        os.mknod(path, 0o20666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("no device nodes can be made here")
    target = Device("null", (Node(str(path), "char", 1, 3),))
    spec = bench.spec("null", probe={"kind": "open"}, target=target, period_s=0.05)
    worker = bench.fork(spec)
    assert bench.until_verdict("null").verdict == "pass"
    path.rename(tmp_path / "old")
    os.mknod(path, 0o20666, os.makedev(1, 3))
    bench.until(lambda: worker.exit is not None)
    assert "was made anew since this worker began" in worker.words()
    assert "Traceback" not in worker.words()


def test_worker_holds_nothing_of_others(bench: ForkBench) -> None:
    """A worker was left no file, directory, terminal or namespace: pipes, its two connections, its own device."""
    worker = _begin(bench, probe={"kind": "open", "mode": "rw"})
    folder = Path(f"/proc/{worker.pid}/fd")
    if not os.access(folder, os.R_OK):
        pytest.skip("a worker is undumpable: only root sees what it has open")
    found = {str(one.readlink()) for one in folder.iterdir()}
    others = [one for one in found if not one.startswith(("pipe:", "socket:", "anon_inode:[event"))]
    assert found
    assert set(others) <= {"/dev/null"}


def test_setuid_program_gives_nothing(bench: ForkBench, tmp_path: Path) -> None:
    """A command that runs a program of root's with the setuid bit stays who it is."""
    program = shutil.which("id")
    if not IS_ROOT or program is None or shutil.which("setpriv") is None:
        pytest.skip("takes root to make one, id and setpriv")
    tmp_path.chmod(0o755)
    copy = tmp_path / "id-of-root"
    shutil.copy(program, copy)
    copy.chmod(0o4755)
    free = subprocess.run(["setpriv", "--reuid=65534", str(copy), "-u"], capture_output=True, text=True, check=False)
    if free.stdout.strip() != "0":
        pytest.skip("setuid means nothing on this file system")
    probe = {"kind": "exec", "command": ["sh", "-c", f'test "$({copy} -u)" -gt 0']}
    bench.fork(bench.spec("null", probe=probe, target=NULL, sandbox={"read": [str(tmp_path)]}))
    verdict = bench.until_verdict("null")
    assert verdict.verdict == "pass", verdict.reason


def _script(tries: str) -> dict[str, object]:
    """Return a probe whose command tries something in Python and exits 0 only if that was refused."""
    code = f"import os, socket, sys\ntry:\n    {tries}\nexcept PermissionError:\n    sys.exit(0)\nsys.exit('it worked')"
    return {"kind": "exec", "command": [PYTHON, "-c", code]}


@pytest.mark.skipif(not Path(PYTHON).exists(), reason=f"needs {PYTHON}, which a worker of any uid can run")
@pytest.mark.parametrize("which", ["kubelet", "control", "health", "other-channel"])
def test_command_cannot_connect_to(bench: ForkBench, tmp_path: Path, which: str) -> None:
    """A worker's command gets no connection: not to the kubelet, the control socket, the bus or another's channel."""
    _begin(bench)
    channel = next(iter(bench.layout.commands.iterdir()))
    path = {
        "kubelet": tmp_path / "kubelet.sock",
        "control": bench.layout.control,
        "health": bench.layout.health,
        "other-channel": channel,
    }[which]
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        if which in {"kubelet", "control"}:
            listener.bind(str(path))
            listener.listen(4)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as allowed:
            allowed.connect(str(path))  # the test itself may
        probe = _script(f"socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).connect({str(path)!r})")
        bench.fork(bench.spec("taken-over", probe=probe, target=NULL, timeout_s=10.0))
        verdict = bench.until_verdict("taken-over")
    path.unlink(missing_ok=True)
    assert verdict.verdict == "pass", verdict.reason


@pytest.mark.skipif(not Path(PYTHON).exists(), reason=f"needs {PYTHON}, which a worker of any uid can run")
def test_command_cannot_write_but_where_it_was_allowed(bench: ForkBench, tmp_path: Path) -> None:
    """A path the operator adds can be written; the folder beside it cannot."""
    allowed, beside = tmp_path / "allowed", tmp_path / "beside"
    for folder in (allowed, beside):
        folder.mkdir()
    tmp_path.chmod(0o711)
    command = {"kind": "exec", "command": ["sh", "-c", f"echo x > {allowed}/x && ! echo x > {beside}/x"]}
    bench.fork(bench.spec("null", probe=command, target=NULL, sandbox={"write": [str(allowed)]}))
    verdict = bench.until_verdict("null")
    assert verdict.verdict == "pass", verdict.reason
    assert [one.name for one in (*allowed.iterdir(), *beside.iterdir())] == ["x"]


TRAITOR = "test.devd.io/traitor"
TRAITORS_PACKAGE = Path(__file__).parents[1] / "support" / "traitor"


@pytest.mark.parametrize("connection", ["health", "command"])
def test_word_about_another_device_by_hand_ends_its_sender(connection: str) -> None:
    """Frames of ZeroMQ's protocol that a worker writes itself, in another's name, are refused, and it is ended."""
    config = f"""{sim("[{name: well}]")}
  - name: {TRAITOR}
    driver: traitor
    match: {{whom: well, on: {connection}}}
    probe: {{period: 200ms, timeout: 2s}}
"""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 1)
        kills = await rig.journal_has("traitor", "kill", 1)
        assert "spoke for 'well'" in kills[0]["detail"]
        if connection == "health":
            assert rig.status()["daemon"]["counters"]["health_refused"].get("spoof", 0) >= 1
        probes = rig.device("well")["last_probe"]["at"]
        await until(lambda: rig.device("well")["last_probe"]["at"] > probes, "a probe of the neighbour")
        assert [health for _at_s, health in rig.turns(SIM, "well")] == ["Healthy"]
        assert rig.device("well")["restarts"] == 0

    async def run() -> None:
        rig = Rig(config)
        rig.environment["PYTHONPATH"] = str(TRAITORS_PACKAGE)
        async with rig:
            await play(rig)

    asyncio.run(run())
