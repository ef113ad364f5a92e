"""Ends through a real fork server: every way a worker can end, and that nothing of it is left behind."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.forkbench import ForkBench, alive, until

LIFELINE_S = 10.0
"""Takes milliseconds; the rest is for a machine that is busy, where a worker is the last to get its turn. Nothing else
would end these workers for a minute."""
TOLD_S = 10.0
"""As above."""
COMMAND_S = 4.0
"""Enough for an interpreter to start and tell its pids, on such a machine too."""

HANG = {"kind": "sim", "script": [{"do": "hang"}]}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[ForkBench]:
    with ForkBench(tmp_path / "run") as one:
        yield one


@pytest.mark.parametrize(
    ("deed", "code", "number", "words"),
    [
        ("crash", -1, signal.SIGSEGV, "Fatal Python error: Segmentation fault"),
        ("segv", -1, signal.SIGSEGV, "Fatal Python error: Segmentation fault"),
        ("exit", 3, -1, ""),
        ("exception", 1, -1, "RuntimeError: the script of sim0 says so"),
    ],
)
def test_crash_is_told_with_its_end_and_last_words(
    bench: ForkBench, deed: str, code: int, number: int, words: str
) -> None:
    """Each kind of crash arrives as its exit code or signal, with the traceback on the worker's stderr."""
    worker = bench.fork(bench.spec("sim0", probe={"kind": "sim", "script": [{"do": deed}]}))
    bench.until(lambda: worker.exit is not None)
    assert worker.exit is not None
    assert (worker.exit.code, worker.exit.signal) == (code, number)
    assert worker.exit.max_rss_kib > 1000
    assert words in worker.words()
    assert not alive(worker.pid)


def test_killed_worker_is_told_at_once(bench: ForkBench) -> None:
    """SIGKILL through the pidfd in the middle of a probe comes back as ChildExit, quickly."""
    worker = bench.fork(bench.spec("sim0", probe=HANG))
    bench.until(lambda: bool(bench.health["sim0"]))
    began_s = time.monotonic()
    worker.kill()
    bench.until(lambda: worker.exit is not None)
    assert worker.exit is not None
    assert worker.exit.signal == signal.SIGKILL
    assert time.monotonic() - began_s < TOLD_S


@pytest.mark.parametrize("probe", [HANG, {"kind": "exec", "command": ["sleep", "1000"]}], ids=["sim", "exec"])
def test_lifeline_ends_a_worker_inside_a_call(bench: ForkBench, probe: dict[str, object]) -> None:
    """A worker stuck in a probe ends within a second of its gate's close, by SIGIO, without reaching its loop."""
    worker = bench.fork(bench.spec("sim0", probe=probe, timeout_s=60.0))
    bench.until(lambda: any(one.activity.startswith(("sim hang", "exec")) for one in bench.health["sim0"]))
    worker.close_gate()
    bench.until(lambda: worker.exit is not None, LIFELINE_S)
    assert worker.exit is not None
    assert worker.exit.signal == signal.SIGIO


def test_lifeline_ends_an_idle_worker(bench: ForkBench) -> None:
    """A worker that waits for its next period ends within a second of its gate's close."""
    worker = bench.fork(bench.spec("sim0"))
    bench.until_verdict("sim0")
    worker.close_gate()
    bench.until(lambda: worker.exit is not None, LIFELINE_S)


def _pids_in(path: Path) -> list[int]:
    return [int(one) for one in path.read_text().split()] if path.exists() else []


def _family(path: Path, *, own_session: bool) -> list[str]:
    """Return a command that starts a child, writes both pids, and waits for ever."""
    code = (
        "import os, sys, time, subprocess;"
        f"kid = subprocess.Popen(['sleep', '1000'], start_new_session={own_session});"
        f"open({str(path)!r} + '.new', 'w').write('%d %d' % (os.getpid(), kid.pid));"
        f"os.rename({str(path)!r} + '.new', {str(path)!r});"
        "time.sleep(1000)"
    )
    return [sys.executable, "-c", code]


@pytest.mark.parametrize("own_session", [False, True], ids=["same-group", "own-session"])
def test_killed_worker_takes_its_commands_family_along(bench: ForkBench, tmp_path: Path, *, own_session: bool) -> None:
    """When a worker is killed, its command and the command's own child end, even one in a session of its own."""
    path = tmp_path / "pids"
    probe = {"kind": "exec", "command": _family(path, own_session=own_session)}
    worker = bench.fork(bench.spec("sim0", probe=probe, timeout_s=60.0, sandbox={"write": [str(tmp_path)]}))
    bench.until(lambda: len(_pids_in(path)) == 2)
    pids = _pids_in(path)
    assert all(alive(pid) for pid in pids)
    worker.kill()
    bench.until(lambda: worker.exit is not None)
    if not own_session:  # what left the group is killed as well, but the report does not wait for it
        assert not any(alive(pid) for pid in pids)
    until(lambda: not any(alive(pid) for pid in pids))


def test_late_command_is_killed_with_its_family_and_told(bench: ForkBench, tmp_path: Path) -> None:
    """A command that outlives the timeout is killed, its child too, and the probe fails with what it printed."""
    path = tmp_path / "pids"
    probe = {"kind": "exec", "command": _family(path, own_session=True)}
    worker = bench.fork(bench.spec("sim0", probe=probe, timeout_s=COMMAND_S, sandbox={"write": [str(tmp_path)]}))
    verdict = bench.until_verdict("sim0")
    assert verdict.verdict == "fail"
    assert f"took longer than {COMMAND_S:g} s: killed" in verdict.reason
    assert COMMAND_S * 0.95 < verdict.probe_duration_s < COMMAND_S + 10
    pids = _pids_in(path)
    assert len(pids) == 2
    until(lambda: not any(alive(pid) for pid in pids))
    assert worker.exit is None


def test_end_of_the_server_leaves_workers_to_their_lifeline(bench: ForkBench) -> None:
    """A SIGKILLed fork server takes no worker along; each goes on reporting and ends with its lifeline."""
    worker = bench.fork(bench.spec("sim0", period_s=0.05))
    bench.until_verdict("sim0")
    bench.server.kill()
    bench.server.wait()
    bench.front.close()
    bench.until_verdict("sim0", len(bench.verdicts("sim0")) + 3)
    worker.close_gate()
    until(worker.gone, LIFELINE_S)


def test_exits_of_many_at_once_are_all_told(bench: ForkBench) -> None:
    """Forty workers killed in the same instant (SIGCHLD coalesces) give forty reports."""
    workers = [bench.fork(bench.spec(f"sim{number}"), open_gate=False) for number in range(40)]
    os.kill(bench.server.pid, signal.SIGSTOP)
    for worker in workers:
        worker.kill()
    until(lambda: all(worker.gone() for worker in workers))
    os.kill(bench.server.pid, signal.SIGCONT)
    bench.until(lambda: all(worker.exit is not None for worker in workers))
    assert {worker.exit.signal for worker in workers if worker.exit} == {signal.SIGKILL}


def test_front_that_does_not_read_loses_no_answer(bench: ForkBench) -> None:
    """With the front's side unread until the socket is full, each order is still answered once it reads again."""
    workers = []
    for number in range(150):
        worker = bench.order(bench.spec(f"sim{number}"))
        worker.close_gate()
        workers.append(worker)
    bench.until(lambda: all(worker.exit is not None for worker in workers), 30)
    assert all(worker.exit is not None and worker.exit.code == 0 for worker in workers)
