"""Workers hung in the kernel, on a FUSE file whose server never answers. No test process touches that file."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devd.ipc.messages import Device, ProbeNow
from tests.support.forkbench import ForkBench, Worker, alive
from tests.support.hungfuse import HungFile

STUCK_S = 0.5
"""How long a worker must outlive its SIGKILL; one that can die needs a millisecond."""

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts a filesystem"),
]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[ForkBench]:
    with ForkBench(tmp_path / "run") as one:
        yield one


@pytest.fixture
def make_hung(tmp_path: Path) -> Iterator[Callable[[str], HungFile]]:
    made: list[HungFile] = []

    def make(hang: str) -> HungFile:
        try:
            made.append(HungFile(tmp_path / "mnt", hang))
        except PermissionError as error:
            pytest.skip(f"FUSE is not to be had here: {error}")
        return made[-1]

    yield make
    for one in made:
        one.close()


def _hang_in(bench: ForkBench, hung: HungFile, kind: str) -> Worker:
    """Return a worker that is inside the call that never returns."""
    target = Device("hung", (hung.node,))
    worker = bench.fork(bench.spec("hung", probe={"kind": kind}, target=target, timeout_s=0.5))
    bench.until(hung.hangs)
    return worker


def _outlives(bench: ForkBench, worker: Worker) -> bool:
    """Return whether a worker stays for ``STUCK_S`` and no end of it is told."""
    until_s = time.monotonic() + STUCK_S
    while time.monotonic() < until_s:
        bench.pump(0.02)
        if worker.gone() or worker.exit is not None:
            return False
    return True


@pytest.mark.parametrize("call", ["open", "read"])
def test_hung_worker_outlives_sigkill_until_the_driver_lets_go(
    bench: ForkBench, make_hung: Callable[[str], HungFile], call: str
) -> None:
    """A worker hung in a driver names its call, ignores SIGKILL, and its end is told when the driver lets go of it."""
    hung = make_hung(call)
    worker = _hang_in(bench, hung, call)
    bench.until(lambda: any(one.activity == f"{call} {hung.path}" for one in bench.health["hung"]))
    worker.kill()
    assert _outlives(bench, worker)
    hung.release()
    bench.until(lambda: worker.exit is not None)
    assert worker.exit is not None
    assert worker.exit.signal == 9
    assert not bench.verdicts("hung")


def test_exists_passes_on_a_file_that_hangs_only_when_used(
    bench: ForkBench, make_hung: Callable[[str], HungFile]
) -> None:
    """The probe exists looks at the node without opening it: it passes where open would hang."""
    hung = make_hung("open")
    bench.fork(bench.spec("hung", probe={"kind": "exists"}, target=Device("hung", (hung.node,))))
    assert bench.until_verdict("hung").verdict == "pass"


def test_server_works_on_and_ends_beside_a_hung_worker(bench: ForkBench, make_hung: Callable[[str], HungFile]) -> None:
    """A worker that cannot die neither keeps the server from new births nor, at its end, for more than a moment."""
    hung = make_hung("open")
    worker = _hang_in(bench, hung, "open")
    worker.kill()
    bench.fork(bench.spec("other"))
    assert bench.until_verdict("other").verdict == "pass"
    began_s = time.monotonic()
    bench.front.close()
    assert bench.server.wait(10) == 0
    assert time.monotonic() - began_s < 5
    assert not worker.gone()
    assert alive(worker.pid)


def test_hung_command_is_told_and_no_second_one_starts(bench: ForkBench, make_hung: Callable[[str], HungFile]) -> None:
    """A probe's command that hangs in the kernel fails the probe, blocks no later one, and delays the worker's end."""
    hung = make_hung("open")
    probe = {"kind": "exec", "command": ["cat", hung.path]}
    # The command has to get as far as the hanging call within this, on a busy machine too.
    worker = bench.fork(bench.spec("hung", probe=probe, timeout_s=1.5, sandbox={"read": [hung.path]}))
    bench.until(hung.hangs)
    first = bench.until_verdict("hung")
    assert "SIGKILL does not end it" in first.reason
    bench.send(worker, ProbeNow())
    assert "still hangs in the kernel" in bench.until_verdict("hung", 2).reason
    worker.kill()
    bench.until(worker.gone)
    until_s = time.monotonic() + STUCK_S
    while time.monotonic() < until_s:
        bench.pump(0.02)
        assert worker.exit is None, "told as gone while its command still holds the device"
    hung.release()
    bench.until(lambda: worker.exit is not None)
