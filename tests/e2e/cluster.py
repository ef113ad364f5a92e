"""kubectl, and what the end-to-end tests lay on a cluster: devd on one node, below directories of its own."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "devd-e2e"
DEVICES = "/var/lib/devd-e2e/devices"
"""On the node and, by a mount, in devd's container: device nodes are made here, and taken away."""
MINORS = {"node0": 3, "node1": 5}
"""The null and the zero device (major 1): on every node, and two, since paths to one device are one device to devd."""
NODE = "e2e.devd.io/node"
SIM = "e2e.devd.io/sim"
COMMAND_WITHIN_S = 100.0
WAIT_S = 90.0
LOOK_EVERY_S = 0.5

CONFIG = f"""\
resources:
  - name: {NODE}
    driver: node
    match: {{path: "{DEVICES}/node*"}}
    probe: {{kind: exists, period: 500ms, timeout: 2s}}
    discovery: {{period: 1s, linger: 10m}}
    container_path: "/dev/e2e{{index}}"
    env: {{E2E_IDS: "{{ids}}", E2E_PATHS: "{{paths}}"}}
  - name: {SIM}
    driver: sim
    match: {{devices: [{{name: e2e-sim, path: /dev/full}}]}}
    probe: {{kind: sim, period: 1s, timeout: 1s}}
    reset: {{kind: sim, takes: 300ms, timeout: 5s}}
    env: {{E2E_SIM: "{{ids}}"}}
"""

# The pod opens its device, and says what it was given, and which device it found there.
POD_PROGRAM = """
import os, stat, time
here = os.stat("/dev/e2e0")
assert stat.S_ISCHR(here.st_mode) and os.major(here.st_rdev) == 1, here
with open("/dev/e2e0", "wb") as node:
    node.write(b"x")
given = [os.environ[name] for name in ("E2E_IDS", "E2E_PATHS", "E2E_SIM")]
print("given", *given, os.minor(here.st_rdev), flush=True)
time.sleep(3600)
"""


def overlay(directory: Path, image: str, node: str) -> None:
    """Write a kustomization into a directory: the kubernetes overlay on one node, with its own paths and devices."""
    # kustomize takes relative paths only.
    up = "/".join([".."] * (len(directory.resolve().parts) - 1))
    paths = {"runtime": "/run/devd-e2e", "state": "/var/lib/devd-e2e/state", "logs": "/var/lib/devd-e2e/log"}
    volumes = [{"name": name, "hostPath": {"path": path}} for name, path in paths.items()]
    volumes.append({"name": "devices", "hostPath": {"path": DEVICES, "type": "DirectoryOrCreate"}})
    container = {"name": "devd", "image": image, "volumeMounts": [{"name": "devices", "mountPath": DEVICES}]}
    pod = {"nodeSelector": {"kubernetes.io/hostname": node}, "containers": [container], "volumes": volumes}
    patch = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "devd"},
        "spec": {"template": {"spec": pod}},
    }
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": NAMESPACE,
        "resources": [f"{up}{ROOT / 'deploy' / 'kustomize' / 'overlays' / 'kubernetes'}"],
        "patches": [{"patch": yaml.safe_dump(patch)}],
        "configMapGenerator": [
            {"name": "devd", "namespace": "devd-system", "behavior": "merge", "files": ["devd.yaml"]}
        ],
    }
    (directory / "devd.yaml").write_text(CONFIG, encoding="utf-8")
    (directory / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), encoding="utf-8")


def pod(image: str, node: str) -> dict[str, Any]:
    """Return the pod that uses one device of each resource, from devd's own image."""
    one = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/opt/devd/bin/python", "-c", POD_PROGRAM],
        "resources": {"limits": {NODE: "1", SIM: "1"}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "user", "namespace": NAMESPACE},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": node},
            "tolerations": [{"operator": "Exists"}],
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "containers": [one],
        },
    }


