"""The arrows between the packages hold, and the linter that says so does see a breach."""

import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("daemon", "workers", "ipc", "proto")
LINT_TIMEOUT_S = 60


def lint(tree: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter on a tree."""
    command = [f"{sysconfig.get_path('scripts')}/lint-imports", "--no-logo", "--no-cache"]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=LINT_TIMEOUT_S, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a copy of the tree, its links included, to plant something in."""
    for name in (*PACKAGES, "devd"):
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_tree_keeps_its_contracts() -> None:
    """The tree as it is passes."""
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 broken" in result.stdout


@pytest.mark.parametrize(
    ("planted", "contract"),
    [
        ({"workers/planted.py": "import grpc\n"}, "workers know ipc only, and never reach grpc"),
        (
            {"ipc/planted.py": "import grpc\n", "workers/planted.py": "from devd.ipc import planted\n"},
            "workers know ipc only, and never reach grpc",
        ),
        ({"workers/planted.py": "from devd.daemon import errors\n"}, "workers know ipc only, and never reach grpc"),
        ({"daemon/planted.py": "import devd.workers\n"}, "the daemon never imports workers"),
        ({"ipc/planted.py": "import devd.daemon.errors\n"}, "proto and ipc know nobody"),
        ({"ipc/planted.py": "import devd.proto.gen\n"}, "proto and ipc do not know each other"),
    ],
)
def test_a_planted_breach_is_seen(copy: Path, planted: dict[str, str], contract: str) -> None:
    """A breach of each contract, direct or through another package, fails the lint, which names contract and module."""
    for path, text in planted.items():
        (copy / path).write_text(f'"""Planted."""\n\n{text}')
    result = lint(copy)
    assert result.returncode != 0, result.stdout + result.stderr
    assert f"{contract} BROKEN" in result.stdout
    assert "planted" in result.stdout
