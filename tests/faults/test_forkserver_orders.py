"""A worker's orders and verdicts, through a real fork server: probe now, reset, slow calls, commands, floods."""

import itertools
import re
import select
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from devd.ipc import codec
from devd.ipc.messages import Device, Node, Ping, Pong, ProbeNow, Reset, Stop
from tests.support.forkbench import WAIT_S, ForkBench, until

NULL = Device("null", (Node("/dev/null", "char", 1, 3),), {"sysfs": "/sys/devices/virtual/mem/null"})


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[ForkBench]:
    with ForkBench(tmp_path / "run") as one:
        yield one


def _verdict(bench: ForkBench, probe: dict[str, object], target: Device = NULL, timeout_s: float = 5.0) -> str:
    """Run one probe in a worker of its own; return ``pass`` or the reason."""
    bench.fork(bench.spec(target.id, probe=probe, target=target, timeout_s=timeout_s))
    health = bench.until_verdict(target.id)
    return "pass" if health.verdict == "pass" else health.reason


def test_probe_now_does_not_wait_for_the_period(bench: ForkBench) -> None:
    """With a period of a minute, ProbeNow brings the second verdict at once, and every report counts on."""
    worker = bench.fork(bench.spec("sim0"))
    bench.until_verdict("sim0")
    bench.send(worker, ProbeNow())
    assert bench.until_verdict("sim0", 2).probe_count == 2


def test_server_that_is_asked_answers(bench: ForkBench) -> None:
    """Ping is answered with Pong: the front knows one that hangs by its silence."""
    bench.front.send(codec.encode(Ping()))
    assert select.select([bench.front], [], [], WAIT_S)[0]
    assert codec.decode(bench.front.recv(4096), Pong) == Pong()


def test_probes_keep_their_period(bench: ForkBench) -> None:
    """Probes follow each other by the period, counted from the end of the last one."""
    bench.fork(bench.spec("sim0", period_s=0.2, probe={"kind": "sim", "script": [{"takes": 0.1}]}))
    bench.until_verdict("sim0", 4)
    ends = [one.probe_at_s for one in bench.verdicts("sim0")]
    gaps = [later - earlier for earlier, later in itertools.pairwise(ends)]
    assert all(0.3 <= gap < 5 for gap in gaps), gaps


def test_reset_is_followed_by_a_probe_and_answered(bench: ForkBench) -> None:
    """A reset answers under its own id after the probe that follows it, with that probe's health."""
    reset = {"kind": "sim", "takes": 0.2, "result": "ok"}
    worker = bench.fork(bench.spec("sim0", reset=reset))
    bench.until_verdict("sim0")
    bench.send(worker, Reset(41, 5.0))
    bench.until(lambda: bool(worker.resets))
    done = worker.resets[0]
    assert (done.reset_id, done.ok, done.reason, done.health.probe_count) == (41, True, "", 2)
    assert 0.2 <= done.duration_s < 5
    assert [one.activity for one in bench.health["sim0"] if one.activity.startswith("reset")] == ["reset sim sim0"]


@pytest.mark.parametrize(
    ("reset", "probe", "reason"),
    [
        ({"kind": "sim", "result": "fail"}, {"kind": "sim"}, "reset sim: told to fail"),
        (
            {"kind": "sim"},
            {"kind": "sim", "script": [{"do": "fail", "reason": "cold"}]},
            "the probe after the reset failed: cold",
        ),
        ({"kind": "sim", "takes": 0.3}, {"kind": "sim"}, r"reset took \d\.\d s, allowed 0\.1 s"),
        ({"kind": "exec", "command": ["sh", "-c", "echo no luck; exit 4"]}, {"kind": "sim"}, "exit code 4: no luck"),
        ({"kind": "exec", "command": ["sleep", "60"]}, {"kind": "sim"}, r"sleep took longer than 0\.1 s: killed"),
        ({"kind": "sysfs", "attribute": "nothing", "value": "1"}, {"kind": "sim"}, "write /sys/dev/char/1:3/nothing"),
        ({"kind": "sysfs", "attribute": "/etc/passwd", "value": "1"}, {"kind": "sim"}, "only attributes below /sys"),
        (None, {"kind": "sim"}, "no reset is configured"),
    ],
)
def test_reset_that_fails_says_why(
    bench: ForkBench, reset: dict[str, object] | None, probe: dict[str, object], reason: str
) -> None:
    """A reset is good only if it worked in time and the probe passed; otherwise its answer has the reason."""
    worker = bench.fork(bench.spec("null", reset=reset, probe=probe, target=NULL))
    bench.until_verdict("null")
    # Where being late is not the point, a busy machine must not make it so.
    bench.send(worker, Reset(1, 0.1 if r"0\.1 s" in reason else 10.0))
    bench.until(lambda: bool(worker.resets) or worker.exit is not None)
    if worker.exit is not None:  # an attribute outside /sys is a wrong spec
        assert worker.exit.code == 78
        assert re.search(reason, worker.words())
        return
    assert not worker.resets[0].ok
    assert re.search(reason, worker.resets[0].reason), worker.resets[0].reason


def test_reset_that_crashes_ends_the_worker(bench: ForkBench) -> None:
    """A reset that faults takes its worker down with SIGSEGV; nothing is answered."""
    worker = bench.fork(bench.spec("sim0", reset={"kind": "sim", "result": "crash"}))
    bench.until_verdict("sim0")
    bench.send(worker, Reset(1, 1.0))
    bench.until(lambda: worker.exit is not None)
    assert worker.exit is not None
    assert worker.exit.signal == 11
    assert not worker.resets


