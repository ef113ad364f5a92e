"""The Helm chart, rendered by the real helm, beside what kustomize makes."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.manifests import (
    API_VERSIONS,
    CHART,
    OVERLAYS,
    complaints,
    configuration,
    container,
    named,
    overlay,
    templated,
    tool,
)
from tests.deploy.test_manifests import with_component

Key = tuple[str, str]


def values_of(name: str) -> list[str | Path]:
    """Return helm's arguments that make what an overlay makes."""
    file = CHART / "examples" / f"{name}.yaml"
    more: list[str | Path] = ["--values", file] if file.exists() else []
    return ["--set", "namespace.create=true", *more]


def comparable(found: list[dict[str, Any]]) -> dict[Key, Any]:
    """Return objects by kind and name: lists that the API takes as sets in one order, embedded YAML as data."""
    result: dict[Key, Any] = {}
    for one in found:
        if one["kind"] == "ConfigMap":
            one = {**one, "data": {key: yaml.safe_load(text) for key, text in one["data"].items()}}  # noqa: PLW2901
        key = (one["kind"], one["metadata"]["name"])
        assert key not in result
        result[key] = _sorted_sets(one)
    return result


def _sorted_sets(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted_sets(inner) for key, inner in value.items()}
    if isinstance(value, list):
        inner = [_sorted_sets(one) for one in value]
        if all(isinstance(one, dict) and "name" in one for one in inner):
            return sorted(inner, key=lambda one: (str(one["name"]), str(one.get("mountPath"))))
        return inner
    return value


@pytest.mark.parametrize("name", OVERLAYS)
def test_helm_and_kustomize_make_the_same_objects(name: str) -> None:
    """The chart with the overlay's values makes the overlay's objects, field for field."""
    assert comparable(templated(*values_of(name))) == comparable(overlay(name))


@pytest.mark.parametrize(
    ("components", "values"),
    [
        (("monitoring",), ("monitoring.enabled",)),
        (("monitoring", "alerts"), ("monitoring.enabled", "monitoring.alerts")),
        (("nvidia",), ("nvidia.enabled",)),
        (("nfd",), ("nfd.enabled",)),
    ],
    ids=lambda names: names[-1],
)
def test_components_are_values_of_the_chart(
    components: tuple[str, ...], values: tuple[str, ...], tmp_path: Path
) -> None:
    """What a component adds to the overlay, its value adds to the chart."""
    settings = ",".join([*(f"{value}=true" for value in values), "config.metrics.listen=0.0.0.0:9400"])
    chart = comparable(templated("--set", "namespace.create=true", "--set", settings))
    built = comparable(with_component(tmp_path, *components))
    # A component leaves the configuration alone; the chart insists on the port.
    assert chart["ConfigMap", "devd"]["data"]["devd.yaml"].pop("metrics") == {"listen": "0.0.0.0:9400"}
    if "nfd" in components:
        # kustomize does not label what a component brings.
        chart["NodeFeatureRule", "devd"]["metadata"].pop("labels")
    assert chart == built


@pytest.mark.parametrize(
    ("components", "values"),
    [
        (("unprivileged",), ("profile=unprivileged",)),
        (
            ("monitoring", "openshift-monitoring"),
            ("monitoring.enabled=true", "config.metrics.listen=0.0.0.0:9400"),
        ),
    ],
    ids=lambda names: names[-1],
)
def test_components_on_openshift_are_values_of_the_chart(
    components: tuple[str, ...], values: tuple[str, ...], tmp_path: Path
) -> None:
    """What a component changes of OpenShift's own objects, its value changes in the chart."""
    settings = ",".join(("namespace.create=true", "openshift.enabled=true", *values))
    chart = comparable(templated("--set", settings))
    chart["ConfigMap", "devd"]["data"]["devd.yaml"].pop("metrics", None)
    assert chart == comparable(with_component(tmp_path, *components, base="openshift"))


def test_the_platforms_prometheus_may_find_the_pods() -> None:
    """With monitoring on OpenShift its Prometheus may read what it needs to find pods, and nothing else."""
    both = "openshift.enabled=true,monitoring.enabled=true,config.metrics.listen=0.0.0.0:9400"
    found = {f"{one['metadata']['name']}/{one['kind']}": one for one in templated("--set", both)}
    assert found["devd-monitoring/Role"]["rules"] == [
        {"apiGroups": [""], "resources": ["pods", "services", "endpoints"], "verbs": ["get", "list", "watch"]}
    ]
    assert found["devd-monitoring/RoleBinding"]["subjects"] == [
        {"kind": "ServiceAccount", "name": "prometheus-k8s", "namespace": "openshift-monitoring"}
    ]
    plain = templated("--set", "monitoring.enabled=true,config.metrics.listen=0.0.0.0:9400")
    assert {one["kind"] for one in plain} & {"Role", "RoleBinding"} == set()


@pytest.mark.parametrize("listen", ["0.0.0.0:9500", "10.0.0.7:9500"])
def test_the_port_is_that_of_the_configuration(listen: str) -> None:
    """The port that is named, let through and scraped is the one devd listens on."""
    found = templated("--set", f"monitoring.enabled=true,config.metrics.listen={listen}")
    [port] = container(found)["ports"]
    assert (port["name"], port["containerPort"]) == ("metrics", 9500)
    [rule] = named(found, "NetworkPolicy")["spec"]["ingress"]
    assert rule["ports"] == [{"port": 9500, "protocol": "TCP"}]
    assert named(found, "PodMonitor")["spec"]["podMetricsEndpoints"][0]["port"] == "metrics"


