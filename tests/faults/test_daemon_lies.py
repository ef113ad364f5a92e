"""A scout that was taken over: what it lists does not decide what the next worker may read or write."""

import os
import shutil
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from devd.daemon.demo.rig import Rig
from tests.faults.worlds import SIM, scenario, sim, until

LIES = "test.devd.io/lies"
SUPPORT = Path(__file__).parents[1] / "support"


def lie(sysfs: str, file: str, *, more: str = "") -> str:
    """Return a configuration of one resource whose scout says this of its device."""
    return f"""resources:
  - name: {LIES}
    driver: impostor
    match: {{sysfs: "{sysfs}", file: "{file}"}}
    probe: {{kind: driver, period: 200ms, timeout: 2s}}
{more}"""


def play_lies(config: str, play: Callable[[Rig], Awaitable[None]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run one scenario with the impostor installed."""
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT / "impostor"), prepend=os.pathsep)
    scenario(config, play)


def test_scout_that_lists_a_folder_outside_sysfs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device whose folder is /etc is not taken in; its scout is ended for it, with the word that says it."""

    async def play(rig: Rig) -> None:
        kills = await rig.journal_has(f"scout:{LIES}", "kill", 1)
        assert "broke the protocol: listed 'lie' with the property sysfs '/etc'" in kills[0]["detail"]
        assert rig.status()["devices"] == []

    play_lies(lie("/etc", "/dev/null"), play, monkeypatch)


def test_worker_refuses_a_path_that_only_its_driver_understands(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A third party's parameter that leads to somebody's file by a link opens nothing: the device says so.

    Unless the operator opened it by name.
    """
    secret, link = tmp_path / "secret", tmp_path / "link"
    secret.write_text("hunter2")
    secret.chmod(0o666)
    link.symlink_to(secret)

    async def refused(rig: Rig) -> None:
        await until(lambda: "discovery named" in rig.device("lie")["reason"], "the refusal")
        reason = rig.device("lie")["reason"]
        assert f"{link}, which leads to {secret}: no device lies there, it is not opened" in reason
        assert rig.device("lie")["health"] == "Unhealthy"

    async def opened(rig: Rig) -> None:
        await until(lambda: "hunter2" in rig.device("lie")["reason"], "what is in the file")

    play_lies(lie("/sys/devices/virtual/mem/null", str(link)), refused, monkeypatch)
    allow = f"    sandbox_allow: {{write: {tmp_path}}}\n"
    play_lies(lie("/sys/devices/virtual/mem/null", str(link), more=allow), opened, monkeypatch)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_sandbox_that_does_not_hold_is_refused_in_every_mode(tmp_path: Path) -> None:
    """Where a layer is said to be on and /etc/shadow can be read all the same, nothing is touched.

    Best effort or not: the device is Unhealthy with that reason, and the log has an error.
    """
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        pytest.skip("needs a mount namespace of its own")
    shadow = tmp_path / "shadow"
    shadow.write_text("root:*:1::::::\n")
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(folder.stat().st_mode | 0o055)

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 1)
        await rig.end_daemon()
        rig.program = (str(SUPPORT / "open_shadow.py"),)
        rig.environment = {"OPEN_SHADOW": str(shadow)}
        rig.start_daemon()
        await until(lambda: rig.device("one")["sandbox"] is not None, "its word")
        sandbox = rig.device("one")["sandbox"]
        if not {"landlock", "identity"} & set(sandbox["active"]):
            pytest.skip("neither layer is to be had here: nothing is said to be shut")
        await until(lambda: "the sandbox does not hold" in rig.device("one")["reason"], "the reason")
        assert "/etc/shadow can be read in spite of" in rig.device("one")["reason"]
        assert rig.device("one")["health"] == "Unhealthy"
        assert sandbox["level"] == "broken"
        errors = [line for line in rig.log_text().splitlines() if '"level":"error"' in line]
        assert any("one: its sandbox does not hold" in line for line in errors)

    scenario(sim("[{name: one}]", more=f"    sandbox_allow: {{read: {shadow}}}\n"), play)
