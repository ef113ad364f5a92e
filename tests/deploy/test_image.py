"""The image, where one was built: DEVD_IMAGE_ARCHIVE names the OCI archive that deploy/image/build.sh made.

It is started on a read-only root in namespaces of its own, beside the stub kubelet.
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devd.daemon.demo.rig import Rig
from tests.deploy.manifests import ROOT, container, overlay
from tests.e2e.cluster import full_name
from tests.faults.worlds import SIM, sim

ARCHIVE = os.environ.get("DEVD_IMAGE_ARCHIVE", "")
CONTAINED = Path(__file__).with_name("contained.sh")
MOST_BYTES = 120_000_000

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not ARCHIVE, reason="DEVD_IMAGE_ARCHIVE names no image: make one with deploy/image/build.sh"),
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts and namespaces need root"),
    pytest.mark.skipif(shutil.which("buildah") is None, reason="needs buildah"),
]


def buildah(*arguments: str) -> str:
    """Run buildah and return what it printed."""
    done = subprocess.run(["buildah", *arguments], check=True, capture_output=True, text=True, timeout=100)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def rootfs() -> Iterator[Path]:
    """Unpack the image; everything of it is gone afterwards."""
    container = buildah("from", f"oci-archive:{Path(ARCHIVE).resolve()}")
    try:
        yield Path(buildah("mount", container))
        buildah("umount", container)
    finally:
        buildah("rm", container)


def children(pid: int) -> list[int]:
    """Return the pids of a process's children."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()]


class ContainedRig(Rig):
    """A rig whose devd is the image's, as PID 1 of a container."""

    rootfs = Path("/")

    def command(self, *extra: str) -> list[str]:
        """Return the command line that starts the image's devd."""
        for directory in (self.layout.root, self.state_dir, self.log_dir):
            directory.mkdir(exist_ok=True)
        own = super().command(*extra)
        namespaces = ["unshare", "--mount", "--pid", "--ipc", "--uts", "--net", "--fork", "--kill-child"]
        return [*namespaces, "sh", str(CONTAINED), str(self.rootfs), str(self.root), *own[own.index("run") :]]

    async def end_daemon(self, number: int = signal.SIGTERM) -> tuple[int, float]:
        """Signal the container's PID 1: unshare(1) before it takes no orders."""
        if self.daemon is not None:
            for child in children(self.daemon.pid):
                os.kill(child, number)
        return await super().end_daemon(signal.SIGCONT)


def in_image(rootfs: Path, *command: str, uid: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command of the image to its end."""
    whole = ["chroot", f"--userspec={uid}:{uid}", str(rootfs), *command]
    environment = {"PATH": "/opt/devd/bin:/usr/bin:/bin:/usr/sbin"}
    return subprocess.run(whole, check=False, capture_output=True, text=True, timeout=60, env=environment)


def test_the_image_is_small() -> None:
    """The archive, with compressed layers, stays under 120 MB."""
    assert Path(ARCHIVE).stat().st_size < MOST_BYTES


def member(name: str) -> dict[str, Any]:
    """Return a JSON file of the archive."""
    with tarfile.open(ARCHIVE) as tar:
        file = tar.extractfile(name)
        assert file is not None
        return dict(json.load(file))


def blob(digest: str) -> dict[str, Any]:
    """Return a JSON blob of the archive."""
    return member("blobs/" + digest.replace(":", "/"))


def test_a_node_finds_the_image_by_the_name_of_the_manifests() -> None:
    """The archive has the name that a runtime makes of the manifests' image: with its registry, and the same tag.

    What is imported under a shorter name is there, and is not found.
    """
    [manifest] = member("index.json")["manifests"]
    wanted = container(overlay("kubernetes"))["image"]
    assert manifest["annotations"]["org.opencontainers.image.ref.name"] == full_name(wanted)


def test_the_image_says_what_it_is() -> None:
    """Labels and entry point are those of the OCI's annotations, with the project's version."""
    manifest = blob(member("index.json")["manifests"][0]["digest"])
    settings = blob(manifest["config"]["digest"])["config"]
    assert settings["Entrypoint"] == ["devd"]
    assert settings["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert f'__version__ = "{settings["Labels"]["org.opencontainers.image.version"]}"' in (
        ROOT / "devd" / "__init__.py"
    ).read_text(encoding="utf-8")


def test_any_user_can_run_the_program(rootfs: Path) -> None:
    """Every file can be read by an ordinary user, none can be written by one, and none is set-uid."""
    done = in_image(rootfs, "devd", "version", uid=65532)
    assert done.returncode == 0, done.stderr
    found = in_image(
        rootfs, "find", "/opt", "/usr", "-xdev", "(", "-perm", "/6000", "-o", "-perm", "-o+w", ")", "-type", "f"
    )
    assert found.stdout == ""


def test_nothing_lies_about(rootfs: Path) -> None:
    """The root has a base's directories and nothing of the build's; no library left a module of its own making."""
    made_by_build = {"src", "wheel", "wheels", "build", "runtime-packages", "sbom.cdx.json"}
    assert {path.name for path in rootfs.iterdir()} & made_by_build == set()
    assert list((rootfs / "mnt").iterdir()) == []
    packages = next((rootfs / "opt/devd/lib").glob("python3.*")) / "site-packages"
    assert not (packages / "example.py").exists()


def test_the_bill_of_materials_is_complete(rootfs: Path) -> None:
    """The bill names devd and every library of the lock file at its version, and Debian's Python."""
    bill = json.loads((rootfs / "usr/share/devd/sbom.cdx.json").read_text(encoding="utf-8"))
    urls = {one["purl"] for one in bill["components"]}
    lock = (ROOT / "deploy/image/requirements.lock").read_text(encoding="utf-8").splitlines()
    pinned = [line.split()[0].split("==") for line in lock if "==" in line and "implementation_name" not in line]
    assert {f"pkg:pypi/{name}@{version}" for name, version in pinned} - urls == set()
    assert any(url.startswith("pkg:pypi/devd@") for url in urls)
    assert any(url.startswith("pkg:deb/debian/python3.") for url in urls)


def test_bytecode_is_used_as_it_is(rootfs: Path) -> None:
    """Every module of devd has bytecode that holds whatever the files' times are: none can be written later."""
    packages = next((rootfs / "opt/devd/lib").glob("python3.*")) / "site-packages" / "devd"
    sources = list(packages.rglob("*.py"))
    assert sources
    for source in sources:
        [compiled] = (source.parent / "__pycache__").glob(f"{source.stem}.cpython-*.pyc")
        # Flags of the header: 1 is "by hash", 2 would be "check the source".
        assert compiled.read_bytes()[4:8] == (1).to_bytes(4, "little")


def test_it_serves_a_kubelet_on_a_read_only_root(rootfs: Path) -> None:
    """As PID 1 on a read-only root the image's devd registers, replaces a crashing worker, allocates, and ends."""
    ContainedRig.rootfs = rootfs

    async def play() -> None:
        devices = "[{name: well, path: /dev/null}, {name: falls, script: [{for: 3s}, {do: crash}]}]"
        async with ContainedRig(sim(devices)) as rig:
            await rig.healthy(SIM, 2)
            await rig.unhealthy(SIM, 1)
            given = await rig.kubelet.allocate(SIM, ids=["well"])
            assert [one.host_path for one in given.response.devices] == ["/dev/null"]
            assert rig.kubelet.violations == []
            code, took_s = await rig.end_daemon()
            assert code == 0, rig.log_text()
            assert took_s < 10

    asyncio.run(play())
