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
