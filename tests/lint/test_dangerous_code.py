"""Code that runs what somebody else wrote is refused by the project's own ruff configuration, wherever it stands."""

import ast
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUFF = Path(sys.executable).with_name("ruff")
FOLDERS = ("daemon", "workers", "ipc", "proto", "devd", "deploy", "benchmarks", "tests")
PLANTED_IN = ("daemon", "workers", "ipc", "workers/drivers", "daemon/cli", "benchmarks", "tests/unit", "deploy/image")
"""One folder for each set of exceptions that pyproject.toml makes."""
ALLOWED: dict[str, str] = {}
"""Path of a file that needs one of ``CODES`` -> why. None does."""


@dataclass(frozen=True)
class Bad:
    """A line that may not stand anywhere, and the rule that refuses it."""

    code: str
    line: str


BAD = [
    Bad("S602", 'subprocess.run("ls", shell=True, check=True)'),
    Bad("S602", 'subprocess.Popen("ls $HOME", shell=True)'),
    Bad("S604", 'start("ls", shell=True)'),
    Bad("S605", 'os.system("ls")'),
    Bad("S605", 'os.popen("ls")'),
    Bad("TID251", "run = os.system"),
    Bad("TID251", "from os import popen"),
    Bad("TID251", 'subprocess.getoutput("ls")'),
    Bad("TID251", 'asyncio.create_subprocess_shell("ls")'),
    Bad("TID251", "import pickle"),
    Bad("TID251", "import _pickle"),
    Bad("TID251", "import marshal"),
    Bad("TID251", "import shelve"),
    Bad("TID251", "from pickle import loads"),
    Bad("TID251", "import cloudpickle"),
    Bad("TID251", "import dill"),
    Bad("TID251", "import multiprocessing"),
    Bad("TID251", "import multiprocessing.connection"),
    Bad("TID251", "from multiprocessing.connection import Client, Listener"),
    Bad("TID251", "from multiprocessing import Pipe"),
    Bad("TID251", "from concurrent.futures import ProcessPoolExecutor"),
    Bad("S301", "import pickle\npickle.loads(text)"),
    Bad("S302", "import marshal\nmarshal.loads(text)"),
    Bad("S301", 'import shelve\nshelve.open("x")'),
    Bad("S307", "eval(text)"),
    Bad("S307", "builtins.eval(text)"),
    Bad("S102", "exec(text)"),
    Bad("S506", "yaml.load(text)"),
    Bad("S506", "yaml.load(text, Loader=yaml.Loader)"),
    Bad("S506", "yaml.load(text, Loader=yaml.FullLoader)"),
    Bad("TID251", "yaml.load_all(text)"),
    Bad("TID251", "yaml.unsafe_load(text)"),
    Bad("TID251", "yaml.full_load(text)"),
    Bad("TID251", "class Loader(yaml.UnsafeLoader): pass"),
    Bad("S306", "tempfile.mktemp()"),
    Bad("TID251", "from tempfile import mktemp"),
]
CODES = frozenset(one.code for one in BAD)
HEAD = "import asyncio, builtins, os, subprocess, tempfile, yaml\n"


def _ruff(*arguments: str, text: str | None = None) -> str:
    done = subprocess.run(
        [RUFF, "check", "--no-cache", "--output-format", "concise", *arguments],
        cwd=ROOT,
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stderr
    return done.stdout


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: f"{bad.code}-{bad.line}")
def test_is_refused_in_every_folder(bad: Bad) -> None:
    """Planted in a file of any folder, the line is refused by its rule."""
    for folder in PLANTED_IN:
        said = _ruff("--stdin-filename", f"{folder}/planted.py", "-", text=f"{HEAD}{bad.line}\n")
        assert f" {bad.code} " in said, f"{folder}: {said}"


def test_safe_code_passes_these_rules() -> None:
    """The rules refuse what is dangerous, not all that looks like it."""
    text = f'{HEAD}subprocess.run(["ls"], check=True)\nyaml.safe_load(text)\ntempfile.mkstemp()\n'
    said = _ruff("--stdin-filename", "daemon/planted.py", "--select", ",".join(CODES), "-", text=text)
    assert "All checks passed" in said


def test_nothing_silences_these_rules() -> None:
    """With every comment that silences a rule taken away, no file of the project breaks one of these."""
    said = _ruff(
        "--ignore-noqa", "--select", ",".join(sorted(CODES)), *(one for one in FOLDERS if (ROOT / one).exists())
    )
    found = [line for line in said.splitlines() if line.partition(":")[0].endswith(".py")]
    assert [line for line in found if line.partition(":")[0] not in ALLOWED] == []


def test_comment_that_silences_is_seen_through(tmp_path: Path) -> None:
    """The scan above sees a planted line that a comment hides from the ordinary run."""
    file = tmp_path / "planted.py"
    file.write_text('"""P."""\n# ruff: noqa: TID251\nimport pickle  # noqa: F401\n')
    config = ("--config", str(ROOT / "pyproject.toml"), "--select", "TID251", str(file))
    assert "TID251" not in _ruff(*config)
    assert "TID251" in _ruff("--ignore-noqa", *config)


def test_configuration_makes_no_exception() -> None:
    """Neither for the whole project nor for some files does pyproject.toml take one of these rules away."""
    ruff = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]
    assert ruff["extend-exclude"] == ["proto/gen", "devd/proto/gen"]  # what protoc wrote
    lint = ruff["lint"]
    assert lint["select"] == ["ALL"]
    entries = [*lint["ignore"], *(code for codes in lint["per-file-ignores"].values() for code in codes)]
    assert [(entry, code) for entry in entries for code in CODES if code.startswith(entry)] == []


PICKLING = {"send_pyobj", "recv_pyobj"}
"""Methods of zmq's sockets that no rule of ruff's can see: what a name is bound to shows only at run time."""
BY_NAME = {"__import__", "import_module"}


def _reaches_for(tree: ast.AST) -> list[str]:
    """Return what a file does that only its syntax tree shows: pickling sockets, modules that are banned by name."""
    found = [node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in PICKLING]
    banned = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    names = set(banned["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"])
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in BY_NAME and node.args[0].value in names:
                found.append(str(node.args[0].value))
    return found


def test_no_socket_pickles() -> None:
    """No file uses the methods of zmq's sockets that pickle, nor imports a banned module by a name in quotes."""
    files = [path for one in ("daemon", "workers", "ipc", "benchmarks") for path in (ROOT / one).rglob("*.py")]
    assert len(files) > 100
    found = {path: said for path in files if (said := _reaches_for(ast.parse(path.read_text(encoding="utf-8"))))}
    assert found == {}


@pytest.mark.parametrize("line", ["socket.recv_pyobj()", 'importlib.import_module("pickle")', '__import__("marshal")'])
def test_what_hides_from_ruff_is_found(line: str) -> None:
    """Each of the things that ruff does not see is found by the scan."""
    assert _reaches_for(ast.parse(line)) != []
