"""A device's CDI name, resolved by a container engine of others (podman), in a real container.

Skipped where podman cannot start a plain container: that says nothing about names.
"""

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from devd.daemon.demo.rig import Rig
from tests.faults.worlds import until

NULL = "test.devd.io/null"
CONFIG = f"""resources:
  - name: {NULL}
    driver: node
    match: {{path: /dev/null}}
    probe: {{kind: exists, period: 1s}}
    container_path: /dev/given
    cdi: only
    mounts: [{{host: /etc/hostname, container: /run/given, read_only: true}}]
"""
ENGINE = """[containers]
default_ulimits = []
[engine]
events_logger = "file"
cgroup_manager = "cgroupfs"
"""
MOUNTED = 'mkdir -p /var/run/cdi && mount --bind "$1" /var/run/cdi && shift && exec "$@"'
"""The engine reads /var/run/cdi alone: in a mount namespace of its own that is the test's directory."""

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="starts a container as root"),
    pytest.mark.skipif(
        not all(map(shutil.which, ("podman", "runc", "busybox", "unshare"))), reason="needs podman, runc and busybox"
    ),
]


class Engine:
    """podman with a storage of its own, and one root file system of busybox."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._config = root / "containers.conf"
        self._config.write_text(ENGINE, encoding="utf-8")
        for name in ("bin", "dev", "proc", "sys", "etc", "run", "tmp"):
            (root / "rootfs" / name).mkdir(parents=True)
        shutil.copy(shutil.which("busybox") or "busybox", root / "rootfs/bin/busybox")

    def run(self, specs: Path, device: str, script: str) -> subprocess.CompletedProcess[str]:
        """Run a script in a container, with a device by its name if there is one."""
        where = [f"--root={self._root}/storage", f"--runroot={self._root}/run", "--storage-driver=vfs"]
        limits = ["--network=none", "--runtime=runc", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1000:1000"]
        named = [f"--device={device}"] if device else []
        shell = ["--rootfs", str(self._root / "rootfs"), "/bin/busybox", "sh", "-c", script]
        podman = ["podman", *where, "--log-level=error", "run", "--rm", *limits, *named, *shell]
        command = ["unshare", "--mount", "sh", "-c", MOUNTED, "sh", str(specs), *podman]
        environment = {**os.environ, "CONTAINERS_CONF": str(self._config)}
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)


@pytest.fixture
def engine() -> Iterator[Engine]:
    """Return an engine that starts containers here."""
    root = Path(tempfile.mkdtemp(prefix="devd-cdi-"))
    made = Engine(root)
    nothing = root / "nothing"
    nothing.mkdir()
    try:
        plain = made.run(nothing, "", "echo runs")
        if plain.stdout != "runs\n":
            pytest.skip(f"podman starts no container here: {plain.stderr.strip()[-200:]}")
        yield made
    finally:
        shutil.rmtree(root, ignore_errors=True)


def test_name_brings_the_node_and_the_mount(engine: Engine) -> None:
    """The container that was given the name has the node under its path, and the mount; another name is unknown."""
    host_name = Path("/etc/hostname").read_text(encoding="utf-8")

    async def play() -> None:
        async with Rig(CONFIG) as rig:
            await rig.healthy(NULL, 1)
            await until(lambda: bool(rig.device("null")["cdi"]), "the name")
            name = rig.device("null")["cdi"]
            given = await asyncio.to_thread(
                engine.run, rig.cdi_dir, name, "busybox stat -c '%t:%T' /dev/given; busybox cat /run/given"
            )
            assert given.stdout == f"1:3\n{host_name}", given.stderr
            other = await asyncio.to_thread(engine.run, rig.cdi_dir, f"{name}-other", "true")
            assert other.returncode != 0
            assert "unresolvable CDI devices" in other.stderr

    asyncio.run(play())
