"""An attribute of the kernel's that tells its changes and that a test can change: a control group's members."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class Notified:
    """A control group of version 2 without members. Its file ``events`` is news at the first one, and at the last."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.attribute = folder / "cgroup.events"

    @contextmanager
    def member(self) -> Iterator[None]:
        """Have a process in the group meanwhile."""
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
            (self._folder / "cgroup.procs").write_text(str(process.pid))
            yield


@contextmanager
def attribute() -> Iterator[Notified]:
    """Make one, and remove it in the end; skips the test where there can be none."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    base = next((Path(one[1]) for one in mounts if one[2] == "cgroup2"), None)
    if base is None:
        pytest.skip("no control groups of version 2 are mounted")
    folder = base / f"devd-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        yield Notified(folder)
    finally:
        folder.rmdir()
