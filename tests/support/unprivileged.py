"""Runs a command as a user without privileges, wherever the suite itself runs as root."""

import os
import shutil

import pytest

NOBODY = 65534


def unprivileged() -> list[str]:
    """Return what to put before a command: nothing for an ordinary user.

    For root it is another uid that may read every file (the code may lie in root's own folder), and no more.
    """
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv to become another user")
    caps = "+dac_override,+dac_read_search"
    return ["setpriv", f"--reuid={NOBODY}", "--clear-groups", f"--inh-caps={caps}", f"--ambient-caps={caps}"]
