"""What stands in for the hardware's code where the sandbox does not hold, or lacks what the operator requires of it."""

from collections.abc import Collection, Mapping
from typing import NoReturn

from devd.ipc.messages import Sandbox
from devd.workers.drivers.base import Found
from devd.workers.errors import ProbeError, ResetError
from devd.workers.probes.base import Call
from devd.workers.sandbox.needs import NOTHING


def of(sandbox: Sandbox, options: Mapping[str, object], broken: str = "") -> str:
    """Return why a worker with this sandbox may not begin, or nothing; one that is ``broken`` may in no case."""
    if broken:
        return broken
    if options.get("required") is not True or not sandbox.missing:
        return ""
    layers = "; ".join(f"{layer} ({why})" for layer, why in sorted(sandbox.missing.items()))
    return f"the sandbox is required and lacks {layers}"


class RefusedProbe:
    """Always fails."""

    activity = "refuse"
    needs = NOTHING

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def run(self, call: Call) -> NoReturn:  # noqa: ARG002 - the protocol's own argument
        """Touch nothing. Raises ProbeError."""
        raise ProbeError(self._reason)


class RefusedReset:
    """Always fails."""

    activity = "refuse"
    needs = NOTHING

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def run(self, call: Call) -> NoReturn:  # noqa: ARG002 - the protocol's own argument
        """Touch nothing. Raises ResetError."""
        raise ResetError(self._reason)


class RefusedDriver:
    """Always fails."""

    what = "nothing"
    needs = NOTHING

    def __init__(self, reason: str) -> None:
        self.leave_alone: frozenset[str] = frozenset()
        self.baseline: Mapping[str, object] = {}
        self.uevents: Collection[str] = ()
        self.watches = False
        self._reason = reason

    def discover(self) -> Found:
        """Touch nothing. Raises OSError."""
        raise PermissionError(self._reason)
