"""The scout: one process for one resource, listing its devices whenever the list may have changed.

It touches hardware like a worker does (a glob on a dying bus hangs), so it reports about itself like one: a scan is
its probe. Changes are heard of by inotify and by uevents; the period's rescan is for what neither tells.
"""

import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal

from devd.ipc import inotify
from devd.ipc.messages import Device, Fault, Findings, Listing, Reset, ResetDone, Stirred, WorkerSpec
from devd.workers import stirred
from devd.workers.channel import Channel
from devd.workers.drivers import make_driver
from devd.workers.drivers.base import Driver, Found
from devd.workers.errors import explain
from devd.workers.hw.uevents import Uevent, Uevents
from devd.workers.loop import serve
from devd.workers.report import Reporter
from devd.workers.sandbox import refusal
from devd.workers.sandbox.apply import Confinement
from devd.workers.sandbox.needs import SandboxNeeds, widened
from devd.workers.sandbox.runtime import python_runtime

SETTLE_S = 0.05
"""From the first sign of a change to the scan: nodes come in groups, and their links a moment later."""
BUSY_PAUSE_S = 0.25
"""Least pause between scans, however busy the directory is."""
MAX_BATCHES = 64
"""Batches of uevents taken before a scan; what a storm adds after them calls for the next one."""
MASK = (
    inotify.IN_CREATE
    | inotify.IN_DELETE
    | inotify.IN_MOVED_FROM
    | inotify.IN_MOVED_TO
    | inotify.IN_DELETE_SELF
    | inotify.IN_MOVE_SELF
    | inotify.IN_ONLYDIR
)


class Watch:
    """The directories whose entries decide the list, and the kernel's uevents of the driver's subsystems.

    Without either the scout works on, at its period's pace. Made before the sandbox: the uevents are those of the
    node's network namespace, and no such socket may be made behind the filter.
    """

    def __init__(self, subsystems: Collection[str] = (), *, directories: bool = True) -> None:
        self._watched: dict[Path, int] = {}
        self._inotify: inotify.Inotify | None = None
        self._uevents: Uevents | None = None
        self._no_directories = self._no_uevents = ""
        self._stirred: set[str] = set()
        try:
            self._inotify = inotify.Inotify() if directories else None
        except OSError as error:
            self._no_directories = _no_watch(explain("inotify_init1", "", error))
        try:
            self._uevents = Uevents(subsystems) if subsystems else None
        except OSError as error:
            self._no_uevents = _no_watch(explain("socket", "AF_NETLINK", error))

    @property
    def problem(self) -> str:
        """Return why changes may be seen late, or nothing."""
        return self._no_uevents or self._no_directories

    @property
    def fds(self) -> tuple[int, ...]:
        """Return the descriptors to wait for."""
        return tuple(one.fd for one in (self._inotify, self._uevents) if one is not None)

    def follow(self, directories: Sequence[Path]) -> bool:
        """Watch exactly these directories; return whether a watch is new (its directory may have changed before)."""
        if self._inotify is None:
            return False
        self._no_directories = ""
        before = self._watched
        # Added again each time: the same inode keeps its number, one that was made anew gets another.
        self._watched = self._add_all(directories)
        for wd in set(before.values()) - set(self._watched.values()):
            self._inotify.remove(wd)
        return bool(set(self._watched.values()) - set(before.values()))

    def drain(self) -> bool:
        """Take all events off the queues; return whether one of them may change the list."""
        changed = False
        while self._inotify is not None and self._inotify.read():
            changed = True
        for _turn in range(MAX_BATCHES):
            if self._uevents is None:
                break
            batch = self._uevents.read()
            changed = changed or batch.lost or bool(batch.events)
            self._note(batch.events)
            if not batch.more:
                break
        return changed

    def take_stirred(self) -> frozenset[str]:
        """Return the paths below /sys of what the kernel said that it changed, since the last call."""
        found = frozenset(self._stirred)
        self._stirred.clear()
        return found

    def _note(self, events: Sequence[Uevent]) -> None:
        room = stirred.MAX_PATHS - len(self._stirred)
        self._stirred.update([one.path for one in events if one.action in stirred.ACTIONS][:room])

    def close(self) -> None:
        """Close the inotify instance and the netlink socket."""
        for one in (self._inotify, self._uevents):
            if one is not None:
                one.close()

    def _add_all(self, directories: Sequence[Path]) -> dict[Path, int]:
        watched = {}
        for directory in directories:
            try:
                watched[directory] = self._add(directory)
            except (FileNotFoundError, NotADirectoryError):
                continue  # gone since the scan: the watch on its parent tells
            except OSError as error:
                self._no_directories = _no_watch(explain("inotify_add_watch", str(directory), error))
        return watched

    def _add(self, directory: Path) -> int:
        if self._inotify is None:
            raise AssertionError("no inotify to add to")
        return self._inotify.add(directory, MASK)


