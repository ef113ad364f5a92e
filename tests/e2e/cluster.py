"""A cluster as the end-to-end tests see it: its node, what that offers, and devd's pod on it."""

import json
from typing import Any

from tests.e2e.budget import Budget
from tests.e2e.kubectl import KubectlError, kubectl, program
from tests.e2e.objects import DEVICES, MINORS, NAMESPACE, OPENING

JOURNAL = "cat /var/log/devd/e2e-sim* 2>/dev/null || true"
BLOCKING = {"NoSchedule", "NoExecute"}
"""Effects of taints that keep ordinary pods away."""


class Cluster:
    """One cluster, through kubectl. ``budget`` bounds all waits of the tests. Raises KubectlError without a kubectl."""

    def __init__(self, image: str, budget: Budget) -> None:
        program()
        self.image = image
        self.budget = budget
        self.node = ""

    def get(self, *what: str) -> dict[str, Any]:
        """Return an object, or a list of them. Raises KubectlError."""
        return dict(json.loads(kubectl("get", *what, "-n", NAMESPACE, "-o", "json")))

    def minor(self) -> int:
        """Return the minor version of the kubelet on the node (36 of v1.36.1)."""
        node = self.budget.patiently(lambda: self.get("node", self.node), "the node's version")
        return int(node["status"]["nodeInfo"]["kubeletVersion"].split(".")[1])

    def choose_node(self, wanted: str = "") -> str:
        """Settle on a node, by name if one is wanted; return its host name label.

        Of the Ready, schedulable Linux nodes those without taints go first, then those that have the image. Raises
        AssertionError when there is none, KubectlError when the cluster cannot be asked.
        """
        nodes = self.get("nodes", "-l", "kubernetes.io/os=linux")["items"]
        fit = [one for one in nodes if wanted in ("", one["metadata"]["name"]) and _usable(one)]
        assert fit, f"no Ready, schedulable Linux node {wanted}".rstrip()
        best = min(fit, key=lambda one: (_tainted(one), not _has(one, self.image)))
        self.node = str(best["metadata"]["name"])
        return str(best["metadata"]["labels"]["kubernetes.io/hostname"])

    def allocatable(self, resource: str) -> int:
        """Return how many of a resource the node offers."""
        return int(self.get("node", self.node)["status"]["allocatable"].get(resource, "0"))

    # ---- devd's pod -------------------------------------------------------------------------------------------------

    def daemon(self) -> dict[str, Any] | None:
        """Return devd's pod when it is there, Ready, and not on its way out."""
        for one in self.get("pods", "-l", "app.kubernetes.io/name=devd")["items"]:
            conditions = one["status"].get("conditions", [])
            ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
            if ready and "deletionTimestamp" not in one["metadata"]:
                return dict(one)
        return None

    def in_daemon(self, *command: str) -> str:
        """Run a command in devd's container and return what it printed; again while that fails, so twice must not hurt.

        Raises AssertionError with the last error.
        """
        return self.budget.patiently(lambda: self._exec(*command), f"{' '.join(command):.60}, in devd's container")

    def _exec(self, *command: str) -> str:
        one = self.daemon()
        if one is None:
            raise KubectlError("devd's pod is not ready")
        return kubectl("exec", one["metadata"]["name"], "-n", NAMESPACE, "-c", "devd", "--", *command)

    def status(self) -> dict[str, Any]:
        """Return ``devd status``."""
        return dict(json.loads(self.in_daemon("devd", "status", "-o", "json")))

    def resets(self) -> int:
        """Return how many resets the simulated device's journal tells of, those of earlier runs included."""
        return self.in_daemon("sh", "-c", JOURNAL).count("reset-done")

    # ---- devices on the node ----------------------------------------------------------------------------------------

    def make_device(self, name: str) -> None:
        """Make one of the devices of MINORS on the node, if it is not there."""
        making = f"""
import os, stat
path = "{DEVICES}/{name}"
if not os.path.exists(path):
    os.mknod(path, stat.S_IFCHR, os.makedev(1, {MINORS[name]}))
os.chmod(path, {0o600 if name == "guarded" else 0o666})
"""
        self._python(making)

    def remove_device(self, name: str) -> None:
        """Take a device off the node."""
        self.in_daemon("rm", "-f", f"{DEVICES}/{name}")

    def opening(self, name: str) -> str:
        """Return what comes of opening a device in devd's container: ``opened``, or the error's name."""
        return self._python(f'import errno, os\n{OPENING}\nprint(opening("{DEVICES}/{name}"))').strip()

    def _python(self, text: str) -> str:
        return self.in_daemon("/opt/devd/bin/python", "-c", text)


def _usable(node: dict[str, Any]) -> bool:
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in node["status"].get("conditions", []))
    return ready and not node["spec"].get("unschedulable")


def _tainted(node: dict[str, Any]) -> bool:
    return any(one.get("effect") in BLOCKING for one in node["spec"].get("taints", []))


def _has(node: dict[str, Any], image: str) -> bool:
    """Return whether a node tells that it has an image; it tells of some fifty at most."""
    names = {name for one in node["status"].get("images", []) for name in one.get("names") or []}
    return full_name(image) in names


def full_name(image: str) -> str:
    """Return an image's name as container runtimes tell it: with its registry, and a tag where there is no digest."""
    first, slash, _ = image.partition("/")
    if not slash:
        image = f"docker.io/library/{image}"
    elif not (set(first) & set(".:") or first == "localhost"):
        image = f"docker.io/{image}"
    return image if "@" in image or ":" in image.rpartition("/")[2] else f"{image}:latest"
