"""Takes a new configuration while devd runs, or keeps the running one and says what is wrong with the new one."""

import logging
import time
from asyncio import AbstractEventLoop
from pathlib import Path

from devd.daemon.config import Config, ConfigError, collisions
from devd.daemon.config_watch import ConfigWatch
from devd.daemon.fleet import Fleet
from devd.daemon.logs import iso
from devd.daemon.notify import Notifier
from devd.daemon.options import RunOptions

log = logging.getLogger("devd.config")


class Reloader:
    """Owner of the watch on the configuration's file. ``error`` is what keeps the file from being what runs."""

    def __init__(self, options: RunOptions, loop: AbstractEventLoop, fleet: Fleet, notifier: Notifier) -> None:
        self._options = options
        self._notifier = notifier
        self._fleet = fleet
        self._error: str | None = None
        self._taken_s = time.time()
        self._reloads = 0
        self._watch = ConfigWatch(options.config, loop, self._take)

    def ask(self) -> None:
        """Have the file read now, whether it has changed or not."""
        self._watch.ask()

    def facts(self) -> dict[str, object]:
        """Return what the status tells of the configuration."""
        problems = [f"{name}: {problem}" for name, problem in self._fleet.problems.items()]
        return {
            "config_error": "; ".join([*([self._error] if self._error else []), *problems]) or None,
            "config_taken": iso(self._taken_s),
            "reloads": self._reloads,
        }

    def close(self) -> None:
        """Take no configuration any more."""
        self._watch.close()

    def _take(self, result: Config | ConfigError, asked: bool) -> None:  # noqa: FBT001 - called by position from a thread
        with self._notifier.reload():
            self._judge(result, asked=asked)

    def _judge(self, result: Config | ConfigError, *, asked: bool) -> None:
        if isinstance(result, ConfigError):
            self._refuse(result.render())
            return
        found = self._fleet.apply(overridden(result, self._options))
        if found.refused:
            self._refuse(f"{self._options.config}: {found.refused}")
            return
        if found or self._error or asked:
            log.info("configuration taken: %s", found.words(), extra={"event": "reload"})
        self._error = None
        if found:
            for warning in collisions(result):
                log.warning("%s", warning)
            self._taken_s = time.time()
            self._reloads += 1

    def _refuse(self, problem: str) -> None:
        self._error = " ".join(problem.split())
        for line in problem.splitlines():
            log.error("the configuration that runs stays: %s", line, extra={"event": "reload"})


def overridden(config: Config, options: RunOptions) -> Config:
    """Return the configuration with the directories the command line names."""
    changes: dict[str, Path] = {}
    if options.kubelet_dir is not None:
        changes["dir"] = options.kubelet_dir
    if options.registry_dir is not None:
        changes["registry_dir"] = options.registry_dir
    return config.model_copy(update={"kubelet": config.kubelet.model_copy(update=changes)})
