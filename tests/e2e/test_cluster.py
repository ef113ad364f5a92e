"""devd on a real cluster: KUBECONFIG names it, DEVD_IMAGE the image its nodes have or can pull.

Nothing but one schedulable Linux node is assumed (DEVD_NODE names which); the pods beside devd run its image as well.
The tests follow one another on one deployment: each leaves it as it found it.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.budget import CLEANING_TAKES_S, Budget, asked_for_s
from tests.e2e.cluster import Cluster
from tests.e2e.deployment import apply, as_yaml, await_offered, deployed, story
from tests.e2e.kubectl import kubectl
from tests.e2e.objects import MINORS, NAMESPACE, NODE, SIM, user_pod

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.xdist_group("e2e")]

POD_SPEAKS_WITHIN_S = 40.0
SEEN_WITHIN_S = 30.0
"""A change of health: devd tells the kubelet at once, the kubelet the API server within 10 s."""
REPLACED_WITHIN_S = 90.0
"""A replaced daemon is back long before the kubelet forgets the resource (5 minutes)."""
SAYS_POD_HEALTH_SINCE_MINOR = 36
"""Kubernetes 1.36: allocatedResourcesStatus is on by default."""


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Deploy devd on one node with two real devices and a simulated one; take everything away afterwards."""
    one = Cluster(os.environ["DEVD_IMAGE"], Budget(asked_for_s(), CLEANING_TAKES_S))
    with deployed(one, tmp_path_factory.mktemp("overlay"), os.environ.get("DEVD_NODE", "")):
        yield one
        if request.session.testsfailed:
            print(story())


@dataclass(frozen=True)
class Given:
    """What the pod said it was given, and what it found: see POD_PROGRAM."""

    id: str
    path: str
    sim: str
    minor: int
    guarded: str
    """What came of opening the guarded device: ``opened``, or the error's name."""
    resets_before: int
    """How many resets the simulated device had seen before the pod was there."""


@pytest.fixture(scope="module")
def given(cluster: Cluster) -> Given:
    """Run the pod that uses a device of each resource; return what it says."""
    before = cluster.resets()
    hostname = cluster.get("node", cluster.node)["metadata"]["labels"]["kubernetes.io/hostname"]
    manifest = as_yaml(user_pod(cluster.image, hostname))
    cluster.budget.patiently(lambda: apply(manifest), "the pod that uses devices")

    def said() -> bool:
        phase = _user(cluster)["status"].get("phase")
        assert phase not in {"Failed", "Succeeded"}, kubectl("describe", "pod", "user", "-n", NAMESPACE)
        return phase == "Running" and _log("main").startswith("given ")

    cluster.budget.until(said, "the pod says what it was given", POD_SPEAKS_WITHIN_S)
    _, ids, paths, sim, minor, guarded = cluster.budget.patiently(lambda: _log("main"), "the pod's log").split()
    return Given(ids, paths, sim, int(minor), guarded, before)


def _user(cluster: Cluster) -> dict[str, Any]:
    return cluster.get("pod", "user")


def _log(container: str) -> str:
    return kubectl("logs", "user", "-n", NAMESPACE, "-c", container)


def _device(cluster: Cluster, device: str) -> dict[str, Any]:
    """Return what devd's status tells of a device."""
    [found] = [one for one in cluster.status()["devices"] if one["id"] == device]
    return dict(found)


def _name_on_node(cluster: Cluster, device: str) -> str:
    """Return the name of a device's node in the directory of devices."""
    [path] = _device(cluster, device)["paths"]
    return Path(path).name


def test_pod_has_the_device_and_the_environment(cluster: Cluster, given: Given) -> None:
    """The pod found the very device of the id it was given, at the path its environment names."""
    assert given.path == "/dev/e2e0"
    assert given.sim == "e2e-sim"
    known = {one["id"]: one["resource"] for one in cluster.status()["devices"]}
    assert (known[given.id], known[given.sim]) == (NODE, SIM)
    assert MINORS[_name_on_node(cluster, given.id)] == given.minor


def test_pod_may_use_what_no_other_container_may(cluster: Cluster, given: Given) -> None:
    """The guarded device opens in the pod it was given to, if it does on this node at all, and is shut to others."""
    cluster.budget.until(lambda: _log("control").startswith("control "), "the other container speaks", SEEN_WITHIN_S)
    shut = _log("control").split()[1]
    on_node = cluster.opening("guarded")
    if (shut, on_node) != ("EPERM", "opened"):
        pytest.skip(f"this node cannot tell: without the device {shut!r}, beside devd {on_node!r}")
    assert given.guarded == "opened"


