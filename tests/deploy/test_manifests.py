"""The kustomize overlays, rendered by the real kustomize."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.manifests import (
    API_VERSIONS,
    DEPLOY,
    OVERLAYS,
    ROOT,
    complaints,
    configuration,
    container,
    kustomized,
    named,
    overlay,
)

COMPONENTS = ("monitoring", "alerts", "nvidia", "unprivileged", "nfd", "openshift-monitoring")
OPENSHIFT_PAGE = ROOT / "docs" / "openshift.md"


def with_component(tmp_path: Path, *names: str, base: str = "kubernetes") -> list[dict[str, Any]]:
    """Return an overlay with components, as a user's own overlay adds them."""
    # kustomize takes no absolute paths: ours lies as many directories above as there are.
    mine = tmp_path / "mine"
    mine.mkdir()
    real = DEPLOY / "kustomize"
    up = Path("/".join([".."] * len(mine.resolve().parts[1:])))
    text = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [str(up / str(real / "overlays" / base).lstrip("/"))],
        "components": [str(up / str(real / "components" / name).lstrip("/")) for name in names],
    }
    (mine / "kustomization.yaml").write_text(yaml.safe_dump(text), encoding="utf-8")
    return kustomized(mine)


@pytest.mark.parametrize("version", API_VERSIONS)
@pytest.mark.parametrize("name", OVERLAYS)
def test_the_api_takes_every_object(name: str, version: str) -> None:
    """Each object of each overlay has only fields its schema knows, with values of the right types."""
    found = [line for one in overlay(name) for line in complaints(one, version)]
    assert found == []


@pytest.mark.parametrize("name", COMPONENTS)
def test_components_can_be_added(name: str, tmp_path: Path) -> None:
    """Each component can be put on the kubernetes overlay, and the API takes the result."""
    plain = overlay("kubernetes")
    found = with_component(tmp_path, name)
    assert found != plain
    assert [line for one in found for line in complaints(one, API_VERSIONS[-1])] == []


def test_the_schemas_refuse_what_is_wrong() -> None:
    """The validation is no formality: an unknown field and a wrong type are told."""
    daemon_set = named(overlay("kubernetes"), "DaemonSet")
    broken = {**daemon_set, "spec": {**daemon_set["spec"], "minReadySeconds": "soon", "surge": 0}}
    found = "\n".join(complaints(broken, API_VERSIONS[-1]))
    assert "$.spec.minReadySeconds" in found
    assert "surge" in found


@pytest.mark.parametrize("name", OVERLAYS)
def test_devd_takes_every_configuration(name: str, tmp_path: Path) -> None:
    """``devd check`` has nothing against the configuration in each overlay's ConfigMap."""
    file = tmp_path / "devd.yaml"
    file.write_text(configuration(overlay(name)), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "devd", "check", str(file)], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", OVERLAYS)
