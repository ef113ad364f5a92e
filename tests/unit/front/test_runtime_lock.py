"""One daemon a runtime directory, and nothing left of it."""

import subprocess
import sys
from pathlib import Path

import pytest

from devd.daemon.errors import AlreadyRunningError, StartupError
from devd.daemon.runtime_lock import RuntimeLock
from devd.ipc.endpoints import RuntimeLayout
from devd.ipc.errors import EndpointError

HOLD = """
import sys
from pathlib import Path
from devd.daemon.runtime_lock import RuntimeLock
from devd.ipc.endpoints import RuntimeLayout
with RuntimeLock(RuntimeLayout(Path(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_directory_is_made_private_and_taken_away(tmp_path: Path) -> None:
    """The directory exists with mode 0700 inside, and is gone after."""
    root = tmp_path / "run"
    with RuntimeLock(RuntimeLayout(root)) as layout:
        assert root.stat().st_mode & 0o777 == 0o700
        assert layout.lock.exists()
    assert not root.exists()


def test_directory_that_was_there_stays(tmp_path: Path) -> None:
    """A directory of the operator's own stays, empty."""
    root = tmp_path / "run"
    root.mkdir(mode=0o700)
    with RuntimeLock(RuntimeLayout(root)):
        pass
    assert list(root.iterdir()) == []


def test_second_process_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    """While another process holds the directory its pid is named; after its SIGKILL the directory is free."""
    root = tmp_path / "run"
    command = [sys.executable, "-c", HOLD, str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(AlreadyRunningError, match=rf"pid {holder.pid}\)"), RuntimeLock(RuntimeLayout(root)):
            pass
        assert (root / "lock").exists()
        holder.kill()
        holder.wait()
        with RuntimeLock(RuntimeLayout(root)) as layout:
            assert layout.lock.read_text(encoding="ascii").strip() != str(holder.pid)


def test_unusable_directory_is_an_error_with_its_remedy(tmp_path: Path) -> None:
    """A file in the directory's place, and a path too long for a socket, are told with the option that helps."""
    (tmp_path / "file").touch()
    with pytest.raises(StartupError, match="--runtime-dir"), RuntimeLock(RuntimeLayout(tmp_path / "file")):
        pass
    long = tmp_path / ("x" * 100)
    with pytest.raises(EndpointError, match="107"), RuntimeLock(RuntimeLayout(long)):
        pass
    assert not long.exists()
