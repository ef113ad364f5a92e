"""What ``devd run`` was told on the command line, and the defaults every command shares."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

RUNTIME_DIR_VARIABLE = "DEVD_RUNTIME_DIR"
DEFAULT_RUNTIME_DIR = Path("/run/devd")
DEFAULT_STATE_DIR = Path("/var/lib/devd")
DEFAULT_LOG_DIR = Path("/var/log/devd")
DEFAULT_CDI_DIR = Path("/var/run/cdi")
"""Where every runtime that knows CDI looks for specifications that are made as the node runs."""

LogFormat = Literal["auto", "json", "text"]
LogLevel = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The command line of ``devd run``. A directory that is None is taken from the configuration."""

    config: Path
    kubelet_dir: Path | None = None
    registry_dir: Path | None = None
    runtime_dir: Path = DEFAULT_RUNTIME_DIR
    state_dir: Path = DEFAULT_STATE_DIR
    log_dir: Path = DEFAULT_LOG_DIR
    cdi_dir: Path = DEFAULT_CDI_DIR
    log_format: LogFormat = "auto"
    log_level: LogLevel = "info"
    cgroup: bool = False
    """Whether the cgroup devd was started in is its own to divide among the workers."""
    control_group: int | None = None
    """The gid whose members may use the control socket beside root and devd's own user."""
