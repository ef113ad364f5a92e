"""What of the daemon's environment its workers get."""

import os
from contextlib import suppress
from pathlib import Path

from devd.daemon.demo.rig import Rig
from devd.ipc.environment import FOR_COMMANDS, FOR_WORKERS, MORE, for_commands, for_workers
from tests.faults.worlds import SIM, scenario, sim, until

SECRET = "registry-password-4711"  # noqa: S105 - it has to be one to be looked for


def environment(pid: int) -> bytes:
    """Return a process's environment; nothing where not even its own user may see it."""
    with suppress(PermissionError):
        return Path(f"/proc/{pid}/environ").read_bytes()
    return b""


def test_secret_of_the_daemon_is_no_workers() -> None:
    """A credential in the daemon's environment reaches neither fork server nor worker nor scout; what is named does."""

    async def play(rig: Rig) -> None:
        await rig.end_daemon()
        rig.environment = {"REGISTRY_PASSWORD": SECRET, "VENDOR_HOME": "/opt/vendor", MORE: "VENDOR_HOME, UNSET"}
        rig.start_daemon()
        await rig.healthy(SIM, 1)
        await until(lambda: len(rig.worker_pids()) >= 3, "the fork server, the scout and the worker")
        assert SECRET.encode() in environment(rig.pid)
        forks = rig.status()["daemon"]["forkserver"]["pid"]
        assert b"VENDOR_HOME=/opt/vendor" in environment(forks).split(b"\0")
        for pid in rig.worker_pids():
            assert SECRET.encode() not in environment(pid)

    scenario(sim("[{name: one}]"), play)


def test_variables_are_named_ones() -> None:
    """Workers get what the interpreter needs and what the operator names, commands a part of it; nothing is made up."""
    daemon = dict.fromkeys((*FOR_WORKERS, "AWS_SECRET_ACCESS_KEY", "HTTPS_PROXY", "NOTIFY_SOCKET", "VENDOR"), "x")
    assert set(for_workers(daemon)) == set(FOR_WORKERS)
    assert set(for_workers({**daemon, MORE: " VENDOR,NOTHING,"})) == {*FOR_WORKERS, "VENDOR"}
    assert set(for_commands(daemon)) == set(FOR_COMMANDS) < set(FOR_WORKERS)
    assert for_workers({}) == {}
    assert "PATH" in for_workers(os.environ)
