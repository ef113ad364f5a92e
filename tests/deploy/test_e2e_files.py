"""What the end-to-end tests lay on a cluster, checked without one."""

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from devd.daemon.demo.rig import Rig
from tests.deploy.manifests import API_VERSIONS, complaints, configuration, container, kustomized, named
from tests.e2e.objects import (
    CONFIG,
    DEVICES,
    GUARD,
    LEFT_ON_NODE,
    MINORS,
    NAMESPACE,
    NODE,
    ON_NODE,
    SIM,
    cleaning_pod,
    overlay,
    user_pod,
)
from tests.faults.worlds import scenario, until


def test_the_overlay_is_one_the_api_takes(tmp_path: Path) -> None:
    """The end-to-end overlay renders, in its own namespace and below its own directories, with the image asked for."""
    overlay(tmp_path, "registry.example.com/devd:1", "worker-1")
    found = kustomized(tmp_path)
    assert [line for one in found for line in complaints(one, API_VERSIONS[-1])] == []
    assert {one["metadata"].get("namespace", NAMESPACE) for one in found} == {NAMESPACE}
    assert named(found, "Namespace")["metadata"]["name"] == NAMESPACE
    assert container(found)["image"] == "registry.example.com/devd:1"
    assert configuration(found) == CONFIG
    volumes = named(found, "DaemonSet")["spec"]["template"]["spec"]["volumes"]
    on_node = {one["name"]: one["hostPath"]["path"] for one in volumes if "hostPath" in one}
    assert on_node["devices"] == DEVICES
    assert {name: on_node[name] for name in ON_NODE} == ON_NODE
    cleaned = {f"{directory}/{pattern}" for directory, pattern in LEFT_ON_NODE.items()}
    for path in (DEVICES, *ON_NODE.values()):
        assert any(path.startswith(f"{one}/") or path == one for one in cleaned), path


@pytest.mark.parametrize("pod", [user_pod("devd:1", "worker-1"), cleaning_pod("devd:1", "worker-1")])
def test_the_pods_are_ones_the_api_takes(pod: dict[str, Any]) -> None:
    """The pods beside devd have no field the API does not know, and ask for no image but devd's, which may be there."""
    assert complaints(pod, API_VERSIONS[-1]) == []
    containers = pod["spec"]["containers"]
    assert {(one["image"], one["imagePullPolicy"]) for one in containers} == {("devd:1", "IfNotPresent")}


def test_devd_takes_the_configuration(tmp_path: Path) -> None:
    """``devd check`` has nothing against the configuration of the end-to-end tests."""
    file = tmp_path / "devd.yaml"
    file.write_text(CONFIG, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "devd", "check", str(file)], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def make_device(path: Path) -> None:
    """Make a device as the tests do on the node; skip the test where that is not allowed."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, MINORS[path.name]))
    except PermissionError:
        pytest.skip("no device nodes can be made here")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes device nodes")
def test_what_the_cluster_is_to_see_happens_before_the_stub(tmp_path: Path) -> None:
    """Each step of the end-to-end tests, taken here: what the pod is given, its reset, both faults, and their ends."""
    for name in MINORS:
        make_device(tmp_path / name)

    async def play(rig: Rig) -> None:
        await rig.healthy(NODE, 2)
        await rig.healthy(SIM, 1)
        await rig.healthy(GUARD, 1)
        guarded = await rig.kubelet.allocate(GUARD)
        assert [one.container_path for one in guarded.response.devices] == ["/dev/e2e-guarded"]
        given = await rig.kubelet.allocate(NODE)
        assert [one.container_path for one in given.response.devices] == ["/dev/e2e0"]
        assert dict(given.response.envs).items() >= {"E2E_IDS": given.ids[0], "E2E_PATHS": "/dev/e2e0"}.items()
        held = await rig.kubelet.allocate(SIM)
        await rig.kubelet.pre_start(SIM, held.ids)
        await until(lambda: any("reset-done" in one.read_text() for one in rig.log_dir.glob("e2e-sim*")), "the reset")
        rig.inject(SIM, "hang")
        await rig.unhealthy(SIM)
        assert rig.device("e2e-sim")["injected"] == "hang"
        rig.inject(SIM, "none")
        rig.order("restart", "e2e-sim")
        await rig.healthy(SIM)
        [path] = rig.device(given.ids[0])["paths"]
        os.unlink(path)  # noqa: PTH108 - at once, as a cable is pulled
        await rig.unhealthy(NODE)
        assert rig.device(given.ids[0])["reason"]
        make_device(Path(path))
        await rig.healthy(NODE, 2)

    scenario(CONFIG.replace(DEVICES, str(tmp_path)), play)
