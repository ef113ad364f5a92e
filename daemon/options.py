"""What the command line says to ``devd run``, and the directories devd uses when it says nothing."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

RUNTIME_DIR = Path("/run/devd")
STATE_DIR = Path("/var/lib/devd")
LOG_DIR = Path("/var/log/devd")
RUNTIME_DIR_VARIABLE = "DEVD_RUNTIME_DIR"

LogFormat = Literal["auto", "json", "text"]


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options of ``devd run``. ``kubelet_dir`` and ``registry_dir`` override the configuration's."""

    config: Path
    kubelet_dir: Path | None
    registry_dir: Path | None
    runtime_dir: Path
    state_dir: Path
    log_dir: Path
    log_format: LogFormat = "auto"
    log_level: str = "info"


def default_runtime_dir() -> Path:
    """Return the runtime directory named by the environment, or the system's."""
    return Path(os.environ.get(RUNTIME_DIR_VARIABLE) or RUNTIME_DIR)
