"""One question to the running daemon, and plain words when there is no answer."""

from collections.abc import Mapping
from pathlib import Path

from devd.daemon.cli import exits
from devd.daemon.cli.exits import CommandError
from devd.daemon.options import RUNTIME_DIR_VARIABLE
from devd.ipc.control import control_call
from devd.ipc.endpoints import RuntimeLayout
from devd.ipc.errors import EndpointError, PeerSilentError, PeerUnavailableError, ProtocolError
from devd.ipc.messages import ControlRequest

ANSWER_WITHIN_S = 1.4
"""A daemon answers from memory, in milliseconds. With the interpreter's own start this stays under 2 s."""


def ask(
    runtime_dir: Path, verb: str, args: Mapping[str, object] | None = None, within_s: float = ANSWER_WITHIN_S
) -> Mapping[str, object]:
    """Return the daemon's answer. Raises CommandError when it refuses, does not run, or does not answer."""
    try:
        reply = control_call(RuntimeLayout(runtime_dir).control, ControlRequest(verb, args or {}), within_s)
    except PeerUnavailableError as error:
        # Whoever removes a running daemon's sockets leaves it serving, deaf.
        removed = "" if runtime_dir.exists() else "; one whose directory was removed cannot be asked: restart it"
        raise CommandError(
            f"no daemon runs on {runtime_dir}: start it with 'devd run', or name its directory with --runtime-dir or "
            f"{RUNTIME_DIR_VARIABLE} ({error}){removed}",
            exits.NO_DAEMON,
        ) from error
    except PeerSilentError as error:
        raise CommandError(f"the daemon on {runtime_dir} does not answer ({error})", exits.NO_ANSWER) from error
    except EndpointError as error:
        raise CommandError(f"cannot reach the daemon on {runtime_dir}: {error}") from error
    except ProtocolError as error:
        raise CommandError(
            f"the daemon on {runtime_dir} gave an answer this command does not understand: {error}; "
            "if it is of another version, use the devd command of that version"
        ) from error
    if not reply.ok:
        raise CommandError(reply.error or f"the daemon refused {verb} and gave no reason")
    return reply.data
