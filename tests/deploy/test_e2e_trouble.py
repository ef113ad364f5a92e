"""The end-to-end tests on a cluster that has hiccups: a kubectl that fails in the middle of them."""

import ast
import json
import os
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from devd.daemon.plugin_server import socket_path
from tests.deploy.fake_kubectl import FakeKubectl, fails, says
from tests.deploy.manifests import ROOT
from tests.e2e.budget import CLEANING_TAKES_S, Budget
from tests.e2e.cluster import Cluster, full_name
from tests.e2e.deployment import deployed
from tests.e2e.kubectl import KubectlError, program
from tests.e2e.objects import CONTROL_PROGRAM, LEFT_ON_NODE, NAMESPACE, OFFERED, OPENING, POD_PROGRAM, cleaning

IMAGE = "registry.example.com/devd:1"
DOWN = fails("The connection to the server was refused")
MANIFESTS = "kind: Namespace"
MOMENT_S = 0.2
PYTEST_WITHIN_S = 60


def node(name: str, *, ready: bool = True, taint: str = "", images: tuple[str, ...] = ()) -> dict[str, object]:
    """Return a node as the API tells it."""
    offered = {key: str(count) for key, count in OFFERED.items()}
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": f"host-{name}"}},
        "spec": {"taints": [{"key": "x", "effect": taint}]} if taint else {},
        "status": {
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "images": [{"names": list(images)}],
            "allocatable": offered,
        },
    }


def pods() -> str:
    """Return a list with devd's pod, Ready."""
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    return json.dumps({"items": [{"metadata": {"name": "devd-1", "uid": "1"}, "status": ready}]})


NODES = json.dumps({"items": [node("one")]})
SOUND = [
    ("kustomize", [says(MANIFESTS)]),
    ("get nodes", [says(NODES)]),
    ("get node one", [says(json.dumps(node("one")))]),
    ("get pods -l", [says(pods())]),
    ("get pod cleaner", [says(json.dumps({"status": {"phase": "Succeeded"}}))]),
]
"""A cluster on which all goes well. Rules before these go first."""


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeKubectl:
    """Have the end-to-end tests' parts use a kubectl of ours."""
    fake = FakeKubectl(tmp_path)
    fake.rules(*SOUND)
    monkeypatch.setenv("KUBECTL", str(fake.program))
    monkeypatch.setattr("tests.e2e.deployment.CLEANED_WITHIN_S", 2 * MOMENT_S)
    return fake


def places(fake: FakeKubectl) -> dict[str, int]:
    """Return when the steps of the end were taken, as places in the order of all calls."""
    words = [one for one, _ in fake.calls()]
    steps = {
        "applied": [at for at, (one, given) in enumerate(fake.calls()) if one == "apply -f -" and given == MANIFESTS],
        "daemon ended": [at for at, one in enumerate(words) if one.startswith("delete daemonset devd")],
        "cleaned": [at for at, (_, given) in enumerate(fake.calls()) if "name: cleaner" in given],
        "deleted": [at for at, (one, given) in enumerate(fake.calls()) if "delete" in one and given == MANIFESTS],
    }
    return {step: found[0] for step, found in steps.items() if found}


def test_the_node_is_cleaned_after_the_daemon_and_before_the_namespace_goes(
    kubectl: FakeKubectl, tmp_path: Path
) -> None:
    """On a sound cluster all steps are taken, each once, in the order in which nothing is written again."""
    with deployed(Cluster(IMAGE, Budget(30.0)), tmp_path) as one:
        assert one.node == "one"
        assert list(places(kubectl)) == ["applied"]
    found = places(kubectl)
    assert len(found) == 4
    assert sorted(found, key=found.__getitem__) == list(found)


@pytest.mark.parametrize(
    "broken",
    ["exec", "delete daemonset", "delete pod", "get pod cleaner", "apply"],
)
def test_all_is_deleted_whatever_fails_before(kubectl: FakeKubectl, tmp_path: Path, broken: str) -> None:
    """Whichever call fails for good, in setting up or in cleaning, the objects are deleted, after everything else."""
    kubectl.rules((broken, [DOWN]), *SOUND)
    try:
        with deployed(Cluster(IMAGE, Budget(MOMENT_S)), tmp_path):
            pass
    except AssertionError as error:
        assert "refused" in str(error)  # noqa: PT017 - whether it is raised depends on the call
    [*_, (words, given)] = kubectl.calls()
    assert words.startswith("delete")
    assert given == MANIFESTS


def test_all_is_deleted_when_the_tests_are_interrupted(kubectl: FakeKubectl, tmp_path: Path) -> None:
    """Ctrl-C ends the tests, and still takes everything away."""
    with pytest.raises(KeyboardInterrupt), deployed(Cluster(IMAGE, Budget(30.0)), tmp_path):
        raise KeyboardInterrupt
    assert "deleted" in places(kubectl)


