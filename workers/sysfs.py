"""Reads and writes one sysfs attribute of a device, wherever the configuration says it lies."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from devd.ipc.messages import Device, Node
from devd.workers.errors import SpecError
from devd.workers.params import fill, kernel_name
from devd.workers.sandbox.needs import PathNeed, SandboxNeeds

ROOT = "/sys"
PAGE_BYTES = 4096
"""sysfs gives an attribute as one page at most."""


def folder_of(node: Node) -> str:
    """Return the device's directory in sysfs, by its numbers; it need not exist for a file that is no device."""
    return f"{ROOT}/dev/{node.kind}/{node.major}:{node.minor}"


def attribute_path(attribute: str, node: Node | None, device: Device, where: str) -> str:
    """Return the path of an attribute: below the device's own directory, or absolute and below /sys.

    Templates: {name}, {major}, {minor}. Raises SpecError when it cannot be told or leads elsewhere.
    """
    fields = {"name": kernel_name(device)}
    if node is not None:
        fields |= {"major": str(node.major), "minor": str(node.minor)}
    path = fill(attribute, fields, where)
    if not path.startswith("/"):
        if node is None:
            raise SpecError(f"{where}: {attribute!r} is relative, and {device.id} has no node")
        path = f"{folder_of(node)}/{path}"
    return path


def check_below_sys(path: str, where: str) -> None:
    """Raise SpecError when a path, all links followed, does not lie below /sys. Touches sysfs."""
    real = os.path.realpath(path)
    if not _is_below_sys(real):
        raise SpecError(f"{where}: {path} leads to {real}, only attributes below {ROOT} are allowed")


def _is_below_sys(real: str) -> bool:
    return real.startswith(f"{ROOT}/")


def needs(paths: Iterable[str], device: Device, rights: str) -> SandboxNeeds:
    """Return what reading or writing these attributes takes: reading may look around in the device's own folders."""
    attributes = [PathNeed(path, rights, vital=True) for path in paths if _is_below_sys(os.path.realpath(path))]
    folders = [PathNeed(folder_of(node), "r") for node in device.nodes if node.kind != "other"]
    return SandboxNeeds((*attributes, *folders))


def read(path: str) -> str:
    """Return an attribute's text without surrounding blanks. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return os.read(fd, PAGE_BYTES).decode("utf-8", "replace").strip()
    finally:
        os.close(fd)


def write(path: str, value: str) -> None:
    """Write an attribute in one call, as the kernel wants it. Raises OSError; may block as long as the driver does."""
    with opened(path) as fd:
        os.write(fd, value.encode())


@contextmanager
def opened(path: str) -> Iterator[int]:
    """Open an attribute to write it later: what is refused is refused before anything is done. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
