"""What the end-to-end tests lay on a cluster: devd on one node, a pod that uses its devices, a pod that cleans up."""

from pathlib import Path
from typing import Any

import yaml

from tests.e2e.kubectl import ROOT

NAMESPACE = "devd-e2e"
DEVICES = "/var/lib/devd-e2e/devices"
"""On the node and, by a mount, in devd's container: device nodes are made here, and taken away."""
MINORS = {"node0": 3, "node1": 5, "guarded": 11}
"""All of major 1. The null and the zero device: on every node, and two, since paths to one device are one to devd; the
kernel's log: in every kernel, and no device that runtimes let every container use, as they do the others.
"""
NODE = "e2e.devd.io/node"
SIM = "e2e.devd.io/sim"
GUARD = "e2e.devd.io/guarded"
OFFERED = {NODE: 2, SIM: 1, GUARD: 1}
"""What the node offers when all is well."""
ON_NODE = {
    "runtime": "/run/devd-e2e",
    "cdi": "/run/devd-e2e/cdi",
    "state": "/var/lib/devd-e2e/state",
    "logs": "/var/lib/devd-e2e/log",
}
"""devd's directories on the node, by volume: beside those of a devd that may be there already."""
LEFT_ON_NODE = {
    "/run": "devd-e2e",
    "/var/lib": "devd-e2e",
    "/var/lib/kubelet/device-plugins": "devd-e2e.devd.io-*.sock",
}
"""All that lies on the node afterwards, by its directory: the sockets are those of a daemon that was killed."""
READY_EVERY_S = 2
"""Readiness is asked for more often than the manifests do: the tests wait for it."""

CONFIG = f"""\
resources:
  - name: {NODE}
    driver: node
    match: {{path: "{DEVICES}/node*"}}
    probe: {{kind: exists, period: 500ms, timeout: 2s}}
    discovery: {{period: 1s, linger: 10m}}
    container_path: "/dev/e2e{{index}}"
    env: {{E2E_IDS: "{{ids}}", E2E_PATHS: "{{paths}}"}}
  - name: {GUARD}
    driver: node
    match: {{path: "{DEVICES}/guarded"}}
    probe: {{kind: exists, period: 1s, timeout: 2s}}
    discovery: {{period: 1s, linger: 10m}}
    container_path: "/dev/e2e-guarded"
  - name: {SIM}
    driver: sim
    match: {{devices: [{{name: e2e-sim, path: /dev/full}}]}}
    probe: {{kind: sim, period: 1s, timeout: 1s}}
    reset: {{kind: sim, takes: 300ms, timeout: 5s}}
    env: {{E2E_SIM: "{{ids}}"}}
"""

# Opened for writing and closed: nothing is read and nothing is written, so it takes no right but the device cgroup's.
OPENING = """
def opening(path):
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
    except OSError as error:
        return errno.errorcode[error.errno]
    return "opened"
"""

# The pod opens its devices, and says what it was given, and which device it found there.
POD_PROGRAM = f"""
import errno, os, stat, time
{OPENING}
here = os.stat("/dev/e2e0")
assert stat.S_ISCHR(here.st_mode) and os.major(here.st_rdev) == 1, here
with open("/dev/e2e0", "wb") as node:
    node.write(b"x")
given = [os.environ[name] for name in ("E2E_IDS", "E2E_PATHS", "E2E_SIM")]
print("given", *given, os.minor(here.st_rdev), opening("/dev/e2e-guarded"), flush=True)
time.sleep(3600)
"""

# Beside it, a container that was given nothing makes itself such a node, and says what comes of opening it.
CONTROL_PROGRAM = f"""
import errno, os, stat
{OPENING}
try:
    os.mknod("/tmp/guarded", stat.S_IFCHR | 0o600, os.makedev(1, {MINORS["guarded"]}))
except OSError as error:
    print("control", "no node:", error)
else:
    print("control", opening("/tmp/guarded"))
"""


def overlay(directory: Path, image: str, node: str) -> None:
    """Write a kustomization into a directory: the kubernetes overlay on one node, with its own paths and devices.

    ``node`` is the label kubernetes.io/hostname of that node.
    """
    # kustomize takes relative paths only.
    up = "/".join([".."] * (len(directory.resolve().parts) - 1))
    volumes: list[dict[str, Any]] = [{"name": name, "hostPath": {"path": path}} for name, path in ON_NODE.items()]
    volumes.append({"name": "devices", "hostPath": {"path": DEVICES, "type": "DirectoryOrCreate"}})
    container = {
        "name": "devd",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "readinessProbe": {"periodSeconds": READY_EVERY_S},
        "volumeMounts": [{"name": "devices", "mountPath": DEVICES}],
    }
    spec = {"nodeSelector": {"kubernetes.io/hostname": node}, "containers": [container], "volumes": volumes}
    patch = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "devd"},
        "spec": {"template": {"spec": spec}},
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


def user_pod(image: str, node: str) -> dict[str, Any]:
    """Return the pod that uses one device of each resource, from devd's own image, beside a container without any."""
    limits = dict.fromkeys(OFFERED, "1")
    main = {**_container(image, "main", POD_PROGRAM), "resources": {"limits": limits}}
    spec = {
        "nodeSelector": {"kubernetes.io/hostname": node},
        "containers": [main, _container(image, "control", CONTROL_PROGRAM)],
    }
    return _pod("user", spec)


def cleaning_pod(image: str, node: str) -> dict[str, Any]:
    """Return the pod that takes off the node what the tests left there. ``node`` is the node's name."""
    places = {f"place{number}": path for number, path in enumerate(LEFT_ON_NODE)}
    container = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", cleaning({name: LEFT_ON_NODE[path] for name, path in places.items()}, "/node")],
        "securityContext": {"privileged": True},
        "volumeMounts": [{"name": name, "mountPath": f"/node/{name}"} for name in places],
    }
    volumes = [{"name": name, "hostPath": {"path": path}} for name, path in places.items()]
    # No scheduler: a node that just filled up has to be cleaned as well.
    return _pod("cleaner", {"nodeName": node, "containers": [container], "volumes": volumes})


def cleaning(left: dict[str, str], below: str) -> str:
    """Return the shell program that removes what a pattern names in each directory, below another one."""
    return " && ".join(f"rm -rf {below}/{directory}/{pattern}" for directory, pattern in left.items())


def _container(image: str, name: str, program: str) -> dict[str, Any]:
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/opt/devd/bin/python", "-c", program],
    }


def _pod(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    rest = {
        "tolerations": [{"operator": "Exists"}],
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        **spec,
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE}, "spec": rest}
