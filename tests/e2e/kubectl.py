"""kubectl: which one, one call of it, and what it says when it fails."""

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OURS = ROOT / ".venv" / "deploy-tools" / "bin" / "kubectl"
"""What deploy/tools/get.sh fetches."""
COMMAND_WITHIN_S = 30.0
"""A call that only asks or orders; one that waits for something says how long."""
COMPLAINT_CHARS = 2000


class KubectlError(Exception):
    """Raised when kubectl is not to be had, fails, or takes too long: often the cluster's trouble of a moment."""


def program() -> str:
    """Return the kubectl to use: KUBECTL's, the fetched one, or the first of PATH. Raises KubectlError."""
    found = os.environ.get("KUBECTL") or (str(OURS) if OURS.exists() else shutil.which("kubectl"))
    if not found:
        raise KubectlError("no kubectl: deploy/tools/get.sh fetches one (x86_64), or name yours in KUBECTL")
    return found


def kubectl(*arguments: str, stdin: str | None = None, within_s: float = COMMAND_WITHIN_S) -> str:
    """Run kubectl and return what it printed. Raises KubectlError with its complaint."""
    words = [program(), *arguments]
    try:
        done = subprocess.run(words, check=False, capture_output=True, text=True, input=stdin, timeout=within_s)
    except subprocess.TimeoutExpired as error:
        raise KubectlError(f"kubectl {' '.join(arguments)}: no answer within {within_s:g} s") from error
    except OSError as error:
        raise KubectlError(f"{words[0]}: {error.strerror}; KUBECTL may name another one") from error
    if done.returncode != 0:
        complaint = (done.stderr.strip() or done.stdout.strip())[-COMPLAINT_CHARS:]
        raise KubectlError(f"kubectl {' '.join(arguments)}: {complaint or f'exit code {done.returncode}'}")
    return done.stdout