def test_a_deletion_that_fails_is_tried_again_and_told(kubectl: FakeKubectl, tmp_path: Path) -> None:
    """What was left because the server was away for a moment is deleted the second time; for good, it is an error."""
    kubectl.rules(("delete --ignore-not-found", [DOWN, says("")]), *SOUND)
    with deployed(Cluster(IMAGE, Budget(30.0)), tmp_path):
        pass
    kubectl.rules(("delete --ignore-not-found", [DOWN]), *SOUND)
    with pytest.raises(KubectlError, match="refused"), deployed(Cluster(IMAGE, Budget(30.0)), tmp_path):
        pass


def test_a_passing_error_is_not_yet(kubectl: FakeKubectl, tmp_path: Path) -> None:
    """Questions and orders that fail once, each in its place, do not end the tests."""
    once = ["get nodes", "get namespace", "apply", "get pods -l", "exec", "get node one"]
    sound = dict(SOUND)
    kubectl.rules(*((part, [DOWN, *sound.get(part, [says("")])]) for part in once), *SOUND)
    with deployed(Cluster(IMAGE, Budget(60.0)), tmp_path) as one:
        assert one.daemon() is not None


def test_the_last_error_is_told_when_the_time_is_up(kubectl: FakeKubectl) -> None:
    """A wait that fails says what for, which limit it reached, and what kubectl said last."""
    kubectl.rules(("get pods", [DOWN]))
    one = Cluster(IMAGE, Budget(30.0))
    with pytest.raises(AssertionError, match=r"devd's pod: not within 0\.2 s; the last error: .*refused"):
        one.budget.until(lambda: one.daemon() is not None, "devd's pod", MOMENT_S)


def test_all_waits_share_one_budget(kubectl: FakeKubectl) -> None:
    """Past the time for all no wait goes on, however long its own limit is, and the message says what gives more."""
    one = Cluster(IMAGE, Budget(CLEANING_TAKES_S + MOMENT_S, CLEANING_TAKES_S))
    with pytest.raises(AssertionError, match=r"never: the time for all is up .*DEVD_E2E_SECONDS"):
        one.budget.until(lambda: False, "never", 600.0)
    assert kubectl.calls() == []


def test_what_a_run_left_behind_goes_first(kubectl: FakeKubectl, tmp_path: Path) -> None:
    """A namespace that is there already is that of a run that was cut short: it is taken away before anything else."""
    kubectl.rules(("get namespace", [says(f"namespace/{NAMESPACE}")]), *SOUND)
    with deployed(Cluster(IMAGE, Budget(30.0)), tmp_path):
        found = places(kubectl)
        assert found["deleted"] < found["applied"]


@pytest.mark.parametrize(
    ("nodes", "wanted", "chosen"),
    [
        ([node("a", ready=False), node("b")], "", "b"),
        ([node("a"), node("b", images=(IMAGE,))], "", "b"),
        ([node("a", taint="NoSchedule", images=(IMAGE,)), node("b")], "", "b"),
        ([node("a", taint="PreferNoSchedule"), node("b")], "", "a"),
        ([node("a", taint="NoExecute")], "", "a"),
        ([node("a"), node("b", taint="NoSchedule")], "b", "b"),
    ],
)
def test_the_node_is_the_most_ordinary_one(
    kubectl: FakeKubectl, nodes: list[dict[str, object]], wanted: str, chosen: str
) -> None:
    """A Ready node without taints goes first, then one that has the image; a name goes before all that."""
    kubectl.rules(("get nodes", [says(json.dumps({"items": nodes}))]))
    one = Cluster(IMAGE, Budget(30.0))
    assert one.choose_node(wanted) == f"host-{chosen}"
    assert one.node == chosen


def test_a_node_that_is_not_there_is_told(kubectl: FakeKubectl) -> None:
    """A name that no Ready node has is an error that has the name."""
    kubectl.rules(("get nodes", [says(NODES)]))
    with pytest.raises(AssertionError, match="no Ready, schedulable Linux node other"):
        Cluster(IMAGE, Budget(30.0)).choose_node("other")


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("devd", "docker.io/library/devd:latest"),
        ("devd:0.1.0", "docker.io/library/devd:0.1.0"),
        ("me/devd", "docker.io/me/devd:latest"),
        ("localhost/devd:1", "localhost/devd:1"),
        ("registry:5000/devd:1", "registry:5000/devd:1"),
        ("ghcr.io/me/devd@sha256:0", "ghcr.io/me/devd@sha256:0"),
    ],
)
def test_images_are_compared_by_their_full_names(short: str, full: str) -> None:
    """What a node calls an image is found by the name it was asked for."""
    assert full_name(short) == full


