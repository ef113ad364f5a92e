"""The check of the dependencies: it passes for the project itself, and each of its rules refuses what it is for."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import pytest
from packaging.version import Version

from deploy.audit import advisories, pins, rules

ROOT = Path(__file__).parents[2]
CONSTRAINTS, LOCK, BUILD, TOOLS = rules.CONSTRAINTS, rules.RUNTIME_LOCK, rules.BUILD_LOCK, rules.TOOLS_LOCK
LIST = advisories.FILE
FILES = (CONSTRAINTS, LOCK, BUILD, TOOLS, LIST, "pyproject.toml")
REVIEWED = advisories.load(ROOT / LIST).reviewed
HASH = "--hash=sha256:" + "0" * 64


@dataclass(frozen=True)
class Planted:
    """A change of one file, and what the check has to say of it."""

    name: str
    file: str
    change: Callable[[str], str]
    says: str


def swap(pattern: str, by: str) -> Callable[[str], str]:
    """Return a change that replaces the first match, which must be there."""

    def change(text: str) -> str:
        changed, times = re.subn(pattern, by, text, count=1, flags=re.MULTILINE)
        assert times == 1, pattern
        assert changed != text
        return changed

    return change


def add(line: str) -> Callable[[str], str]:
    """Return a change that adds a line at the end."""
    return lambda text: f"{text.rstrip()}\n{line}\n"


GRPCIO = r"^grpcio==(\S+)"
PLANTED = [
    Planted("range", CONSTRAINTS, swap(GRPCIO, r"grpcio>=\1"), r"constraints.txt:\d+: 'grpcio>=.*' is no exact pin"),
    Planted("wildcard", CONSTRAINTS, swap(GRPCIO, "grpcio==1.*"), "is no exact pin"),
    Planted("no version", LOCK, swap(GRPCIO, "grpcio"), f"{LOCK}:\\d+: 'grpcio' is no exact pin"),
    Planted("two specifiers", LOCK, swap(GRPCIO, r"grpcio==\1,>1"), "is no exact pin"),
    Planted("garbage", LOCK, add("!!!"), "'!!!' is no exact pin"),
    Planted("twice", CONSTRAINTS, add("GRPCIO==1.85.1"), "grpcio is pinned twice; see constraints.txt:"),
    Planted("unhashed", LOCK, add("planted==1.0"), "planted has no hash"),
    Planted("unhashed build", BUILD, add("planted==1.0"), f"{BUILD}:\\d+: planted has no hash"),
    Planted("unhashed tool", TOOLS, add("planted==1.0"), f"{TOOLS}:\\d+: planted has no hash"),
    Planted("weak hash", LOCK, add("planted==1.0 --hash=md5:0"), "planted has the hash 'md5:0'"),
    Planted("short hash", LOCK, swap("--hash=sha256:.", "--hash=sha256:"), "has the hash 'sha256:"),
    Planted("index", LOCK, add("--index-url https://example.com/simple"), "'https://' names a place to fetch from"),
    Planted("index option", LOCK, add("-i mirror"), "option '-i mirror'"),
    Planted("extra index", BUILD, add("--extra-index-url=mirror"), "option '--extra-index-url=mirror'"),
    Planted("find links", LOCK, add("--find-links wheels"), "option '--find-links wheels'"),
    Planted("trusted host", TOOLS, add("--trusted-host mirror"), "option '--trusted-host mirror'"),
    Planted("commented address", LOCK, add("# from http://example.com"), "'http://' names a place to fetch from"),
    Planted("named address", CONSTRAINTS, add("planted @ file:///tmp/x.whl"), "names a place to fetch from"),
    Planted(
        "other lock", "deploy/new/other.lock", add("planted==1.0"), r"deploy/new/other.lock:\d: planted has no hash"
    ),
    Planted("empty", BUILD, lambda _text: "# nothing\n", f"{BUILD}: pins nothing"),
    Planted("disagree", LOCK, swap(GRPCIO, "grpcio==1.86.0"), r"grpcio 1.86.0, constraints.txt:\d+ has \d"),
    Planted("untested", LOCK, add(f"planted==1.0 {HASH}"), "planted is not in constraints.txt"),
    Planted(
        "new", "pyproject.toml", swap('"psutil>', '"planted>=1", "psutil>'), "planted of pyproject.toml is not pinned"
    ),
    Planted(
        "new dev", "pyproject.toml", swap('"jsonschema>', '"planted", "jsonschema>'), "constraints.txt: planted of"
    ),
    Planted("build", "pyproject.toml", swap('"setuptools>', '"hatchling>1", "setuptools>'), f"{BUILD}: hatchling of"),
    Planted("range left", "pyproject.toml", swap(r'"psutil>=6"', '"psutil>=99"'), "is outside pyproject.toml's >=99"),
    Planted(
        "unlocked", LOCK, swap(r"^typing-extensions==", "typing-extensionz=="), "typing-extensions, which a depend"
    ),
    Planted("not installed", CONSTRAINTS, swap(r"^grimp==.*", "grimp==99"), "grimp 99, installed is"),
    Planted("list", LIST, swap('"affected": ."<1.53.0".', '"affected": ["=<1"]'), "InvalidSpecifier"),
    Planted("list date", LIST, swap('"reviewed": "....', '"reviewed": "x'), "Invalid isoformat"),
    Planted("list id", LIST, swap('"ids": ..*', '"ids": [],'), "'ids' and 'affected' are lists, not empty"),
    Planted("list name", LIST, swap('"pyyaml"', '"PyYAML"'), "package 'PyYAML' is written 'pyyaml'"),
    Planted("list fix", LIST, swap('"fixed": "1.53.0"', '"fixed": "1.52"'), "1.52, where it is said to be fixed, is"),
    Planted("list source", LIST, swap('"source": "https', '"source": "http'), "a source .https://...* are needed"),
    Planted("list cut", LIST, lambda text: text[:100], f"{LIST}: "),
    Planted(
        "advisory",
        CONSTRAINTS,
        swap(r"^PyYAML==.*", "PyYAML==5.3"),
        r"constraints.txt:\d+: pyyaml 5.3 has .*2020-14343",
    ),
    Planted(
        "advisory in lock", LOCK, swap(r"^msgpack==\S+", "msgpack==1.2.0"), "msgpack 1.2.0 has .*; take 1.2.1 or newer"
    ),
    Planted(
        "advisory in build",
        BUILD,
        swap(r"^setuptools==\S+", "setuptools==78.1.0"),
        "setuptools 78.1.0 has .*2025-47273",
    ),
    Planted(
        "advisory in range", "pyproject.toml", swap("pydantic>=2.11", "pydantic>=2.3"), "pydantic 2.3 has .*2024-3772"
    ),
]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Make a copy of the files that the check reads."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def as_pinned() -> dict[str, Version]:
    """Return an environment that has what constraints.txt says."""
    return {pin.name: pin.version for pin in pins.read(ROOT, CONSTRAINTS, hashed=False).by_name.values()}


def check(root: Path, today: date = REVIEWED) -> list[str]:
    """Return what the check says of a tree, everything in it installed as the project pins it."""
    return [str(one) for one in rules.check(root, today, as_pinned())]


def test_project_itself_is_well(tree: Path) -> None:
    """The project's own files break no rule, and neither does their copy, which the planted ones are made of."""
    assert check(ROOT) == check(tree) == []