def test_device_was_reset_before_the_container_started(cluster: Cluster, given: Given) -> None:
    """The simulated device's journal has the reset that PreStartContainer asked for, beside those of before."""
    cluster.budget.until(lambda: cluster.resets() > given.resets_before, "the reset is told", SEEN_WITHIN_S)


def test_rehearsed_fault_is_seen_by_the_cluster(cluster: Cluster, given: Given) -> None:
    """A simulated device that is told to hang is not allocatable any more, and its pod's status says so; then it is."""
    cluster.in_daemon("devd", "inject", given.sim, "hang")
    cluster.budget.until(lambda: cluster.allocatable(SIM) == 0, "allocatable falls", SEEN_WITHIN_S)
    device = _device(cluster, given.sim)
    assert (device["health"], device["injected"]) == ("Unhealthy", "hang")
    _await_told(cluster, given.sim)
    cluster.in_daemon("devd", "inject", given.sim, "none")
    cluster.in_daemon("devd", "restart", given.sim)
    cluster.budget.until(lambda: cluster.allocatable(SIM) == 1, "the device is offered again", SEEN_WITHIN_S)


def test_failed_device_leaves_allocatable_and_shows_at_the_pod(cluster: Cluster, given: Given) -> None:
    """A device that goes is not offered any more, devd says why, the pod's status tells; back, it is offered again."""
    name = _name_on_node(cluster, given.id)
    cluster.remove_device(name)
    cluster.budget.until(lambda: cluster.allocatable(NODE) == 1, "allocatable falls", SEEN_WITHIN_S)
    device = _device(cluster, given.id)
    assert (device["health"], bool(device["reason"])) == ("Unhealthy", True)
    _await_told(cluster, given.id)
    cluster.make_device(name)
    cluster.budget.until(lambda: cluster.allocatable(NODE) == 2, "the device is offered again", SEEN_WITHIN_S)


def _await_told(cluster: Cluster, device: str) -> None:
    """Wait until the pod's status tells of its device, where the kubelet is one that does."""
    if cluster.minor() >= SAYS_POD_HEALTH_SINCE_MINOR:
        told = "the pod's status tells of its device"
        cluster.budget.until(lambda: _healths(cluster).get(device) == "Unhealthy", told, SEEN_WITHIN_S)


def _healths(cluster: Cluster) -> dict[str, str]:
    """Return the health of each device in the pod's allocatedResourcesStatus."""
    return {
        entry["resourceID"]: entry["health"]
        for container in _user(cluster)["status"].get("containerStatuses", [])
        for status in container.get("allocatedResourcesStatus", [])
        for entry in status.get("resources", [])
    }


@pytest.mark.usefixtures("given")
def test_replaced_daemon_keeps_devices_and_pods(cluster: Cluster) -> None:
    """When devd's pod is replaced, the new one offers the same ids, and the pod that uses a device runs on."""
    before = sorted(one["id"] for one in cluster.status()["devices"])
    old = cluster.daemon()
    assert old is not None
    words = ("delete", "pod", old["metadata"]["name"], "-n", NAMESPACE, "--ignore-not-found", "--wait=false")
    cluster.budget.patiently(lambda: kubectl(*words), "devd's pod is deleted")

    def replaced() -> bool:
        new = cluster.daemon()
        return new is not None and new["metadata"]["uid"] != old["metadata"]["uid"]

    cluster.budget.until(replaced, "another pod of devd is Ready", REPLACED_WITHIN_S)
    await_offered(cluster)

    # The node's numbers may be those of before: the new daemon is asked as well.
    def all_well() -> bool:
        devices = cluster.status()["devices"]
        same = sorted(one["id"] for one in devices) == before
        return same and {one["health"] for one in devices} == {"Healthy"}

    cluster.budget.until(all_well, "the same ids, and all are Healthy", SEEN_WITHIN_S)
    status = cluster.budget.patiently(lambda: _user(cluster), "the pod that uses devices")["status"]
    assert status["phase"] == "Running"
    [main] = [one for one in status["containerStatuses"] if one["name"] == "main"]
    assert main["restartCount"] == 0
