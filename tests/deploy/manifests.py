"""Renders the manifests with the real kustomize and helm, and checks objects against the schemas of the API.

The tools are fetched by deploy/tools/get.sh. In CI that happens here; elsewhere tests that need them are skipped until
it has been run by hand.
"""

import json
import os
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "devd"
OVERLAYS = sorted(path.parent.name for path in (DEPLOY / "kustomize" / "overlays").glob("*/kustomization.yaml"))
TOOLS = ROOT / ".venv" / "deploy-tools"
SCHEMAS = TOOLS / "schemas" / "kubernetes_validate" / "kubernetes-json-schema"
CRDS = Path(__file__).with_name("crds")
TOOL_WITHIN_S = 60.0

API_VERSIONS = ("1.26.0", "1.37.0")
"""The oldest release the chart promises to work with, and the newest with schemas at hand."""

Object = dict[str, Any]


@cache
def tools() -> Path:
    """Return the directory of helm and kubectl; skip the test where they were not fetched."""
    if not (TOOLS / "stamp").exists():
        if not os.environ.get("CI"):
            pytest.skip("needs helm, kubectl and the API's schemas: run deploy/tools/get.sh")
        subprocess.run([DEPLOY / "tools" / "get.sh"], check=True, timeout=300)
    return TOOLS / "bin"


def tool(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run helm or kubectl and return what it said, whatever the exit code is."""
    command = [str(tools() / name), *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=TOOL_WITHIN_S)


def objects(text: str) -> list[Object]:
    """Return the objects of a stream of YAML documents."""
    return [one for one in yaml.safe_load_all(text) if one]


@cache
def _rendered(name: str, *arguments: str | Path) -> str:
    done = tool(name, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def kustomized(directory: Path) -> list[Object]:
    """Return what ``kubectl kustomize`` makes of a directory."""
    return objects(_rendered("kubectl", "kustomize", directory))


def overlay(name: str) -> list[Object]:
    """Return the objects of one of our overlays."""
    return kustomized(DEPLOY / "kustomize" / "overlays" / name)


def templated(*arguments: str | Path) -> list[Object]:
    """Return what ``helm template`` makes of the chart, as release devd in the namespace devd-system."""
    return objects(_rendered("helm", "template", "devd", CHART, "--namespace", "devd-system", *arguments))


def named(found: Sequence[Object], kind: str) -> Object:
    """Return the one object of a kind."""
    [one] = [candidate for candidate in found if candidate["kind"] == kind]
    return one


def container(found: Sequence[Object]) -> Object:
    """Return devd's container."""
    [one] = named(found, "DaemonSet")["spec"]["template"]["spec"]["containers"]
    return dict(one)


def configuration(found: Sequence[Object]) -> str:
    """Return the configuration in the ConfigMap."""
    return str(named(found, "ConfigMap")["data"]["devd.yaml"])


# ---- schemas ----------------------------------------------------------------------------------------------------


@cache
def _validator(version: str, group_version: str, kind: str) -> Draft202012Validator:
    """Return the strict validator of one kind: the API's own, or ours for kinds that extensions bring."""
    tools()
    group, _, api = group_version.rpartition("/")
    ours = CRDS / f"{kind.lower()}.json"
    if ours.exists():
        return Draft202012Validator(json.loads(ours.read_text(encoding="utf-8")))
    folder = SCHEMAS / f"v{version}-local-strict"
    short = group.removesuffix(".k8s.io").split(".")[0]
    name = "-".join(part for part in (kind.lower(), short, api) if part)
    schema = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))

    def retrieve(uri: str) -> Resource[Any]:
        contents = json.loads((folder / Path(uri).name).read_text(encoding="utf-8"))
        return Resource.from_contents(contents, default_specification=DRAFT202012)

    registry: Registry[Any] = Registry(retrieve=retrieve)  # type: ignore[call-arg]  # an alias that mypy misses
    return Draft202012Validator(schema, registry=registry)


def complaints(one: Object, version: str) -> list[str]:
    """Return what the API's schema has against an object, one line each."""
    validator = _validator(version, one["apiVersion"], one["kind"])
    return [f"{one['kind']}: {error.json_path}: {error.message}" for error in validator.iter_errors(one)]
