"""Asks pip-audit, where it is installed and its database is reached: what became known since the list was written."""

import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterable
from pathlib import Path

DATABASE = "https://pypi.org/"
REACH_S = 10.0
ASK_S = 300.0


def ask(root: Path, files: Iterable[str]) -> int:
    """Print pip-audit's answer about ``files``; return 1 where it found something, 0 where nobody could be asked."""
    beside = Path(sys.executable).with_name("pip-audit")
    program = str(beside) if beside.exists() else shutil.which("pip-audit")
    if program is None:
        print("pip-audit is not installed: only the list in the tree was asked")
        return 0
    try:
        urllib.request.urlopen(DATABASE, timeout=REACH_S).close()
    except OSError as error:
        print(f"{DATABASE} is not reached ({error}): only the list in the tree was asked")
        return 0
    answers = [_answer(program, root, name) for name in files]
    return int(any(answers))


def _answer(program: str, root: Path, name: str) -> int:
    """Return the exit status for one file: pip-audit wants hashes of all files or of none. Strict: none is left out."""
    command = [program, "--strict", "--no-deps", "--disable-pip", "--progress-spinner", "off", "-r", name]
    return subprocess.run(command, cwd=root, timeout=ASK_S, check=False).returncode
