"""``devd demo`` as its user runs it."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil

DEMO = [sys.executable, "-m", "devd", "demo", "--seconds"]


def test_demo_tells_its_story_and_leaves_nothing() -> None:
    """A short demo ends by itself with code 0 and a summary without violations or leftovers."""
    done = subprocess.run([*DEMO, "12"], capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Summary" in done.stdout
    assert "sim-hanging" in done.stdout
    assert "pod-1 got demo.devd.io/simulated/" in done.stdout
    assert "protocol violations: none" in done.stdout
    assert "left behind: nothing" in done.stdout


def test_demo_ends_in_order_on_ctrl_c() -> None:
    """Ctrl-C ends the demo early, with its summary, code 0, and its directory gone."""
    with subprocess.Popen([*DEMO, "60"], stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        first = demo.stdout.readline()
        directory = Path(first.split()[-1])
        assert directory.is_dir()
        while "RESOURCE" not in demo.stdout.readline():
            assert demo.poll() is None
        demo.send_signal(signal.SIGINT)
        rest, _ = demo.communicate(timeout=60)
    assert demo.returncode == 0, rest
    assert "Summary" in rest
    assert "exit code 0" in rest
    assert not directory.exists()


def test_demo_that_is_killed_takes_its_devd_along() -> None:
    """SIGKILL leaves the demo no time for anything: its devd ends all the same, in order, with all its processes."""
    with subprocess.Popen([*DEMO, "60"], stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        directory = Path(demo.stdout.readline().split()[-1])
        while "pod-1 got" not in demo.stdout.readline():
            assert demo.poll() is None
        family = psutil.Process(demo.pid).children(recursive=True)
        assert len(family) > 2, "devd, its fork server and workers"
        demo.kill()
        demo.wait(timeout=60)
        _gone, left = psutil.wait_procs(family, timeout=60)
    shutil.rmtree(directory)
    assert left == []
