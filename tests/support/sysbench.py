"""A fork server whose workers find a tree of fixtures at /sys, each confined by its driver's own declaration.

It runs in namespaces of its own: mounts (the tree at /sys, plain nodes at /dev, programs at /run) and network. Nothing
of the sandbox is left out. Attributes that are written are pipes: a worker may not write a byte to a plain file, and
what it wrote is read at the other end.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import pytest

from devd.ipc.messages import Device, Reset, ResetDone, Usage
from tests.support import nvml_standin
from tests.support.forkbench import ForkBench, Worker
from tests.unit.workers.drivers.nvidia_tree import HEALTHY

SIGNALS: Mapping[str, Mapping[str, bool]] = {
    "nvidia": {"xid": False},
    "usb": {"answers": False, "authorized": False},
}
"""Signals that no fixture can answer: events need a thread of their own, plain nodes and pipes answer no request."""
NODES = {"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9}
"""What programs need of /dev: minors of the kernel's memory devices."""
INTO = 'for one in sys dev run; do mount --rbind "$0/$one" "/$one" || exit 9; done; exec "$@"'
SPEAKS_NETLINK = "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16).close()"
"""What devlink does first; generic netlink is protocol 16."""
DEVLINK = f"""#!/bin/sh
exec /usr/bin/python3 -c '{SPEAKS_NETLINK}'
"""
SMI = """#!/bin/sh
for one in nvidia0 nvidiactl; do : > /dev/$one || exit 1; done
"""
"""What nvidia-smi does first: it opens the GPU's nodes for writing."""


def plain_node(path: Path, minor: int) -> None:
    """Make a node of one of the kernel's memory devices, for root alone unless programs need it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    os.mknod(path, 0o20600, os.makedev(1, minor))
    path.chmod(0o666 if minor in NODES.values() and path.name in NODES else 0o600)


def _program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def _into(mounts: Sequence[tuple[Path, str]]) -> str:
    """Return the shell's words that lay the tree where workers look, and then become the fork server."""
    return "".join(f'mount --bind {what} "$0{where}" || exit 9; ' for what, where in mounts) + INTO


def _world(root: Path) -> Path:
    """Grow what all tests share: attributes are for root alone, as the kernel's are."""
    for folder in ("sys", "dev", "run/nvidia/driver/lib"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, minor in NODES.items():
        plain_node(root / "dev" / name, minor)
    _program(root / "run/bin/devlink", DEVLINK)
    _program(root / "run/bin/nvidia-smi", SMI)
    return root


class SysBench:
    """Owner of the fork server. ``mounts`` are more files to be laid over the tree's: (what, where below the tree)."""

    def __init__(self, root: Path, mounts: Sequence[tuple[Path, str]] = ()) -> None:
        root.chmod(0o755)
        self.tree = root / "tree"
        self.tree.mkdir(exist_ok=True)
        try:
            _world(self.tree)
        except PermissionError:
            pytest.skip("no device nodes can be made here")
        for program in ("unshare", "ip"):
            if shutil.which(program) is None:
                pytest.skip(f"takes {program}")
        if subprocess.run(["unshare", "--mount", "--net", "true"], check=False, capture_output=True).returncode:
            pytest.skip("no namespaces can be made here")
        self.script = self.tree / "run/nvml"
        self.script.write_text(HEALTHY)
        prefix = ["env", f"PATH=/run/bin:{os.environ['PATH']}", "LD_LIBRARY_PATH=/run/nvidia/driver/lib"]
        prefix += [f"{nvml_standin.VARIABLE}=/run/nvml"]
        prefix += ["unshare", "--mount", "--net", "--propagation", "private", "sh", "-c", _into(mounts), str(self.tree)]
        self.forks = ForkBench(root / "runtime", server_prefix=prefix)
        self._attributes: dict[Path, int] = {}

    def __enter__(self) -> Self:
        self.forks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.forks.__exit__(None, None, None)
        for fd in self._attributes.values():
            os.close(fd)

    def attribute(self, path: Path) -> int:
        """Make an attribute to be written by root alone, and return what its text can be read from."""
        path.unlink(missing_ok=True)
        os.mkfifo(path, 0o200)
        self._attributes[path] = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        return self._attributes[path]

    def written(self, path: Path) -> bytes:
        """Return what was written to an attribute."""
        try:
            return os.read(self._attributes[path], 4096)
        except BlockingIOError:
            return b""

    def begin(
        self, driver: str, device: Device, method: str, sandbox: Mapping[str, object] | None = None, **more: object
    ) -> Worker:
        """Begin a worker with this reset ("" for none), in its full sandbox, and wait for its first probe."""
        spec = self.forks.spec(
            f"{driver}-{method}",
            driver=driver,
            target=device,
            probe={"kind": "driver", "signals": {"node": False, **SIGNALS.get(driver, {})}},
            reset={"kind": "driver", "method": method, **more} if method else None,
            timeout_s=5.0,
            sandbox=sandbox or {},
        )
        worker = self.forks.fork(spec)
        self.forks.until(lambda: bool(worker.hellos))
        assert {"landlock", "identity", "seccomp", "capabilities", "limits"} <= set(worker.hellos[0].sandbox.active)
        self.forks.until_verdict(spec.device)
        return worker

    def reset(self, worker: Worker) -> ResetDone:
        """Have a worker reset its device, which nobody uses, and return how that went."""
        self.forks.send(worker, Reset(len(worker.resets) + 1, 5.0, Usage()))
        before = len(worker.resets)
        self.forks.until(lambda: len(worker.resets) > before or worker.exit is not None)
        assert len(worker.resets) > before, worker.words()
        return worker.resets[-1]

    def until_end(self, worker: Worker) -> str:
        """Wait for a worker's end and return its last words."""
        self.forks.until(lambda: worker.exit is not None)
        return worker.words()
