"""devd on a real cluster: KUBECONFIG names it, DEVD_IMAGE the image its nodes have or can pull.

Nothing but one schedulable Linux node is assumed; the pod that uses devices runs devd's image as well. The tests follow
one another on one deployment: each leaves it as it found it.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.cluster import MINORS, NAMESPACE, NODE, SIM, Cluster, overlay, pod, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("e2e"),
    pytest.mark.skipif(
        not (os.environ.get("KUBECONFIG") and os.environ.get("DEVD_IMAGE")),
        reason="needs a cluster: set KUBECONFIG and DEVD_IMAGE",
    ),
]

REVIVED_WITHIN_S = 120.0
"""A replaced daemon is back long before the kubelet forgets the resource (5 minutes)."""
SAYS_POD_HEALTH_SINCE_MINOR = 36
"""Kubernetes 1.36: allocatedResourcesStatus is on by default."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Deploy devd on one node with two real devices and a simulated one; take everything away afterwards."""
    one = Cluster(os.environ["DEVD_IMAGE"])
    node = one.choose_node()
    directory = tmp_path_factory.mktemp("overlay")
    overlay(directory, one.image, node)
    manifests = one.kubectl("kustomize", str(directory))
    one.kubectl("apply", "-f", "-", stdin=manifests)
    try:
        until(lambda: one.daemon() is not None, "devd's pod is Ready")
        one.clear_devices()
        for name in MINORS:
            one.make_device(name)
        until(lambda: (one.allocatable(NODE), one.allocatable(SIM)) == (2, 1), "the devices are allocatable")
        yield one
    except BaseException:
        print(one.story())
        raise
    finally:
        _take_away(one, manifests)


def _take_away(one: Cluster, manifests: str) -> None:
    if one.daemon() is not None:
        one.clear_devices()
        one.in_daemon("sh", "-c", "rm -rf /var/log/devd/* /var/lib/devd/*")
    one.kubectl("delete", "--ignore-not-found", "--timeout=90s", "-f", "-", stdin=manifests)


@pytest.fixture(scope="module")
def user(cluster: Cluster) -> dict[str, Any]:
    """Run the pod that uses a device of each resource; return it once it runs."""
    hostname = cluster.get("node", cluster.node)["metadata"]["labels"]["kubernetes.io/hostname"]
    cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(pod(cluster.image, hostname)))

    def said() -> bool:
        phase = _user(cluster)["status"]["phase"]
        assert phase not in {"Failed", "Succeeded"}, cluster.kubectl("describe", "pod", "user", "-n", NAMESPACE)
        return phase == "Running" and _log(cluster).startswith("given ")

    until(said, "the pod says what it was given")
    return _user(cluster)


def _user(cluster: Cluster) -> dict[str, Any]:
    return cluster.get("pod", "user")


def _log(cluster: Cluster) -> str:
    return cluster.kubectl("logs", "user", "-n", NAMESPACE)


def _given(cluster: Cluster) -> tuple[str, str, str, int]:
    """Return the id, the path and the simulated device that the pod was given, and the minor number it found."""
    _, ids, paths, sim, minor = _log(cluster).split()
    return ids, paths, sim, int(minor)


def _name_on_node(cluster: Cluster, device: str) -> str:
    """Return the name of a device's node in the directory of devices."""
    [path] = next(one["paths"] for one in cluster.status()["devices"] if one["id"] == device)
    return Path(path).name


@pytest.mark.usefixtures("user")
def test_pod_has_the_device_and_the_environment(cluster: Cluster) -> None:
    """The pod found the very device of the id it was given, at the path its environment names."""
    ids, paths, sim, minor = _given(cluster)
    assert paths == "/dev/e2e0"
    assert sim == "e2e-sim"
    known = {one["id"]: one["resource"] for one in cluster.status()["devices"]}
    assert (known[ids], known[sim]) == (NODE, SIM)
    assert MINORS[_name_on_node(cluster, ids)] == minor


