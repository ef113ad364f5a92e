"""``make gpu`` where there is no GPU: the same code against the stand-in."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(Path("/proc/driver/nvidia/gpus").exists(), reason="here is a GPU: make gpu tells of it")
@pytest.mark.skipif(not (shutil.which("gcc") or shutil.which("cc")), reason="no C compiler to build the stand-in with")
def test_report_runs_without_a_gpu() -> None:
    """It says that it is a stand-in, tells of every signal and of the refused reset, and is content."""
    told = subprocess.run(
        [sys.executable, "-m", "tests.gpu"], capture_output=True, text=True, timeout=100, check=False, cwd=Path.cwd()
    )
    assert told.returncode == 0, told.stderr
    assert "no NVIDIA GPU here" in told.stdout
    assert "are waited for" in told.stdout
    assert "computes on it" in told.stdout
