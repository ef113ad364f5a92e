"""One look for one resource's devices by a disposable process; for the command line, the daemon has its scouts."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from devd.ipc.environment import for_workers
from devd.ipc.messages import Device, Node


@dataclass(frozen=True, slots=True)
class Looked:
    """What was found. ``error`` says why nobody could look; ``usage`` is who uses a device (its id -> words)."""

    devices: tuple[Device, ...] = ()
    problems: tuple[str, ...] = ()
    usage: Mapping[str, str] = field(default_factory=dict)
    error: str = ""


def look(driver: str, match: Mapping[str, object], timeout_s: float, *, usage: bool = False) -> Looked:
    """Have a process of its own look once; it is ended after ``timeout_s``."""
    question = json.dumps({"driver": driver, "match": match, "usage": usage})
    command = [sys.executable, "-m", "devd.workers.discover"]
    try:
        done = subprocess.run(
            command,
            input=question,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env=for_workers(os.environ),
        )
    except subprocess.TimeoutExpired:
        return Looked(error=f"no answer in {timeout_s:g} s: something on the bus hangs")
    if done.returncode != 0:
        return Looked(error=_last_line(done.stderr) or f"exit code {done.returncode}")
    answer = json.loads(done.stdout)
    return Looked(tuple(_device(one) for one in answer["devices"]), tuple(answer["problems"]), answer["usage"])


def _last_line(text: str) -> str:
    """Return the line that says what went wrong; above it there may be a traceback of a third party's driver."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def _device(plain: dict[str, Any]) -> Device:
    nodes = tuple(Node(**node) for node in plain["nodes"])
    return Device(**{**plain, "nodes": nodes})