@pytest.mark.parametrize("planted", PLANTED, ids=lambda one: one.name)
def test_refuses(planted: Planted, tree: Path) -> None:
    """Each planted defect is named with its file, and what is said is an error."""
    path = tree / planted.file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(planted.change(path.read_text(encoding="utf-8") if path.exists() else ""), encoding="utf-8")
    found = check(tree)
    assert [one for one in found if re.search(planted.says, one) and not one.startswith("warning")], found


def test_installed_versions_that_differ_are_refused() -> None:
    """What is installed otherwise than pinned, or for devd and not pinned, is an error; a stranger's is a warning."""
    constraints = pins.read(ROOT, CONSTRAINTS, hashed=False)
    ours = set(as_pinned()) | {"planted"}
    environment = as_pinned() | {"grpcio": Version("1.0"), "planted": Version("1"), "stranger": Version("2")}
    del environment["psutil"]
    said = {str(one) for one in rules.drift(constraints, environment, ours)}
    assert len(said) == 4
    for wanted in (
        r"constraints.txt:\d+: grpcio \S+, installed is 1.0; run make -B setup",
        r"constraints.txt:\d+: psutil \S+ is not installed",
        r"^constraints.txt: planted 1 is installed and not pinned",
        r"^warning: constraints.txt: stranger 2 is installed and not pinned; nothing of devd asks for it",
    ):
        assert [one for one in said if re.search(wanted, one)], wanted


def test_list_nobody_looked_at_for_long_is_a_warning(tree: Path) -> None:
    """After 180 days the list warns, and does not fail."""
    assert check(tree, REVIEWED + timedelta(days=180)) == []
    [found] = rules.check(tree, REVIEWED + timedelta(days=181), as_pinned())
    assert not found.fatal
    assert str(found).startswith(f"warning: {LIST}: last reviewed 181 days ago")


@pytest.mark.parametrize(
    "entry", json.loads((ROOT / LIST).read_text(encoding="utf-8"))["advisories"], ids=lambda one: one["ids"][0]
)
def test_each_advisory_is_found(entry: dict[str, object]) -> None:
    """Each advisory of the list speaks against a version it affects, and against none from its fix on."""
    known = advisories.load(ROOT / LIST)
    [one] = [one for one in known.advisories if list(one.ids) == entry["ids"]]
    assert one in known.of(one.package, max(_named(one)))
    assert one not in known.of(one.package, one.fixed)
    assert one not in known.of(one.package, Version("9999"))


def _named(one: advisories.Advisory) -> list[Version]:
    """Return versions that the ranges themselves include: lower bounds, and 0 where there is none."""
    bounds = [Version(part.version) for spec in one.affected for part in spec if part.operator in {">=", "<="}]
    return bounds or [Version("0.1")]


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "deploy.audit", *arguments]
    environment = {**os.environ, "https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_command_tells_by_its_exit_status(tree: Path) -> None:
    """The command ends with 0 where all is well, 1 with the findings on stdout, 2 where a file is missing."""
    arguments = ("--root", str(tree), "--no-installed")
    well = _run(*arguments)
    assert (well.returncode, well.stderr) == (0, ""), well.stdout
    file = tree / LOCK
    file.write_text(add("planted==1.0")(file.read_text(encoding="utf-8")), encoding="utf-8")
    broken = _run(*arguments)
    assert broken.returncode == 1
    assert "planted has no hash; each needs --hash=sha256:" in broken.stdout
    file.unlink()
    missing = _run(*arguments)
    assert missing.returncode == 2
    assert "requirements.lock" in missing.stderr


def test_command_asks_nobody_where_nobody_is_reached(tree: Path) -> None:
    """Without pip-audit, or without a way to its database, asking online says so and fails nothing."""
    done = _run("--root", str(tree), "--no-installed", "--online")
    assert done.returncode == 0, done.stderr
    assert "only the list in the tree was asked" in done.stdout
