"""Health reporters of a network adapter, asked of iproute2's devlink: what its firmware says of itself.

One reporter at a time: the answer for all of them is longer than what is kept of a command's output.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from devd.workers.command import CommandError, CommandRunner, Limit, describe
from devd.workers.hw import attributes


class NoDevlinkError(Exception):
    """Raised when there is no answer: no devlink, no such device or reporter, or not allowed. No fault of a device."""


@dataclass(frozen=True, slots=True)
class Reporter:
    """One reporter. ``errors`` counts since the driver was bound; None where it is not told."""

    name: str
    state: str
    errors: int | None


@dataclass(frozen=True, slots=True)
class Devlink:
    """The tool, run for one device, by the handle it knows that by ("pci/0000:05:00.0")."""

    runner: CommandRunner
    handle: str
    program: str = "devlink"

    def reporter(self, name: str, limit: Limit) -> Reporter:
        """Return what one reporter says. Raises NoDevlinkError."""
        try:
            output = self._run(("-j", "health", "show", self.handle, "reporter", name), limit)
        except CommandError as error:
            raise NoDevlinkError(str(error)) from error
        return parse(output, name)

    def recover(self, name: str, limit: Limit) -> None:
        """Have a reporter recover. Raises CommandError."""
        self._run(("health", "recover", self.handle, "reporter", name), limit)

    def reload(self, limit: Limit) -> None:
        """Take the driver down and up again. Raises CommandError."""
        self._run(("dev", "reload", self.handle, "action", "driver_reinit"), limit)

    def _run(self, words: Sequence[str], limit: Limit) -> str:
        finished = self.runner.run((self.program, *words), limit, {})
        if finished.code != 0:
            raise CommandError(f"{self.program} {' '.join(words)}: {describe(finished)}")
        return finished.output


def parse(output: str, name: str) -> Reporter:
    """Return the reporter of this name from devlink's JSON. Raises NoDevlinkError for anything else."""
    try:
        found = json.loads(output)
    except (ValueError, RecursionError) as error:
        raise NoDevlinkError(f"devlink's answer cannot be read: {error}: {attributes.shown(output)}") from error
    for one in _reporters(found):
        if one.get("reporter", one.get("name")) == name:
            errors = one.get("error")
            # Not isinstance: JSON's true is an int as well.
            counted = errors if type(errors) is int and errors >= 0 else None
            return Reporter(name, str(one.get("state", "")), counted)
    raise NoDevlinkError(f"devlink does not tell of the reporter {name}")


def _reporters(found: object) -> list[dict[str, object]]:
    """Return the maps of ``{"health": {handle: [map, ...]}}``; none where it has another form."""
    health = found.get("health") if isinstance(found, dict) else None
    lists = health.values() if isinstance(health, dict) else ()
    return [one for listed in lists if isinstance(listed, list) for one in listed if isinstance(one, dict)]
