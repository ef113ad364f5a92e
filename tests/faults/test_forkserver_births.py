"""Births through a real fork server: what a child is, what it inherits, and what happens when there can be none."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from devd.ipc.messages import Device, Node, Stop
from tests.support.forkbench import ForkBench, Worker, alive, until
from tests.support.unprivileged import unprivileged


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[ForkBench]:
    with ForkBench(tmp_path / "run") as one:
        yield one


def _descriptors(pid: int) -> dict[int, str]:
    found = {}
    for one in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            found[int(one.name)] = str(one.readlink())
    return found


def _idle_descriptors(bench: ForkBench) -> dict[int, str]:
    """Return the fork server's descriptors once the last answer's pidfd is closed, as it is after each answer."""
    until(lambda: "anon_inode:[pidfd]" not in _descriptors(bench.server.pid).values())
    return _descriptors(bench.server.pid)


def _status(pid: int, key: str) -> str:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return value.strip()
    raise AssertionError(f"no {key}")


def test_worker_says_hello_and_then_its_first_verdict(bench: ForkBench) -> None:
    """A worker says hello with its pid and sandbox, tells of the call it begins, and then of its verdict."""
    worker = bench.fork(bench.spec("sim0", incarnation=7))
    verdict = bench.until_verdict("sim0")
    bench.until(lambda: bool(worker.hellos))
    hello = worker.hellos[0]
    assert (hello.device, hello.incarnation, hello.pid) == ("sim0", 7, worker.pid)
    assert {"no_core", "limits", "oom_score", "nice", "no_new_privs", "undumpable"} <= set(hello.sandbox.active)
    first = bench.health["sim0"][0]
    assert (first.verdict, first.activity, first.probe_count) == ("none", "probe sim0", 0)
    assert (verdict.verdict, verdict.incarnation, verdict.probe_count, verdict.activity) == ("pass", 7, 1, "")
    assert [one.seq for one in bench.health["sim0"]] == list(range(1, len(bench.health["sim0"]) + 1))


def test_child_inherits_its_four_descriptors_only(bench: ForkBench) -> None:
    """A child has the null device, the front's pipe twice and its gate, whatever the fork server has open."""
    others = [bench.fork(bench.spec(f"other{number}"), open_gate=False) for number in range(3)]
    worker = bench.fork(bench.spec("sim0"), open_gate=False)
    until(lambda: len(_descriptors(worker.pid)) == 4)
    found = _descriptors(worker.pid)
    assert found[0] == "/dev/null"
    assert found[1] == found[2] == f"pipe:[{os.fstat(worker.stderr).st_ino}]"
    assert found[3] == f"pipe:[{os.fstat(worker.gate).st_ino}]"
    assert all(other.exit is None for other in others)


def test_child_leads_a_session_of_its_own_under_a_short_name(bench: ForkBench) -> None:
    """A child leads its session and group and has a name of at most 14 characters, with all signals at default."""
    worker = bench.fork(bench.spec("a-device-with-a-long-name"))
    bench.until_verdict("a-device-with-a-long-name")
    assert os.getsid(worker.pid) == os.getpgid(worker.pid) == worker.pid
    assert _status(worker.pid, "Name") == "devd-a-device-"
    assert int(_status(worker.pid, "SigBlk"), 16) == 0
    # glibc keeps two signals for itself (32, 33): how they stand is inherited from whoever started the tests.
    settable = sum(1 << number - 1 for number in signal.valid_signals())
    ignored = int(_status(worker.pid, "SigIgn"), 16) & settable
    assert ignored == 1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1
    assert _status(worker.pid, "NoNewPrivs") == "1"


