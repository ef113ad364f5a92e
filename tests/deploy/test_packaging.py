"""What the image is built from: the lock files and the Containerfile."""

import re
import tomllib

from devd import __version__
from tests.deploy.manifests import CHART, DEPLOY, ROOT

PIN = re.compile(r"^([a-z0-9-]+)==(\S+)(.*)$", re.MULTILINE)


def pins(name: str) -> dict[str, str]:
    """Return name and version of what a lock file has for CPython."""
    text = (DEPLOY / "image" / name).read_text(encoding="utf-8")
    return {one[1]: one[2] for one in PIN.finditer(text) if "pypy" not in one[3]}


def normal(name: str) -> str:
    """Return a distribution's name as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_image_has_what_the_tests_ran_with() -> None:
    """Each version in the image's lock file is the one in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    tested = {normal(line.split("==")[0]): line.split("==")[1] for line in lines if "==" in line}
    locked = pins("requirements.lock")
    assert {name: tested.get(name) for name in locked} == locked


def test_the_lock_covers_every_dependency() -> None:
    """Each dependency of devd is in the lock file."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {normal(re.split(r"[<>=!~;\[ ]", one)[0]) for one in project["dependencies"]}
    assert wanted <= pins("requirements.lock").keys()


def test_everything_is_locked_by_hash_and_names_no_index() -> None:
    """Each pin of the lock files has a hash behind it, and no file says where packages come from."""
    for name in ("requirements.lock", "build-requirements.lock"):
        text = (DEPLOY / "image" / name).read_text(encoding="utf-8")
        blocks = re.split(r"\n(?=[a-z])", text)
        assert all("--hash=sha256:" in block for block in blocks)
        assert "://" not in text


def test_the_base_is_named_once() -> None:
    """One build argument names what the image is built on, and every stage comes from it."""
    text = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
    assert len(re.findall(r"^ARG BASE=", text, re.MULTILINE)) == 1
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE) == ["${BASE}", "runtime", "runtime"]


def test_versions_agree() -> None:
    """The chart, the manifests' image tag and the program have one version."""
    source = (ROOT / "devd" / "__init__.py").read_text(encoding="utf-8")
    program = re.search(r'^__version__ = "(.*)"', source, re.MULTILINE)
    assert program is not None
    chart = (CHART / "Chart.yaml").read_text(encoding="utf-8")
    assert f"appVersion: {program[1]}\n" in chart
    base = (DEPLOY / "kustomize" / "base" / "kustomization.yaml").read_text(encoding="utf-8")
    assert f"newTag: {program[1]}\n" in base


def test_nobody_is_told_to_install_devd_from_an_index() -> None:
    """No page, unit or comment tells to install a package of devd's name: on PyPI that is another project's."""
    pages = [ROOT / "README.md", ROOT / "Makefile", ROOT / "pyproject.toml"]
    for directory in ("docs", "deploy", "examples", "daemon", "workers"):
        pages += [file for file in (ROOT / directory).rglob("*") if file.is_file() and file.suffix != ".pyc"]
    by_name = re.compile(r"pip3? install[^\n`]*[ '\"]devd(\[|==|[ '\")`;]|$)", re.MULTILINE)
    assert by_name.search("run pip install 'devd[nvidia]'")
    assert by_name.search("/opt/devd/bin/pip install devd).")
    assert [str(file) for file in pages if by_name.search(file.read_text(encoding="utf-8"))] == []


def test_the_unit_is_installed_by_the_lock() -> None:
    """The page that says how /opt/devd is made installs what the image has, by hash, and this version of devd."""
    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    assert "/opt/devd/bin/pip install --require-hashes --only-binary :all: -r deploy/image/requirements.lock\n" in page
    assert f"build/wheel/devd-{__version__}-py3-none-any.whl\n" in page
