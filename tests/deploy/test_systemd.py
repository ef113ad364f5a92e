"""The systemd unit, checked by systemd's own tools. Nothing here runs under systemd."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from devd.daemon.app import EXIT_CONFIG
from devd.workers.sandbox.limits import OOM_SCORE_ADJ
from tests.deploy.manifests import DEPLOY, ROOT

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


def test_a_configuration_with_errors_is_not_tried_for_ever() -> None:
    """Only the main process' exit code ends the restarts, so no other command may be what finds the errors."""
    assert lines("RestartPreventExitStatus") == [str(EXIT_CONFIG)]
    assert not any("devd check" in one for one in lines("ExecStartPre"))


def test_what_is_bound_to_stay_writable_is_made_first() -> None:
    """Each writable path outside devd's own directories is made before devd starts: it would be read-only else."""
    [paths] = lines("ReadWritePaths")
    made = [line.split()[-1] for line in lines("ExecStartPre")]
    assert [one.removeprefix("-") for one in paths.split()] == made


def bounded() -> set[str]:
    """Return the capabilities of the unit's bounding set, as the sandbox names them."""
    return {one.removeprefix("CAP_").lower() for line in lines("CapabilityBoundingSet") for one in line.split()}


def test_each_capability_has_its_reason() -> None:
    """The page has a row for each capability of the unit, and the unit has each one of the page."""
    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    table = page.partition("| capability |")[2].partition("\n\n")[0]
    first = [line.split("|")[1] for line in table.splitlines()[2:]]
    assert {one.lower() for cell in first for one in re.findall(r"`CAP_(\w+)`", cell)} == bounded()


def test_no_driver_declares_a_capability_that_the_unit_lacks() -> None:
    """What the drivers' code declares for their workers is within the unit's bounding set."""
    sources = (ROOT / "workers").rglob("*.py")
    declared = {
        name.lower()
        for source in sources
        for line in source.read_text(encoding="utf-8").splitlines()
        if "capabilities=(" in line
        for name in re.findall(r'"CAP_(\w+)"', line)
    }
    assert {"sys_admin", "net_admin"} <= declared <= bounded()


def test_stop_outlives_an_orderly_end() -> None:
    """The time to stop is more than the 5 s that an end with wedged workers takes."""
    [stop] = lines("TimeoutStopSec")
    assert float(stop.removesuffix("s")) >= 10


def test_devd_outlives_what_it_serves() -> None:
    """The kernel ends devd late when memory runs out, not later than the kubelet; a worker raises its own score."""
    [score] = lines("OOMScoreAdjust")
    assert -999 < int(score) < 0
    assert OOM_SCORE_ADJ > 0