def test_gate_that_closes_ends_a_worker_that_has_touched_nothing(bench: ForkBench, tmp_path: Path) -> None:
    """A child whose gate closes before a byte came exits 0 without hello and without its probe's side effect."""
    mark = tmp_path / "touched"
    probe = {"kind": "exec", "command": ["touch", str(mark)]}
    worker = bench.fork(bench.spec("sim0", probe=probe), open_gate=False)
    worker.close_gate()
    bench.until(lambda: worker.exit is not None)
    assert worker.exit is not None
    assert (worker.exit.code, worker.exit.signal) == (0, -1)
    assert not worker.hellos
    assert not mark.exists()
    assert worker.words() == ""


def test_64_workers_all_report(bench: ForkBench) -> None:
    """Sixty-four orders given at once become 64 processes that each report under their own name."""
    workers = [bench.order(bench.spec(f"sim{number}")) for number in range(64)]
    bench.until(lambda: all(worker.pid for worker in workers))
    for worker in workers:
        worker.open_gate()
    bench.until(lambda: all(bench.verdicts(worker.device) for worker in workers), 30)
    assert len({worker.pid for worker in workers}) == 64
    assert not bench.errors


def test_server_keeps_no_descriptor_of_its_children(bench: ForkBench) -> None:
    """After 50 births and deaths the fork server has the same descriptors open as before."""
    first = bench.fork(bench.spec("first"), open_gate=False)
    before = _idle_descriptors(bench)
    for number in range(50):
        worker = bench.fork(bench.spec(f"sim{number}"), open_gate=False)
        worker.close_gate()
    bench.until(lambda: sum(worker.exit is not None for worker in bench.workers.values()) == 50)
    assert _idle_descriptors(bench) == before
    assert first.exit is None


def test_end_of_the_front_ends_server_and_all_workers(bench: ForkBench) -> None:
    """When the front's socket closes, every worker is killed, gated or busy, and the fork server exits 0."""
    hang = {"kind": "sim", "script": [{"do": "hang"}]}
    workers = [bench.fork(bench.spec("gated"), open_gate=False)]
    workers += [bench.fork(bench.spec(f"hung{number}", probe=hang)) for number in range(3)]
    bench.until(lambda: all(bench.health[f"hung{number}"] for number in range(3)))
    bench.front.close()
    assert bench.server.wait(5) == 0
    assert all(worker.gone() for worker in workers)


def test_end_with_unread_answers_is_an_end_too(bench: ForkBench) -> None:
    """A front that goes away with answers unread (ECONNRESET on the server's side) ends the server like any other."""
    for number in range(5):
        bench.order(bench.spec(f"sim{number}"))
    bench.front.close()
    assert bench.server.wait(5) == 0


def test_nonsense_from_the_front_ends_the_server(bench: ForkBench) -> None:
    """A packet that is no frame ends workers and server with exit code 1 and a line that says so."""
    worker = bench.fork(bench.spec("sim0"))
    bench.front.send(b"nonsense")
    assert bench.server.wait(5) == 1
    assert worker.gone()


def test_server_ignores_the_terminals_signals(bench: ForkBench) -> None:
    """SIGINT and SIGTERM leave the fork server at work: the front decides when it ends."""
    bench.fork(bench.spec("before"))
    bench.server.send_signal(signal.SIGINT)
    bench.server.send_signal(signal.SIGTERM)
    bench.fork(bench.spec("after"))
    assert bench.until_verdict("after").verdict == "pass"