def test_cleaning_takes_ours_and_nothing_else(tmp_path: Path) -> None:
    """The program that cleans a node removes what the tests left, and leaves what lies beside it."""
    left = {path.strip("/"): pattern for path, pattern in LEFT_ON_NODE.items()}
    ours, others = [], []
    for directory, pattern in left.items():
        ours.append(tmp_path / directory / pattern.replace("*", "node-1234"))
        others += [tmp_path / directory / "devd", tmp_path / directory / "kubelet.sock"]
    for path in (*ours, *others):
        path.mkdir(parents=True)
        (path / "file").touch()
    subprocess.run(["sh", "-c", cleaning(left, str(tmp_path))], check=True, timeout=20)
    assert [path for path in ours if path.exists()] == []
    assert all((path / "file").exists() for path in others)


def test_cleaning_takes_the_sockets_of_a_daemon_that_was_killed() -> None:
    """The pattern for sockets fits those of the resources that the tests offer, and no other devd's."""
    plugins = Path("/var/lib/kubelet/device-plugins")
    pattern = LEFT_ON_NODE[str(plugins)]
    assert all(fnmatch(socket_path(plugins, resource).name, pattern) for resource in OFFERED)
    assert not fnmatch(socket_path(plugins, "devd.io/serial").name, pattern)


def test_opening_says_what_came_of_it(tmp_path: Path) -> None:
    """The lines that open a device, in the pods and beside devd, tell success from each error by its name."""
    (tmp_path / "file").touch()
    for path, word in (("/dev/null", "opened"), (tmp_path / "none", "ENOENT"), (tmp_path / "file/below", "ENOTDIR")):
        text = f"import errno, os\n{OPENING}\nprint(opening({str(path)!r}))"
        done = subprocess.run([sys.executable, "-c", text], check=True, capture_output=True, text=True, timeout=20)
        assert done.stdout == f"{word}\n"
    for text in (POD_PROGRAM, CONTROL_PROGRAM):
        assert ast.parse(text, "pod").body


def test_without_a_kubectl_it_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither KUBECTL nor a fetched one nor one of PATH: the error says where to get it; a wrong one is named."""
    monkeypatch.delenv("KUBECTL", raising=False)
    monkeypatch.setattr("tests.e2e.kubectl.OURS", tmp_path / "kubectl")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(KubectlError, match=r"deploy/tools/get\.sh .* KUBECTL"):
        Cluster(IMAGE, Budget(30.0))
    monkeypatch.setenv("KUBECTL", str(tmp_path / "none"))
    assert program() == str(tmp_path / "none")
    one = Cluster(IMAGE, Budget(30.0))
    with pytest.raises(KubectlError, match=r"none: No such file .*KUBECTL"):
        one.daemon()


# ---- when they run ----------------------------------------------------------------------------------------------


def pytest_run(fake: FakeKubectl, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run pytest as a person does, with a cluster that does not answer."""
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("PYTEST") and key not in ("KUBECONFIG", "DEVD_IMAGE")
    }
    environment |= {"KUBECTL": str(fake.program), "DEVD_E2E_SECONDS": str(CLEANING_TAKES_S), **more}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True, timeout=PYTEST_WITHIN_S
    )


CLUSTER = {"KUBECONFIG": "/nowhere", "DEVD_IMAGE": IMAGE}


def test_a_run_of_all_tests_deploys_nothing(kubectl: FakeKubectl) -> None:
    """With a cluster and an image in the environment, a run of all tests still leaves the cluster alone."""
    kubectl.rules(("", [DOWN]))
    others = [f"--ignore={path.relative_to(ROOT)}" for path in (ROOT / "tests").iterdir() if path.name != "e2e"]
    done = pytest_run(kubectl, "tests", *others, **CLUSTER)
    assert done.returncode == 0, done.stdout
    assert "only when asked for" in done.stdout
    assert kubectl.calls() == []


@pytest.mark.parametrize(
    "asked", ["tests/e2e", "tests/e2e/test_cluster.py::test_device_was_reset_before_the_container_started"]
)
def test_asked_for_by_name_they_run(kubectl: FakeKubectl, asked: str) -> None:
    """Named on the command line, with a cluster and an image, the tests go to the cluster."""
    kubectl.rules(("", [DOWN]))
    done = pytest_run(kubectl, asked, **CLUSTER)
    assert done.returncode == 1, done.stdout
    assert "refused" in done.stdout
    assert kubectl.calls() != []


@pytest.mark.parametrize("given", [{}, {"KUBECONFIG": "/nowhere"}, {"DEVD_IMAGE": IMAGE}])
def test_make_says_what_is_missing(given: dict[str, str]) -> None:
    """``make e2e`` without a cluster or an image fails, and names both."""
    environment = {key: value for key, value in os.environ.items() if key not in CLUSTER and not key.startswith("MAKE")}
    done = subprocess.run(
        ["make", "e2e", "--old-file=.venv/.installed"],
        cwd=ROOT,
        env={**environment, **given},
        check=False,
        capture_output=True,
        text=True,
        timeout=PYTEST_WITHIN_S,
    )
    assert done.returncode != 0
    assert "KUBECONFIG" in done.stdout
    assert "DEVD_IMAGE" in done.stdout
