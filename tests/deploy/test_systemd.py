"""The systemd unit, checked by systemd's own tools. Nothing here runs under systemd."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.manifests import DEPLOY

UNIT = DEPLOY / "systemd" / "devd.service"
MOST_EXPOSURE = 60
"""In tenths, of ``systemd-analyze security``; a unit without any hardening has 96, one without devices may have 10."""


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze; skip the test where there is none."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("needs systemd-analyze")
    return subprocess.run(
        [program, *map(str, arguments)], check=False, capture_output=True, text=True, timeout=60, errors="replace"
    )


def lines(key: str) -> list[str]:
    """Return the values of a directive in the unit."""
    return [
        line.partition("=")[2]
        for line in UNIT.read_text(encoding="utf-8").splitlines()
        if line.partition("=")[0] == key
    ]


def test_systemd_knows_every_directive(tmp_path: Path) -> None:
    """``systemd-analyze verify`` has nothing to say, once devd's program is one that exists."""
    text = UNIT.read_text(encoding="utf-8")
    assert "/opt/devd/bin/devd" in text
    # Executable, absolute, and here.
    copy = tmp_path / UNIT.name
    copy.write_text(text.replace("/opt/devd/bin/devd", sys.executable), encoding="utf-8")
    done = analyze("verify", "--man=no", copy)
    told = [line for line in (done.stdout + done.stderr).splitlines() if UNIT.name in line]
    assert told == []
    assert done.returncode == 0, done.stderr


def test_verify_tells_of_an_unknown_directive(tmp_path: Path) -> None:
    """The check above can fail: a directive that does not exist is told."""
    copy = tmp_path / UNIT.name
    text = UNIT.read_text(encoding="utf-8").replace("/opt/devd/bin/devd", sys.executable)
    copy.write_text(text.replace("[Install]", "ProtectEverything=yes\n[Install]"), encoding="utf-8")
    assert "ProtectEverything" in analyze("verify", "--man=no", copy).stderr


def test_exposure_stays_low() -> None:
    """The unit's exposure, as systemd counts it, is no more than what devices and sandboxes need."""
    done = analyze("security", "--offline=yes", f"--threshold={MOST_EXPOSURE}", UNIT)
    assert done.returncode == 0, done.stdout[-400:]


@pytest.mark.parametrize("directive", ["ProtectClock", "PrivateDevices", "DeviceAllow", "RestrictNamespaces"])
def test_devices_stay_reachable(directive: str) -> None:
    """No directive is set that takes the devices away, or the namespaces that workers make."""
    assert lines(directive) in ([], ["no"])


def test_stop_outlives_an_orderly_end() -> None:
    """The time to stop is more than the 5 s that an end with wedged workers takes."""
    [stop] = lines("TimeoutStopSec")
    assert float(stop.removesuffix("s")) >= 10
