"""Trees of kernel files for the hardware drivers' tests, built from a map below a temporary directory."""

import os
from collections.abc import Mapping
from pathlib import Path

Content = str | bytes | None
"""Text or bytes of a file; text that begins with "-> " is a symbolic link; None is an empty directory."""

GARBAGE: tuple[bytes, ...] = (
    b"",
    b"\n",
    b"banana",
    b"-1",
    b"\xff\xfe\x00\x01",
    b"9" * 4000,
    b"1e5",
    b"0x12",
    "²".encode(),
)
"""What an attribute can hold that is no number and no word the kernel documents."""


def grow(root: Path, files: Mapping[str, Content]) -> Path:
    """Make or replace these files below a root, and return it."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink() or path.is_file():
            path.unlink()
        if content is None:
            path.mkdir(exist_ok=True)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        elif content.startswith("-> "):
            path.symlink_to(content.removeprefix("-> "))
        else:
            path.write_text(content + "\n")
    return root


def link(root: Path, name: str, target: str) -> None:
    """Make a relative link, as sysfs has them, from ``name`` to ``target``, both below the root."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(os.path.relpath(root / target, path.parent))
