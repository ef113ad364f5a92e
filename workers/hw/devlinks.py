"""The stable names that udev gives device nodes: links below /dev that outlive a replug (/dev/serial/by-id/...)."""

import os
import re
from pathlib import Path
from typing import Literal

from devd.workers.hw import attributes

By = Literal["by-id", "by-path"]
"""By what the device says of itself, or by where it is plugged in."""
_FAMILIES = (
    (re.compile(r"tty.*"), "serial"),
    (re.compile(r"video.*"), "v4l"),
    (re.compile(r"input/.*"), "input"),
    (re.compile(r"snd/.*"), "snd"),
    (re.compile(r"(sd|sr|nvme).*"), "disk"),
)
DIRECTORIES = tuple(f"dev/{family}/{by}" for _pattern, family in _FAMILIES for by in ("by-id", "by-path"))
"""Where the links are; a directory is there while it has one."""


def stable(root: Path, name: str, by: By) -> str:
    """Return a link to a node ("ttyUSB0") as /dev/serial/by-id/..., "" if udev has made none. Raises OSError.

    Links are compared by their text: what they lead to is not touched.
    """
    for pattern, family in _FAMILIES:
        if pattern.fullmatch(name):
            folder = f"dev/{family}/{by}"
            for link in attributes.names(root / folder):
                if _leads_to(root / folder / link, folder) == f"dev/{name}":
                    return f"/{folder}/{link}"
    return ""


def _leads_to(link: Path, folder: str) -> str:
    try:
        target = os.readlink(link)  # noqa: PTH115 - text is wanted
    except OSError:
        return ""  # gone meanwhile, or no link
    return os.path.normpath(f"{folder}/{target}").lstrip("/") if not target.startswith("/") else target.lstrip("/")