def test_slow_probe_that_returns_is_a_fail(bench: ForkBench) -> None:
    """A probe that passes after its timeout is told as a fail with both times."""
    probe = {"kind": "sim", "script": [{"do": "slow", "takes": 0.4}]}
    bench.fork(bench.spec("sim0", probe=probe, timeout_s=0.2))
    assert re.fullmatch(r"took \d\.\d s, allowed 0\.2 s", bench.until_verdict("sim0").reason)


def test_script_runs_on_the_workers_clock(bench: ForkBench) -> None:
    """A script's steps take turns: pass, then fail with its reason, then pass again as it repeats."""
    script = [{"for": 0.3, "do": "pass"}, {"for": 0.3, "do": "fail", "reason": "too warm"}]
    target = Device("sim0", params={"script": script})
    bench.fork(bench.spec("sim0", target=target, period_s=0.02))

    def runs() -> list[str]:
        said = [one.reason for one in bench.verdicts("sim0")]
        # The script begins with the worker: where that is slow to start the first word is of a later step.
        said = said[said.index("") :] if "" in said else []
        return [one for index, one in enumerate(said) if index == 0 or said[index - 1] != one]

    bench.until(lambda: len(runs()) >= 4)
    assert runs()[:4] == ["", "too warm", "", "too warm"]


def test_flood_ends_and_leaves_a_worker_that_works(bench: ForkBench) -> None:
    """A worker that publishes as fast as it can for a second neither dies nor loses its last verdict."""
    probe = {"kind": "sim", "script": [{"do": "flood"}]}
    worker = bench.fork(bench.spec("sim0", probe=probe))
    bench.until_verdict("sim0")
    assert len(bench.health["sim0"]) > 100
    bench.send(worker, Stop())
    bench.until(lambda: worker.exit is not None)
    assert worker.exit is not None
    assert worker.exit.code == 0


def test_open_passes_on_a_real_node(bench: ForkBench) -> None:
    """The probe open passes on /dev/null and names its calls while it makes them."""
    assert _verdict(bench, {"kind": "open", "mode": "rw"}) == "pass"
    said = [one.activity for one in bench.health["null"]]
    assert [one for one in said if one] == ["open /dev/null", "close /dev/null"]


@pytest.mark.parametrize(
    ("probe", "expected"),
    [
        ({"kind": "exec", "command": ["true"]}, "pass"),
        ({"kind": "exec", "command": ["sh", "-c", "exit 7"], "ok_codes": [0, 7]}, "pass"),
        (
            {"kind": "exec", "command": ["test", "{id} {path} {paths} {name}", "=", "null /dev/null /dev/null null"]},
            "pass",
        ),
        ({"kind": "exec", "command": ["sh", "-c", 'test "$DEVD_DEVICE" = null && test -z "$SECRET"']}, "pass"),
        ({"kind": "exec", "command": ["sh", "-c", "read x; test $? = 1"]}, "pass"),
        ({"kind": "exec", "command": ["sh", "-c", "echo bad; echo worse >&2; exit 3"]}, "exit code 3: bad / worse"),
        ({"kind": "exec", "command": ["sh", "-c", "kill -9 $$"]}, "killed by signal 9"),
        ({"kind": "exec", "command": ["/nowhere/tool"]}, "exec: /nowhere/tool does not start: ENOENT"),
    ],
)
def test_exec_probe_goes_by_the_exit_code(bench: ForkBench, probe: dict[str, object], expected: str) -> None:
    """The probe exec runs its command without a shell, fills in its templates, and tells how it ended."""
    verdict = _verdict(bench, probe)
    assert verdict.endswith(expected) or expected in verdict


def test_exec_output_is_bounded(bench: ForkBench) -> None:
    """A command that prints without end is killed at its timeout; only the tail of what it said is kept."""
    code = "import sys\nwhile True: sys.stdout.write('x' * 4096 + 'end')"
    verdict = _verdict(bench, {"kind": "exec", "command": [sys.executable, "-c", code]}, timeout_s=3.0)
    assert "took longer than 3 s: killed" in verdict
    assert 1000 < len(verdict) < 3000


def test_exec_does_not_wait_for_what_the_command_leaves(bench: ForkBench, tmp_path: Path) -> None:
    """A command that ends while its child holds the output open is done; the child is killed."""
    path = tmp_path / "pid"
    probe = {"kind": "exec", "command": ["sh", "-c", f"sleep 1000 & echo $! > {path}"]}
    bench.fork(bench.spec("null", probe=probe, target=NULL, sandbox={"write": [str(tmp_path)]}))
    assert bench.until_verdict("null").verdict == "pass"
    until(lambda: not Path(f"/proc/{path.read_text().strip()}").exists())


def _cpu_ticks(pid: int) -> int:
    """Return what a process has used of the processor; one that wants more (and may not get it) is never the same."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return time.monotonic_ns() if fields[0] == "R" else int(fields[11]) + int(fields[12])


def test_verdict_that_the_bus_did_not_take_is_told_later(bench: ForkBench) -> None:
    """A worker whose reports pile up at a front that does not read tells its verdict once it does, without a probe."""
    script = [{"do": "flood"}]
    worker = bench.fork(bench.spec("sim0", probe={"kind": "sim", "script": script}))
    bench.until(lambda: bool(bench.health["sim0"]))
    quiet_since: list[tuple[float, int]] = []

    def quiet() -> bool:
        """Return whether the worker has used no CPU for a while: its flood is over."""
        used, now_s = _cpu_ticks(worker.pid), time.monotonic()
        if not quiet_since or quiet_since[-1][1] != used:
            quiet_since.append((now_s, used))
        return now_s - quiet_since[-1][0] > 0.5

    until(quiet)
    last = bench.until_verdict("sim0")
    assert (last.verdict, last.probe_count) == ("pass", 1)
    assert last.seq > len(bench.health["sim0"]), "nothing was dropped: this proves nothing"