@pytest.mark.usefixtures("user")
def test_device_was_reset_before_the_container_started(cluster: Cluster) -> None:
    """The simulated device's journal has the reset that PreStartContainer asked for."""
    until(lambda: "reset-done" in cluster.in_daemon("sh", "-c", "cat /var/log/devd/e2e-sim*"), "the reset is told")


@pytest.mark.usefixtures("user")
def test_rehearsed_fault_is_seen_by_the_cluster(cluster: Cluster) -> None:
    """A simulated device that is told to hang is not allocatable any more, and its pod's status says so; then it is."""
    _, _, sim, _ = _given(cluster)
    cluster.in_daemon("devd", "inject", sim, "hang")
    until(lambda: cluster.allocatable(SIM) == 0, "allocatable falls")
    [device] = [one for one in cluster.status()["devices"] if one["id"] == sim]
    assert (device["health"], device["injected"]) == ("Unhealthy", "hang")
    if cluster.minor() >= SAYS_POD_HEALTH_SINCE_MINOR:
        until(lambda: _healths(cluster).get(sim) == "Unhealthy", "the pod's status tells of its device")
    cluster.in_daemon("devd", "inject", sim, "none")
    cluster.in_daemon("devd", "restart", sim)
    until(lambda: cluster.allocatable(SIM) == 1, "the device is offered again")


@pytest.mark.usefixtures("user")
def test_failed_device_leaves_allocatable_and_shows_at_the_pod(cluster: Cluster) -> None:
    """A device that goes is not offered any more, devd says why, the pod's status tells; back, it is offered again."""
    ids, _, _, _ = _given(cluster)
    name = _name_on_node(cluster, ids)
    cluster.remove_device(name)
    until(lambda: cluster.allocatable(NODE) == 1, "allocatable falls")
    [device] = [one for one in cluster.status()["devices"] if one["id"] == ids]
    assert (device["health"], bool(device["reason"])) == ("Unhealthy", True)
    if cluster.minor() >= SAYS_POD_HEALTH_SINCE_MINOR:
        until(lambda: _healths(cluster).get(ids) == "Unhealthy", "the pod's status tells of its device")
    cluster.make_device(name)
    until(lambda: cluster.allocatable(NODE) == 2, "the device is offered again")


def _healths(cluster: Cluster) -> dict[str, str]:
    """Return the health of each device in the pod's allocatedResourcesStatus."""
    return {
        entry["resourceID"]: entry["health"]
        for container in _user(cluster)["status"].get("containerStatuses", [])
        for status in container.get("allocatedResourcesStatus", [])
        for entry in status.get("resources", [])
    }


@pytest.mark.usefixtures("user")
def test_replaced_daemon_keeps_devices_and_pods(cluster: Cluster) -> None:
    """When devd's pod is replaced, the new one offers the same ids, and the pod that uses a device runs on."""
    before = sorted(one["id"] for one in cluster.status()["devices"])
    old = cluster.daemon()
    assert old is not None
    cluster.kubectl("delete", "pod", old["metadata"]["name"], "-n", NAMESPACE, "--wait=false")

    def replaced() -> bool:
        new = cluster.daemon()
        return new is not None and new["metadata"]["uid"] != old["metadata"]["uid"]

    until(replaced, "another pod of devd is Ready", REVIVED_WITHIN_S)
    until(lambda: (cluster.allocatable(NODE), cluster.allocatable(SIM)) == (2, 1), "all devices are offered again")
    # The node's numbers may be those of before: the new daemon is asked as well.
    until(lambda: sorted(one["id"] for one in cluster.status()["devices"]) == before, "the same ids")
    until(lambda: {one["health"] for one in cluster.status()["devices"]} == {"Healthy"}, "all are Healthy")
    status = _user(cluster)["status"]
    assert status["phase"] == "Running"
    assert status["containerStatuses"][0]["restartCount"] == 0
