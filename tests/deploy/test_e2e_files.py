"""What the end-to-end tests lay on a cluster, checked without one."""

import subprocess
import sys
from pathlib import Path

from tests.deploy.manifests import API_VERSIONS, complaints, configuration, container, kustomized, named
from tests.e2e.cluster import CONFIG, DEVICES, NAMESPACE, overlay, pod


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
    assert all("devd-e2e" in on_node[name] for name in ("runtime", "state", "logs"))


def test_the_pod_is_one_the_api_takes() -> None:
    """The pod that uses devices has no field the API does not know."""
    assert complaints(pod("devd:1", "worker-1"), API_VERSIONS[-1]) == []


def test_devd_takes_the_configuration(tmp_path: Path) -> None:
    """``devd check`` has nothing against the configuration of the end-to-end tests."""
    file = tmp_path / "devd.yaml"
    file.write_text(CONFIG, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "devd", "check", str(file)], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