def test_server_never_loads_the_fronts_libraries() -> None:
    """Importing all a worker needs loads neither grpc nor asyncio, pydantic or yaml, and starts no thread."""
    code = (
        "import sys, os, devd.workers.forkserver;"
        "print([one for one in ('grpc', 'google.protobuf', 'asyncio', 'pydantic', 'yaml') if one in sys.modules],"
        "len(os.listdir('/proc/self/task')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] 1"


@pytest.mark.parametrize(
    ("room", "reason"),
    [(1, "1 of 2 descriptors arrived: the fork server is at its limit of open files"), (2, "pidfd_open: EMFILE")],
)
def test_server_out_of_descriptors_says_so(bench: ForkBench, room: int, reason: str) -> None:
    """A server at its limit of open files answers ForkFailed, leaves no child, and goes on once there is room."""
    bench.fork(bench.spec("first"))
    taken = _idle_descriptors(bench)
    free = [number for number in range(len(taken) + 3) if number not in taken]
    limits = resource.prlimit(bench.server.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(bench.server.pid, resource.RLIMIT_NOFILE, (free[room], limits[1]))
    refused = bench.fork(bench.spec("refused"))
    assert refused.failed.startswith(reason)
    resource.prlimit(bench.server.pid, resource.RLIMIT_NOFILE, limits)
    bench.fork(bench.spec("taken"))
    assert bench.until_verdict("taken").verdict == "pass"
    assert not bench.health["refused"]


def _limit_processes(prefix: list[str], pid: int, soft: int) -> None:
    """Set a process's limit of processes, by the same user: the superuser may lack CAP_SYS_RESOURCE."""
    code = f"import resource as r; hard = r.prlimit({pid}, r.RLIMIT_NPROC)[1]; "
    code += f"r.prlimit({pid}, r.RLIMIT_NPROC, ({soft} if {soft} >= 0 else hard, hard))"
    subprocess.run([*prefix, sys.executable, "-c", code], check=True)


def test_fork_that_fails_is_told_with_its_errno(tmp_path: Path) -> None:
    """A fork refused by the limit on processes becomes ForkFailed with EAGAIN, and the server goes on."""
    prefix = unprivileged()  # uid 0 is exempt from the limit
    with ForkBench(tmp_path / "run", server_prefix=prefix) as bench:
        gated = bench.fork(bench.spec("gated"), open_gate=False)
        _limit_processes(prefix, bench.server.pid, 1)
        refused = bench.fork(bench.spec("refused"))
        assert refused.failed.startswith("fork: EAGAIN (Resource temporarily unavailable)")
        _limit_processes(prefix, bench.server.pid, -1)
        assert bench.fork(bench.spec("taken"), open_gate=False).pid
        assert gated.exit is None


def test_bad_spec_says_what_is_wrong_and_exits_78(bench: ForkBench) -> None:
    """A spec nothing can be made of ends its worker with EX_CONFIG and one line, before it touches anything."""
    worker = bench.fork(bench.spec("sim0", probe={"kind": "telepathy"}))
    bench.until(lambda: worker.exit is not None)
    assert worker.exit is not None
    assert worker.exit.code == 78
    assert "sim0: probe.kind: 'telepathy' is unknown, allowed are exists" in worker.words()


def test_worker_of_a_deaf_front_ends_with_its_lifeline(bench: ForkBench) -> None:
    """A worker whose connections are never answered still ends when its lifeline does."""
    worker = bench.fork(bench.spec("sim0", health_endpoint="ipc:///nowhere/health.sock"))
    until(lambda: _status(worker.pid, "NoNewPrivs") == "1")
    worker.close_gate()
    bench.until(lambda: worker.exit is not None)
    assert worker.exit is not None
    assert worker.exit.signal == signal.SIGIO


def test_stop_of_one_leaves_the_others(bench: ForkBench) -> None:
    """A worker told to stop exits 0 and its process is gone, while its neighbour keeps its pid and its word."""
    target = Device("null", (Node("/dev/null", "char", 1, 3),))
    neighbour = bench.fork(bench.spec("null", probe={"kind": "open"}, target=target, period_s=0.05))
    worker: Worker = bench.fork(bench.spec("sim0"))
    bench.until_verdict("sim0")
    bench.send(worker, Stop())
    bench.until(lambda: worker.exit is not None)
    assert worker.exit is not None
    assert (worker.exit.code, worker.exit.signal) == (0, -1)
    assert not alive(worker.pid)
    bench.until_verdict("null", len(bench.verdicts("null")) + 2)
    assert neighbour.exit is None
