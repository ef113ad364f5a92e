"""What a probe is: one check of one device, run in the worker's main thread, that may hang without harm to others."""

import os
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from devd.ipc.messages import Node, NodeKind, WorkerSpec
from devd.workers.errors import ProbeError, explain
from devd.workers.sandbox.needs import PathNeed, SandboxNeeds

Say = Callable[[str], None]
"""Publishes the name of the call that comes next, so that a hang has a name."""


@dataclass(frozen=True, slots=True)
class Call:
    """One run of a probe or reset: since when it runs, how long it may, and how to tell what it is about to do."""

    say: Say
    began_s: float
    allowed_s: float

    def left_s(self) -> float:
        """Return the seconds left, never below zero."""
        return max(0.0, self.began_s + self.allowed_s - time.monotonic())


class Probe(Protocol):
    """One check. It keeps no file open between runs."""

    @property
    def activity(self) -> str:
        """Name the first call of a run ("open /dev/fuse")."""

    @property
    def needs(self) -> SandboxNeeds:
        """Return what the sandbox must leave to it."""

    def run(self, call: Call) -> str:
        """Return "" when the device is well, or what is worth telling although it is ("in use").

        Raises ProbeError with the reason when it is not; any other error but OSError is a bug and ends the worker.
        """


def nodes_of(spec: WorkerSpec) -> tuple[Node, ...]:
    """Return the target's nodes. Raises ProbeError when there is none to touch."""
    nodes = spec.target.nodes if spec.target is not None else ()
    if not nodes:
        raise ProbeError(f"{spec.device} has no node to look at: use another probe kind")
    return nodes


def first_path(spec: WorkerSpec) -> str:
    """Return the first node's path for an activity's name, or the device's id."""
    return spec.target.nodes[0].path if spec.target is not None and spec.target.nodes else spec.device


def node_needs(spec: WorkerSpec, rights: str) -> SandboxNeeds:
    """Return the need of the target's nodes, each as long as it is the one discovery saw."""
    nodes = spec.target.nodes if spec.target is not None else ()
    return SandboxNeeds(tuple(PathNeed(node.path, rights, node, vital=True) for node in nodes))


def identity(status: os.stat_result) -> tuple[NodeKind, int, int]:
    """Return kind and numbers of a stat result the way a ``Node`` has them."""
    if stat.S_ISCHR(status.st_mode):
        return "char", os.major(status.st_rdev), os.minor(status.st_rdev)
    if stat.S_ISBLK(status.st_mode):
        return "block", os.major(status.st_rdev), os.minor(status.st_rdev)
    return "other", status.st_dev, status.st_ino


def check_same(node: Node, status: os.stat_result) -> None:
    """Raise ProbeError when a path leads to something else than discovery found there."""
    kind, major, minor = identity(status)
    if (kind, major, minor) != (node.kind, node.major, node.minor):
        raise ProbeError(f"{node.path} is {_words(kind, major, minor)} now, was {_words(*_of(node))}")


def failed(call: str, path: str, error: OSError) -> ProbeError:
    """Return the ProbeError for a failed call."""
    return ProbeError(explain(call, path, error))


def joined(notes: Sequence[str]) -> str:
    """Return the different notes of several nodes as one text."""
    return ", ".join(dict.fromkeys(note for note in notes if note))


def _of(node: Node) -> tuple[NodeKind, int, int]:
    return node.kind, node.major, node.minor


def _words(kind: NodeKind, major: int, minor: int) -> str:
    if kind == "other":
        return f"a file that is no device node (inode {minor})"
    return f"{kind} device {major}:{minor}"
