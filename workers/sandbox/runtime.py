"""Files that are no device and no secret: what programs need to run at all."""

import os
import sys
from pathlib import Path

from devd.workers.sandbox.needs import PathNeed

PROGRAMS = tuple(
    PathNeed(path, "rx") for path in ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/lib32", "/opt", "/nix/store")
)
ETC = tuple(
    PathNeed(f"/etc/{name}", "r")
    for name in (
        *("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "ld-musl-x86_64.path", "ld-musl-aarch64.path", "ld.so.preload"),
        *("alternatives", "passwd", "group", "nsswitch.conf", "localtime", "locale.alias", "os-release", "machine-id"),
    )
)
"""Not all of /etc: it holds secrets, and a worker may have to keep a capability that reads them."""
SYSFS = tuple(f"/sys/{name}" for name in ("block", "bus", "class", "dev", "devices", "module", "kernel/iommu_groups"))
"""What tells of devices. Not all of /sys: who keeps a capability would see debugfs, tracefs, the firmware's tables."""
PSEUDO_DEVICES = (
    # Not zero: mapped, it is memory that no limit of a process counts.
    *(PathNeed(f"/dev/{name}", "rw") for name in ("null", "full")),
    *(PathNeed(f"/dev/{name}", "r") for name in ("random", "urandom")),
    PathNeed("/proc", "r"),
    *(PathNeed(folder, "r") for folder in SYSFS),
)


_STANDARD_LIBRARY = str(Path(os.__file__).parent)
_OWN_CODE = str(Path(__file__).resolve().parents[2])


def python_runtime(rights: str) -> tuple[PathNeed, ...]:
    """Return the interpreter's own files: a module that is loaded late, the source lines of a traceback."""
    folders = [_STANDARD_LIBRARY, _OWN_CODE]
    if "x" in rights:
        folders += [sys.base_prefix, sys.prefix]
    return tuple(PathNeed(folder, rights) for folder in dict.fromkeys(folders))
