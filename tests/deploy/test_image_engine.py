"""The image under a container engine of others (podman), in both profiles of the manifests, beside the stub kubelet.

DEVD_IMAGE_ARCHIVE names the image. Skipped where podman cannot start a plain container: that says nothing about devd.
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
from tests.deploy.test_cdi_runtime import ENGINE
from tests.deploy.test_image import ARCHIVE, buildah
from tests.faults.worlds import SIM, sim

PROFILES = {
    "privileged": ["--privileged", "--pid=host", "--volume=/sys:/sys"],
    "unprivileged": ["--cap-drop=all", "--security-opt=no-new-privileges", "--volume=/sys:/sys:ro"],
}
"""What the DaemonSet asks for, in podman's words; both on a read-only root, as root."""
PATH = "/opt/devd/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEVICES = "[{name: well, path: /dev/null}, {name: falls, script: [{for: 3s}, {do: crash}]}]"

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not ARCHIVE, reason="DEVD_IMAGE_ARCHIVE names no image: make one with deploy/image/build.sh"),
    pytest.mark.skipif(os.geteuid() != 0, reason="starts a container as root"),
    pytest.mark.skipif(not all(map(shutil.which, ("podman", "runc", "buildah"))), reason="needs podman, runc, buildah"),
]


class Engine:
    """podman with storage of its own, and the image's root file system."""

    def __init__(self, root: Path, rootfs: Path) -> None:
        self._root, self._rootfs = root, rootfs
        (root / "containers.conf").write_text(ENGINE, encoding="utf-8")
        self.environment = {"CONTAINERS_CONF": str(root / "containers.conf")}

    def command(self, options: list[str], *words: str) -> list[str]:
        """Return the command line that runs a program of the image on a read-only root."""
        where = [f"--root={self._root}/storage", f"--runroot={self._root}/run", "--storage-driver=vfs"]
        limits = ["--network=none", "--runtime=runc", "--ulimit=nofile=4096:4096", "--ulimit=nproc=4000:4000"]
        run = ["podman", *where, "--log-level=error", "run", "--rm", "--read-only", "--user=0:0", *limits, *options]
        return [*run, f"--env=PATH={PATH}", "--rootfs", str(self._rootfs), *words]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """Return an engine that starts the image's programs here."""
    root = Path(tempfile.mkdtemp(prefix="devd-engine-"))
    unpacked = buildah("from", f"oci-archive:{Path(ARCHIVE).resolve()}")
    try:
        made = Engine(root, Path(buildah("mount", unpacked)))
        plain = subprocess.run(
            made.command([], "/bin/echo", "runs"),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, **made.environment},
        )
        if plain.stdout != "runs\n":
            pytest.skip(f"podman starts no container here: {plain.stderr.strip()[-200:]}")
        yield made
    finally:
        buildah("rm", unpacked)
        shutil.rmtree(root, ignore_errors=True)


class EngineRig(Rig):
    """A rig whose devd is the image's, in a container of podman's; signals go to podman, which passes them on."""

    def __init__(self, engine: Engine, options: list[str]) -> None:
        super().__init__(sim(DEVICES))
        self._engine, self._options = engine, options
        self.environment = engine.environment

    def command(self, *extra: str) -> list[str]:
        """Return the command line that starts the image's devd."""
        for directory in (self.layout.root, self.state_dir, self.log_dir):
            directory.mkdir(exist_ok=True)
        own = super().command(*extra)
        shared = [f"--volume={self.root}:{self.root}", "--volume=/dev:/dev", *self._options]
        return self._engine.command(shared, "devd", *own[own.index("run") :])


@pytest.mark.parametrize("profile", PROFILES)
def test_it_serves_a_kubelet_in_each_profile(engine: Engine, profile: str) -> None:
    """The daemon registers, replaces a crashing worker, allocates and ends in an engine's container."""

    async def play() -> None:
        async with EngineRig(engine, PROFILES[profile]) as rig:
            await rig.healthy(SIM, 2)
            await rig.unhealthy(SIM, 1)
            given = await rig.kubelet.allocate(SIM, ids=["well"])
            assert [one.host_path for one in given.response.devices] == ["/dev/null"]
            assert rig.kubelet.violations == []
            layers = rig.device("well")["sandbox"]
            assert layers["active"], layers
            code, took_s = await rig.end_daemon()
            assert code == 0, rig.log_text()
            assert took_s < 10

    asyncio.run(play())


def test_the_profiles_are_those_of_the_manifests(engine: Engine) -> None:
    """What the test above starts has a writable root in neither profile, and no capability in the smaller one."""
    program = "cat /proc/self/status; touch /etc/written"
    for profile, options in PROFILES.items():
        done = subprocess.run(
            engine.command(options, "sh", "-c", program),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, **engine.environment},
        )
        [bounding] = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("CapBnd:")]
        assert (int(bounding, 16) == 0) == (profile == "unprivileged")
        assert "Read-only file system" in done.stderr
