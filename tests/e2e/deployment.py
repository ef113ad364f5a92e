"""Lays devd on a cluster for the time of the end-to-end tests, and takes everything away again, whatever happens."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.budget import Budget
from tests.e2e.cluster import Cluster
from tests.e2e.kubectl import KubectlError, kubectl
from tests.e2e.objects import MINORS, NAMESPACE, OFFERED, cleaning_pod, overlay

READY_WITHIN_S = 90.0
"""The pull of the image included."""
OFFERED_WITHIN_S = 40.0
"""The kubelet tells the API server of a changed node within 10 s."""
DAEMON_ENDS_WITHIN_S = 30.0
CLEANED_WITHIN_S = 20.0
DELETED_WITHIN_S = 60.0
"""With the namespace, which goes when all that is in it has gone."""


@contextmanager
def deployed(one: Cluster, directory: Path, wanted_node: str = "") -> Iterator[Cluster]:
    """Deploy devd on one node with its devices made, and wait until they are offered; at the end nothing is left.

    ``directory`` takes the manifests. Raises AssertionError with what did not happen; what a person would look at is
    printed then. Raises KubectlError when not everything could be taken away.
    """
    node = one.budget.patiently(lambda: one.choose_node(wanted_node), "a node")
    overlay(directory, one.image, node)
    manifests = kubectl("kustomize", str(directory))
    if one.budget.patiently(_namespace_is_there, "whether the namespace is there"):
        print(f"the namespace {NAMESPACE} is there: an earlier run was cut short")
        take_away(one, manifests)
        one.budget.begin()
    try:
        one.budget.patiently(lambda: apply(manifests), "the manifests")
        one.budget.until(lambda: one.daemon() is not None, "devd's pod is Ready", READY_WITHIN_S)
        for name in MINORS:
            one.make_device(name)
        await_offered(one)
        yield one
    except BaseException:
        print(story())
        raise
    finally:
        take_away(one, manifests)


def await_offered(one: Cluster) -> None:
    """Wait until the node offers all that it is to offer."""
    one.budget.until(
        lambda: {name: one.allocatable(name) for name in OFFERED} == OFFERED,
        "all devices are allocatable",
        OFFERED_WITHIN_S,
    )


def apply(manifests: str) -> None:
    """Lay objects on the cluster. Raises KubectlError."""
    kubectl("apply", "-f", "-", stdin=manifests)


def as_yaml(one: dict[str, Any]) -> str:
    """Return an object as kubectl takes it."""
    return yaml.safe_dump(one)


def take_away(one: Cluster, manifests: str) -> None:
    """End devd, clean its node, and delete all objects: the last in any case, however the others went.

    Raises KubectlError when objects may be left.
    """
    try:
        for step in (_end_pods, _clean_node):
            try:
                step(one)
            except (KubectlError, AssertionError) as error:
                print(f"cleaning up: {error}")
    finally:
        _delete(manifests)


def _end_pods(_: Cluster) -> None:
    """End the daemon before its files are removed: it would write them again."""
    there = ("-n", NAMESPACE, "--ignore-not-found")
    try:
        kubectl("delete", "pod", "user", "cleaner", *there, "--wait=false")
    finally:
        wait = f"--timeout={DAEMON_ENDS_WITHIN_S:g}s"
        kubectl("delete", "daemonset", "devd", *there, "--cascade=foreground", wait, within_s=DAEMON_ENDS_WITHIN_S + 10)


def _clean_node(one: Cluster) -> None:
    apply(as_yaml(cleaning_pod(one.image, one.node)))

    def over() -> bool:
        phase = one.get("pod", "cleaner")["status"].get("phase")
        assert phase != "Failed", f"the node was not cleaned: {kubectl('logs', 'cleaner', '-n', NAMESPACE)}"
        return bool(phase == "Succeeded")

    Budget(CLEANED_WITHIN_S).until(over, "the node is clean", CLEANED_WITHIN_S)


def _delete(manifests: str) -> None:
    """Delete all objects; once more where that failed."""
    words = ("delete", "--ignore-not-found", f"--timeout={DELETED_WITHIN_S:g}s", "-f", "-")
    try:
        kubectl(*words, stdin=manifests, within_s=DELETED_WITHIN_S + 10)
    except KubectlError as error:
        print(f"cleaning up: {error}")
        kubectl(*words, stdin=manifests, within_s=DELETED_WITHIN_S + 10)


def _namespace_is_there() -> bool:
    return bool(kubectl("get", "namespace", NAMESPACE, "--ignore-not-found", "-o", "name").strip())


def story() -> str:
    """Return what a person would look at after a failure."""
    parts = []
    for arguments in (
        ("get", "pods,daemonsets,events", "-n", NAMESPACE, "-o", "wide"),
        ("logs", "-n", NAMESPACE, "-l", "app.kubernetes.io/name=devd", "--tail=50"),
    ):
        try:
            parts.append(kubectl(*arguments))
        except KubectlError as error:
            parts.append(str(error))
    return "\n".join(parts)
