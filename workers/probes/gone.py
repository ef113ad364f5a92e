"""Stands in for a probe that could not be made, since nothing of its device was there when its worker began."""

from typing import NoReturn

from devd.workers.errors import ProbeError
from devd.workers.probes.base import Call
from devd.workers.sandbox.needs import NOTHING


class GoneProbe:
    """Always fails with the reason; only a new process can look again, since the sandbox is made for what is there."""

    needs = NOTHING

    def __init__(self, reason: str) -> None:
        self._reason = reason
        self.activity = "tell that the device was gone"

    def run(self, call: Call) -> NoReturn:  # noqa: ARG002 - the protocol's own argument
        """Touch nothing. Raises ProbeError."""
        raise ProbeError(self._reason)
