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
PSEUDO_DEVICES = (
    *(PathNeed(f"/dev/{name}", "rw") for name in ("null", "zero", "full")),
    *(PathNeed(f"/dev/{name}", "r") for name in ("random", "urandom")),
    PathNeed("/proc", "r"),
    PathNeed("/sys", "r"),
)


_STANDARD_LIBRARY = str(Path(os.__file__).parent)
_OWN_CODE = str(Path(__file__).resolve().parents[2])


def python_runtime(rights: str) -> tuple[PathNeed, ...]:
    """Return the interpreter's own files: a module that is loaded late, the source lines of a traceback."""
    folders = [_STANDARD_LIBRARY, _OWN_CODE]
    if "x" in rights:
        folders += [sys.base_prefix, sys.prefix]
    return tuple(PathNeed(folder, rights) for folder in dict.fromkeys(folders))