class Cluster:
    """One cluster, through kubectl."""

    def __init__(self, image: str) -> None:
        self.image = image
        ours = ROOT / ".venv" / "deploy-tools" / "bin" / "kubectl"
        self._kubectl = os.environ.get("KUBECTL") or (str(ours) if ours.exists() else shutil.which("kubectl") or "")
        self.node = ""

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl and return what it printed. Raises AssertionError with its complaint."""
        done = subprocess.run(
            [self._kubectl, *arguments],
            check=False,
            capture_output=True,
            text=True,
            input=stdin,
            timeout=COMMAND_WITHIN_S,
        )
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr.strip()}"
        return done.stdout

    def get(self, *what: str) -> dict[str, Any]:
        """Return an object, or a list of them."""
        return dict(json.loads(self.kubectl("get", *what, "-n", NAMESPACE, "-o", "json")))

    def minor(self) -> int:
        """Return the minor version of the kubelet on the node (36 of v1.36.1)."""
        version = self.get("node", self.node)["status"]["nodeInfo"]["kubeletVersion"]
        return int(version.split(".")[1])

    def choose_node(self) -> str:
        """Return the host name label of a Ready, schedulable Linux node. Raises AssertionError when there is none."""
        for node in self.get("nodes", "-l", "kubernetes.io/os=linux")["items"]:
            ready = any(one["type"] == "Ready" and one["status"] == "True" for one in node["status"]["conditions"])
            if ready and not node["spec"].get("unschedulable"):
                self.node = node["metadata"]["name"]
                return str(node["metadata"]["labels"]["kubernetes.io/hostname"])
        raise AssertionError("no Ready, schedulable Linux node")

    def allocatable(self, resource: str) -> int:
        """Return how many of a resource the node offers."""
        return int(self.get("node", self.node)["status"]["allocatable"].get(resource, "0"))

    def daemon(self) -> dict[str, Any] | None:
        """Return devd's pod when it is there, Ready, and not on its way out."""
        for one in self.get("pods", "-l", "app.kubernetes.io/name=devd")["items"]:
            conditions = one["status"].get("conditions", [])
            ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
            if ready and "deletionTimestamp" not in one["metadata"]:
                return dict(one)
        return None

    def in_daemon(self, *command: str) -> str:
        """Run a command in devd's container and return what it printed."""
        one = self.daemon()
        assert one is not None, "devd's pod is not ready"
        return self.kubectl("exec", one["metadata"]["name"], "-n", NAMESPACE, "-c", "devd", "--", *command)

    def python(self, program: str) -> str:
        """Run a line of Python in devd's container."""
        return self.in_daemon("/opt/devd/bin/python", "-c", program)

    def clear_devices(self) -> None:
        """Take all devices off the node, those of a run that was cut short as well."""
        self.in_daemon("sh", "-c", f"rm -rf {DEVICES}/*")

    def make_device(self, name: str) -> None:
        """Make one of the devices of MINORS on the node."""
        device = f"os.makedev(1, {MINORS[name]})"
        self.python(f"import os, stat; os.mknod('{DEVICES}/{name}', stat.S_IFCHR | 0o666, {device})")

    def remove_device(self, name: str) -> None:
        """Take a device off the node."""
        self.python(f"import os; os.unlink('{DEVICES}/{name}')")

    def status(self) -> dict[str, Any]:
        """Return ``devd status``."""
        return dict(json.loads(self.in_daemon("devd", "status", "-o", "json")))

    def story(self) -> str:
        """Return what a person would look at after a failure."""
        parts = []
        for arguments in (
            ("get", "pods,daemonsets,events", "-n", NAMESPACE, "-o", "wide"),
            ("logs", "-n", NAMESPACE, "-l", "app.kubernetes.io/name=devd", "--tail=50"),
        ):
            done = subprocess.run(
                [self._kubectl, *arguments], check=False, capture_output=True, text=True, timeout=COMMAND_WITHIN_S
            )
            parts.append(done.stdout + done.stderr)
        return "\n".join(parts)


def until(condition: Callable[[], bool], what: str, timeout_s: float = WAIT_S) -> None:
    """Look until a condition holds. Raises AssertionError naming it."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"{what}: not within {timeout_s:g} s"
        time.sleep(LOOK_EVERY_S)