def test_one_daemon_on_a_node_at_a_time(name: str) -> None:
    """An update never runs two daemons on one node, and every node is one it may run on."""
    spec = named(overlay(name), "DaemonSet")["spec"]
    assert spec["updateStrategy"]["rollingUpdate"]["maxSurge"] == 0
    pod = spec["template"]["spec"]
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert pod["priorityClassName"] == "system-node-critical"


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_selector_finds_the_pods(name: str) -> None:
    """Selector, pods and network policy agree on the labels, and all objects lie in one namespace."""
    found = overlay(name)
    spec = named(found, "DaemonSet")["spec"]
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"].items() <= labels.items()
    assert named(found, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    namespaces = {one["metadata"].get("namespace", "devd-system") for one in found}
    assert namespaces == {"devd-system"}


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_mount_has_a_volume(name: str) -> None:
    """Each mount names a volume, each volume is mounted, and no two mounts share a path."""
    mounts = container(overlay(name))["volumeMounts"]
    volumes = [one["name"] for one in named(overlay(name), "DaemonSet")["spec"]["template"]["spec"]["volumes"]]
    assert sorted(one["name"] for one in mounts) == sorted(volumes)
    paths = [one["mountPath"] for one in mounts]
    assert len(set(paths)) == len(paths)


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_kubelets_paths_are_where_devd_looks(name: str) -> None:
    """Whatever the kubelet's root is on the node, devd finds its directories where its defaults say."""
    found = overlay(name)
    at = {one["name"]: one["mountPath"] for one in container(found)["volumeMounts"]}
    assert at["device-plugins"] == "/var/lib/kubelet/device-plugins"
    assert at["plugins-registry"] == "/var/lib/kubelet/plugins_registry"
    volumes = named(found, "DaemonSet")["spec"]["template"]["spec"]["volumes"]
    on_node = {one["name"]: one["hostPath"]["path"] for one in volumes if "hostPath" in one}
    # The kubelet has this one built in: it does not follow --root-dir.
    assert on_node["device-plugins"] == "/var/lib/kubelet/device-plugins"
    roots = {"k0s": "/var/lib/k0s/kubelet", "microk8s": "/var/snap/microk8s/common/var/lib/kubelet"}
    root = roots.get(name, "/var/lib/kubelet")
    assert on_node["plugins-registry"] == f"{root}/plugins_registry"
    assert on_node["pod-resources"] == f"{root}/pod-resources"


@pytest.mark.parametrize("name", OVERLAYS)
def test_no_right_at_the_api_server(name: str) -> None:
    """No token is mounted, and no role is bound but the one that lets OpenShift admit the pods."""
    found = overlay(name)
    assert named(found, "ServiceAccount")["automountServiceAccountToken"] is False
    assert named(found, "DaemonSet")["spec"]["template"]["spec"]["automountServiceAccountToken"] is False
    roles = [one for one in found if one["kind"] in {"Role", "ClusterRole", "ClusterRoleBinding"}]
    rules = [rule for role in roles for rule in role["rules"]]
    assert [rule["verbs"] for rule in rules] == ([["use"]] if name == "openshift" else [])


def test_the_smaller_profile_has_no_privilege() -> None:
    """The restricted overlay runs with no capability, no host namespace and a read-only sysfs."""
    found = overlay("restricted")
    assert named(found, "DaemonSet")["spec"]["template"]["spec"]["hostPID"] is False
    one = container(found)
    context = one["securityContext"]
    assert (context["privileged"], context["allowPrivilegeEscalation"]) == (False, False)
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["readOnlyRootFilesystem"] is True
    [sys_mount] = [mount for mount in one["volumeMounts"] if mount["mountPath"] == "/sys"]
    assert sys_mount["readOnly"] is True


@pytest.mark.parametrize("components", [(), ("unprivileged",)])
def test_the_scc_admits_the_pods_it_is_for(components: tuple[str, ...], tmp_path: Path) -> None:
    """OpenShift's constraints allow what the pods ask for, and no privilege, volume kind or namespace beyond."""
    found = with_component(tmp_path, *components, base="openshift")
    scc = named(found, "SecurityContextConstraints")
    pod = named(found, "DaemonSet")["spec"]["template"]
    context = container(found)["securityContext"]
    kinds = {next(key for key in volume if key != "name") for volume in pod["spec"]["volumes"]}
    assert kinds == set(scc["volumes"])
    assert scc["allowHostPID"] == pod["spec"]["hostPID"]
    assert scc["allowPrivilegedContainer"] == context["privileged"]
    assert scc["allowPrivilegeEscalation"] == context.get("allowPrivilegeEscalation", True)
    assert scc["requiredDropCapabilities"] == context.get("capabilities", {}).get("drop", [])
    assert (scc["allowHostNetwork"], scc["allowHostIPC"], scc["allowHostPorts"]) == (False, False, False)
    assert pod["metadata"]["annotations"]["openshift.io/required-scc"] == scc["metadata"]["name"]
    role = next(one for one in found if one["kind"] == "Role" and one["metadata"]["name"] == "devd-scc")
    assert role["rules"][0]["resourceNames"] == [scc["metadata"]["name"]]


def blocks(page: Path) -> list[str]:
    """Return the YAML that a page shows."""
    found = re.findall(r"^( *)```yaml\n(.*?)^ *```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(text) for _, text in found]


def test_the_page_tells_how_to_go_to_another_namespace(tmp_path: Path) -> None:
    """What docs/openshift.md shows for another namespace moves everything there, and leaves the cluster's own alone."""
    inner, outer = (text for text in blocks(OPENSHIFT_PAGE) if "Kustomization" in text and "other" in text)
    up = "/".join([".."] * len((tmp_path / "other").resolve().parts[1:]))
    (tmp_path / "other").mkdir()
    inner = inner.replace("../../devd/", f"{up}{ROOT}/")
    (tmp_path / "other" / "kustomization.yaml").write_text(inner, encoding="utf-8")
    (tmp_path / "kustomization.yaml").write_text(outer, encoding="utf-8")
    found = kustomized(tmp_path)
    assert "namespace" not in named(found, "SecurityContextConstraints")["metadata"]
    assert named(found, "Namespace")["metadata"]["name"] == "other"
    subjects = [subject for one in found if one["kind"] == "RoleBinding" for subject in one["subjects"]]
    assert subjects == [{"kind": "ServiceAccount", "name": "devd", "namespace": "other"}]
    namespaced = [one for one in found if one["kind"] not in ("SecurityContextConstraints", "Namespace")]
    assert {one["metadata"]["namespace"] for one in namespaced} == {"other"}


def test_the_page_labels_what_devd_writes() -> None:
    """The MachineConfig for the smaller profile labels each directory that devd makes on the node and writes to."""
    [unit] = (
        unit["contents"]
        for text in blocks(OPENSHIFT_PAGE)
        for one in yaml.safe_load_all(text)
        if one["kind"] == "MachineConfig"
        for unit in one["spec"]["config"]["systemd"]["units"]
        if "chcon" in unit["contents"]
    )
    found = overlay("restricted")
    read_only = {one["name"] for one in container(found)["volumeMounts"] if one.get("readOnly")}
    written = [
        one["hostPath"]["path"]
        for one in named(found, "DaemonSet")["spec"]["template"]["spec"]["volumes"]
        if one.get("hostPath", {}).get("type") == "DirectoryOrCreate" and one["name"] not in read_only
    ]
    of_devd = [path for path in written if not path.startswith("/var/lib/kubelet")]
    made, labelled = (next(line for line in unit.splitlines() if word in line) for word in ("mkdir", "chcon"))
    assert len(of_devd) == 4
    assert [path for path in of_devd if path not in made.split() or path not in labelled.split()] == []
    assert container(found)["securityContext"]["seLinuxOptions"]["level"] == "s0"


@pytest.mark.parametrize("name", OVERLAYS)
def test_only_readiness_asks_for_the_kubelet(name: str) -> None:
    """A daemon without its kubelet is not replaced, and is not counted as done."""
    one = container(overlay(name))
    commands = {key: value["exec"]["command"] for key, value in one.items() if key.endswith("Probe")}
    assert commands == {
        "startupProbe": ["devd", "health"],
        "readinessProbe": ["devd", "health", "--ready"],
        "livenessProbe": ["devd", "health"],
    }


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_pods_priority_has_a_quota(name: str) -> None:
    """Where the API server admits the pods' class only by a quota, there is one, and it leaves room for every node."""
    found = overlay(name)
    quota = named(found, "ResourceQuota")["spec"]
    pod = named(found, "DaemonSet")["spec"]["template"]["spec"]
    assert quota["scopeSelector"]["matchExpressions"] == [
        {"scopeName": "PriorityClass", "operator": "In", "values": [pod["priorityClassName"]]}
    ]
    assert int(quota["hard"]["pods"]) > 100_000


def test_the_page_tells_of_every_mount() -> None:
    """docs/deploy.md has a row for each mount, so that none is there without a reason."""
    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    missing = [
        one["mountPath"]
        for one in container(overlay("kubernetes"))["volumeMounts"]
        if not any(row.startswith(f"| `{one['mountPath']}`") for row in rows)
    ]
    assert missing == []