class Scout:
    """Scans of one resource, and what they found. Implements ``loop.Task``."""

    def __init__(self, spec: WorkerSpec, channel: Channel, watch: Watch, driver: Driver) -> None:
        self._spec = spec
        self._channel = channel
        self._driver = driver
        self._driver.leave_alone = frozenset(spec.leave_alone)
        self._driver.baseline = self._left = spec.baseline
        self._watch = watch
        self._report = Reporter(channel, spec, "discover")
        self._last: tuple[tuple[Device, ...], tuple[str, ...]] | None = None
        self._seq = 0
        self._ended_s = 0.0
        self.due_at_s = time.monotonic()
        self.watched: Mapping[int, Callable[[], None]] = dict.fromkeys(watch.fds, self._changed)

    def run(self) -> None:
        """Scan once, send the list if it differs, publish how the scan went."""
        began_s = self._report.begin(f"discover {self._driver.what}")
        try:
            found = self._scan()
        except OSError as error:
            self._end("fail", explain("discover", str(error.filename or self._driver.what), error), began_s)
            return
        self._remember()
        self._send(found)
        self._stir(found.devices)
        took_s = time.monotonic() - began_s
        if took_s > self._spec.timeout_s:
            self._end("fail", f"took {took_s:.1f} s, allowed {self._spec.timeout_s:g} s", began_s)
        else:
            self._end("pass", "", began_s)

    def reset(self, order: Reset) -> None:
        """Refuse: a scout has no device."""
        spec, state = self._spec, self._report.state
        reason = "a scout has no device to reset"
        self._channel.send(ResetDone(spec.device, spec.incarnation, order.reset_id, False, reason, 0.0, state))  # noqa: FBT003 - the field's own place

    def inject(self, fault: Fault | None) -> None:
        """Take no note: it is devices that misbehave, not the search for them."""

    def leave_alone(self, paths: tuple[str, ...]) -> None:
        """Touch these paths no more: somebody hangs in them. The next list is sent in any case: it is another view."""
        self._driver.leave_alone = frozenset(paths)
        self._last = None

    def _scan(self) -> Found:
        """Discover; once more if a directory was not watched before: it may have changed in between."""
        self._watch.drain()
        found = self._driver.discover()
        if self._watch.follow(found.directories):
            found = self._driver.discover()
            self._watch.follow(found.directories)
        return found

    def _remember(self) -> None:
        """Leave to the next scout what this one knows, before the list that was made with it."""
        left = dict(self._driver.baseline)
        if left != self._left:
            self._left = left
            self._channel.send(Findings(self._spec.device, self._spec.incarnation, (), (), {}, left))

    def _send(self, found: Found) -> None:
        problems = (*found.problems, *((self._watch.problem,) if self._watch.problem else ()))
        if (found.devices, problems) == self._last:
            return
        self._last = (found.devices, problems)
        self._seq += 1
        spec = self._spec
        left_alone = tuple(sorted(self._driver.leave_alone))
        self._channel.send(Listing(spec.resource, spec.incarnation, self._seq, found.devices, problems, left_alone))

    def _stir(self, devices: Sequence[Device]) -> None:
        """Say which devices the kernel told a change of; no more often than scans are made."""
        ids = stirred.whose(self._watch.take_stirred(), devices)
        if ids:
            self._channel.send(Stirred(self._spec.resource, self._spec.incarnation, ids))

    def _end(self, verdict: Literal["pass", "fail"], reason: str, began_s: float) -> None:
        self._report.verdict(verdict, reason, began_s)
        self._ended_s = time.monotonic()
        self.due_at_s = self._ended_s + self._spec.period_s

    def _changed(self) -> None:
        """Bring the next scan forward, if the events are about this resource."""
        if not self._watch.drain():
            return
        soon_s = max(time.monotonic() + SETTLE_S, self._ended_s + BUSY_PAUSE_S)
        self.due_at_s = min(self.due_at_s, soon_s)


def _no_watch(why: str) -> str:
    return f"changes are seen at the discovery period's pace only: {why}"


def run(spec: WorkerSpec, lifeline_fd: int) -> int:
    """Be a scout until told to stop; return the exit code. Raises SpecError for a selector nothing can be made of."""
    driver = make_driver(spec.driver, spec.match)
    needs = driver.needs | SandboxNeeds(python_runtime("r"))
    confinement = Confinement(spec.device, widened(needs, spec.sandbox), spec.sandbox)
    watch = Watch(driver.uevents, directories=driver.watches)
    confinement.before_connect()
    with closing(watch), Channel(spec) as channel:
        channel.wait_heard()
        sandbox = confinement.after_connect()
        channel.greet(sandbox, os.getpid())
        lacking = refusal.of(sandbox, spec.sandbox, confinement.broken)
        # One that only looks runs no code that a device could take over: it lists, and each device's worker refuses.
        if lacking and not driver.needs.only_looks:
            driver = refusal.RefusedDriver(lacking)
        scout = Scout(spec, channel, watch, driver)
        return serve(scout, channel, lifeline_fd)
