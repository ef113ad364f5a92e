"""Code that ruff does not see through is refused by ``make lint`` itself, whatever a comment says."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.audit import code

ROOT = Path(__file__).parents[2]
BANNED = code.banned_modules(ROOT)


@dataclass(frozen=True)
class Bad:
    """A line that may not stand anywhere, and what is said of it."""

    line: str
    says: str


BAD = [
    Bad('subprocess.run(text, **{"shell": True})', "'shell' among keyword arguments"),
    Bad('options = {"sh" + "ell": True}', "'shell' among keyword arguments"),
    Bad("getattr(sock, 'recv_pyobj')()", "getattr of recv_pyobj"),
    Bad("getattr(os, 'sys' + 'tem')(text)", "getattr of system"),
    Bad("getattr(sys.modules[name], f'{\"pick\"}le')", "getattr of pickle"),
    Bad("socket.recv_pyobj()", "recv_pyobj pickles"),
    Bad('import_module("pick" + "le")', "pickle is banned"),
    Bad('importlib.import_module("multiprocessing.connection")', "multiprocessing.connection is banned"),
    Bad('__import__("marshal")', "marshal is banned"),
    Bad("import_module(name)", "by a name that stands nowhere"),
    Bad('__builtins__["eval"](text)', "__builtins__ hides"),
    Bad('vars(builtins)["eval"](text)', "eval by its name in quotes"),
    Bad('sys.modules["pickle"].loads(text)', "pickle by its name in quotes"),
    Bad('os.__dict__["system"](text)', "system by its name in quotes"),
    Bad('run = compile(text, "x", "exec")', "compile runs a text"),
    Bad("run = eval", "eval runs a text"),
    Bad("run = builtins.exec", "exec runs a text"),
    Bad("eval(text)  # noqa: S307", "silences S307"),
    Bad("eval(text)  # noqa: S", "silences every rule"),
    Bad("run(text)  # noqa: E501, S602", "silences S602"),
    Bad("run(text)  # NOQA:S604", "silences S604"),
    Bad("run(text)  # noqa", "silences every rule"),
    Bad("# ruff: noqa", "silences every rule"),
    Bad("# ruff: noqa: TID251", "silences TID251"),
    Bad("# flake8: noqa", "silences every rule"),
]
SHELLS = [
    Bad('subprocess.run(["/bin/sh", "-c", text])', "a shell that is given a text"),
    Bad('Popen(("bash", "-ec", text))', "a shell that is given a text"),
    Bad('command = ["/usr/bin/" + "sh", "-c", text]', "a shell that is given a text"),
    Bad('os.execvp("sh", arguments)  # noqa: S606', "a shell is started"),
    Bad('os.execl("/bin/sh", "sh")', "a shell is started"),
    Bad('os.posix_spawn("/bin/bash", arguments, {})', "a shell is started"),
    Bad('os.spawnlp(os.P_WAIT, "dash", "dash")', "a shell is started"),
]
GOOD = [
    'subprocess.run(["ls", "-c"], check=True)  # noqa: PLW1510',
    're.compile("x").match(text)',
    "getattr(device, name)",
    "kind: Literal['exec']",
    'table["system"]',
    'import_module("test_lifecycle")',
    'shell = shutil.which("sh")',
    "random.Random(1)  # noqa: S311 - an order, not a secret",
]


@pytest.mark.parametrize("bad", [*BAD, *SHELLS], ids=lambda bad: bad.line)
def test_is_refused(bad: Bad) -> None:
    """Planted in a file of the project, the line is found, with its number."""
    found = code.findings("daemon/planted.py", f"x = 1\n{bad.line}\n", BANNED)
    assert any(one.startswith("daemon/planted.py:2: ") and bad.says in one for one in found), found


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.line)
def test_is_refused_in_tests_as_well(bad: Bad) -> None:
    """All but their own commands, which may be a shell's."""
    found = code.findings("tests/unit/planted.py", f"{bad.line}\n", BANNED)
    assert any(bad.says in one for one in found), found


@pytest.mark.parametrize("line", GOOD)
def test_what_only_looks_like_it_passes(line: str) -> None:
    """What is no shell, no pickle and no text that is run is none of its business."""
    assert code.findings("daemon/planted.py", f"{line}\n", BANNED) == []


def test_silencing_is_allowed_for_one_rule_in_one_file() -> None:
    """What may be silenced somewhere may not be elsewhere, nor another rule there."""
    ((path, rule),) = code.SILENCED
    line = "os.execv(program, [program])  # noqa: {}\n"
    assert code.findings(path, line.format(rule), BANNED) == []
    assert code.findings(path, line.format("S602"), BANNED)
    assert code.findings("daemon/planted.py", line.format(rule), BANNED)


def test_project_passes_and_make_lint_asks(tmp_path: Path) -> None:
    """The project has nothing of it; the command of ``make lint`` ends with 1 for a planted line and says where."""
    command = [sys.executable, "-m", "deploy.audit.code"]
    well = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (well.returncode, well.stderr) == (0, ""), well.stdout
    assert "-m deploy.audit.code\n" in (ROOT / "Makefile").read_text(encoding="utf-8")
    (tmp_path / "workers" / "drivers").mkdir(parents=True)
    (tmp_path / "workers" / "drivers" / "planted.py").write_text("eval(text)  # noqa: S307\n")
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    broken = subprocess.run(
        [*command, "--root", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert broken.returncode == 1
    assert "workers/drivers/planted.py:1: eval runs a text" in broken.stdout
    assert "workers/drivers/planted.py:1: silences S307" in broken.stdout
