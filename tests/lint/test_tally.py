"""What CI's last line says: the sum of what every part has tested."""

import subprocess
import sys
from pathlib import Path

import pytest

TALLY = Path(__file__).resolve().parents[2] / ".ci" / "tally.py"


def _run(log: Path, text: str) -> subprocess.CompletedProcess[str]:
    log.write_text(text, encoding="utf-8")
    return subprocess.run(
        [sys.executable, str(TALLY), str(log)], check=False, capture_output=True, text=True, timeout=30
    )


def test_closing_lines_are_added_up(tmp_path: Path) -> None:
    """Those of pytest, long and short, and of the lab; what looks like one inside a line does not count."""
    done = _run(
        tmp_path / "log",
        "said: 5 passed, 1 failed in a sentence of a test\n"
        "================= 2677 passed, 21 skipped in 365.58s (0:06:05) =================\n"
        "============ 7 passed in 13.31s ============\n"
        "lab: 14 passed, 0 failed\n",
    )
    assert (done.returncode, done.stdout) == (0, "total: 2698 passed, 0 failed, 21 skipped\n")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "==== 3 passed, 1 failed in 1.00s ====\n",
        "==== 3 passed, 2 errors in 1.00s ====\n",
        "lab: 3 passed, 1 failed\n",
    ],
)
def test_a_failure_or_nothing_tested_is_no_success(tmp_path: Path, text: str) -> None:
    """Whatever the exit codes were."""
    assert _run(tmp_path / "log", text).returncode == 1