LABELLED = {"key": "feature.node.kubernetes.io/devd", "operator": "In", "values": ["true"]}
GPU = {"key": "pool", "operator": "In", "values": ["gpu"]}
ARM = {"key": "kubernetes.io/arch", "operator": "In", "values": ["arm64"]}


def test_node_features_are_asked_for_beside_the_affinity(tmp_path: Path) -> None:
    """With nfd an affinity of one's own stays, and each of its terms asks for the label as well: one term is enough."""
    required = {"nodeSelectorTerms": [{"matchExpressions": [GPU]}, {"matchExpressions": [ARM]}]}
    mine = {
        "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required},
        "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []},
    }
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump({"affinity": mine, "nfd": {"enabled": True}}), encoding="utf-8")
    found = named(templated("--values", file), "DaemonSet")["spec"]["template"]["spec"]["affinity"]
    assert found["podAntiAffinity"] == mine["podAntiAffinity"]
    terms = found["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert terms == [{"matchExpressions": [GPU, LABELLED]}, {"matchExpressions": [ARM, LABELLED]}]
    alone = tmp_path / "alone.yaml"
    alone.write_text(yaml.safe_dump({"affinity": mine}), encoding="utf-8")
    assert named(templated("--values", alone), "DaemonSet")["spec"]["template"]["spec"]["affinity"] == mine


@pytest.mark.parametrize(
    ("setting", "classes"),
    [
        ("priorityClassName=mine", [["mine"]]),
        ("priorityClassName=", []),
        ("priorityClassQuota=false", []),
    ],
)
def test_the_quota_is_for_the_pods_class(setting: str, classes: list[list[str]]) -> None:
    """The quota is for the class the pods have; without a class, or where it is not wanted, there is none."""
    quotas = [one["spec"] for one in templated("--set", setting) if one["kind"] == "ResourceQuota"]
    assert [one["scopeSelector"]["matchExpressions"][0]["values"] for one in quotas] == classes


def test_examples_are_for_overlays() -> None:
    """Each values file of the chart's examples stands for an overlay."""
    assert {file.stem for file in (CHART / "examples").glob("*.yaml")} <= set(OVERLAYS)


def test_helm_lint() -> None:
    """Helm's own linter has no warning about the chart."""
    done = tool("helm", "lint", "--strict", CHART)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("profile=admin", "profile"),
        ("imagePullPolicy=Always", "imagePullPolicy"),
        ("image.digest=sha256:1", "digest"),
        ("image.repository=", "repository"),
        ("image.repository=registry.example.com/devd:1", "repository"),
        ("image.repository=Not An Image", "repository"),
        ("image.repository=https://registry.example.com/devd", "repository"),
        ("image.tag=-1", "tag"),
        ("resources=null", "resources"),
        ("resources.request.cpu=1", "resources"),
        ("monitoring=null", "monitoring"),
        ("monitoring.enabled=true,config.metrics.listen=127.0.0.1:9400", "inside the pod only"),
        ("monitoring.enabled=true,config.metrics.listen=9400", "config.metrics.listen"),
        ("maxUnavailable=0%", "maxUnavailable"),
        ("terminationGracePeriodSeconds=1", "terminationGracePeriodSeconds"),
        ("kubelet.rootDir=var/lib", "rootDir"),
        ("config.resources=null", "config"),
        ("monitoring.enabled=maybe", "enabled"),
        ("monitoring.enabled=true", "config.metrics.listen"),
        ("monitoring.alerts=true", "monitoring.enabled"),
        ("nvidia.runtimeClassName=", "runtimeClassName"),
    ],
)
def test_the_schema_refuses_wrong_values(setting: str, told: str) -> None:
    """A value of the wrong kind, or an unknown one, is refused before anything is made, by its name."""
    done = tool("helm", "template", "devd", CHART, "--set", setting)
    assert done.returncode != 0
    assert told in done.stderr


def test_a_digest_goes_before_the_tag() -> None:
    """An image named by digest is used by digest."""
    digest = "sha256:" + "0" * 64
    found = templated("--set", "image.tag=1.2.3", "--set", f"image.digest={digest}")
    assert container(found)["image"] == f"devd@{digest}"


def test_two_releases_do_not_share_names() -> None:
    """A release of another name has objects of its own names and labels, and its own configuration."""
    done = tool("helm", "template", "lab", CHART, "--namespace", "lab", "--set", "openshift.enabled=true")
    assert done.returncode == 0, done.stderr
    found = [one for one in yaml.safe_load_all(done.stdout) if one]
    assert all(one["metadata"]["name"].startswith("lab-devd") for one in found)
    assert all(one["metadata"]["labels"]["app.kubernetes.io/instance"] == "lab" for one in found)
    assert named(found, "RoleBinding")["subjects"] == [
        {"kind": "ServiceAccount", "name": "lab-devd", "namespace": "lab"}
    ]
    assert [line for one in found for line in complaints(one, API_VERSIONS[-1])] == []


def test_the_configuration_is_what_was_given(tmp_path: Path) -> None:
    """A configuration given as a value reaches the ConfigMap unchanged, placeholders and all."""
    given = {
        "resources": [
            {
                "name": "example.com/port",
                "driver": "node",
                "match": {"path": "/dev/ttyS[0-9]"},
                "env": {"PORTS": "{paths}", "TEXT": "{{ .Values }} on: 'x'"},
            }
        ]
    }
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump({"config": given}), encoding="utf-8")
    assert yaml.safe_load(configuration(templated("--values", file))) == given
