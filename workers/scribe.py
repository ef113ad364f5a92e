"""The scribe: one process for all resources, keeping their CDI specifications in the runtimes' directory.

A process of its own and not the scouts': who may write there is root on the node (a specification can name hooks), so
it touches no hardware and loads nobody's library. It writes what the front says, looks after it, and reports about
itself like a worker: a round over all files is its probe, and one that hangs ends it.
"""

import errno
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from devd.ipc.messages import Fault, Findings, Reset, ResetDone, SpecFile, WorkerSpec, WriteSpecs, Written
from devd.workers.cdi_files import OWN_NAME, SpecFiles, digest, known
from devd.workers.channel import Channel
from devd.workers.errors import NodeRenewedError, SandboxBrokenError
from devd.workers.loop import serve
from devd.workers.params import Params
from devd.workers.report import Reporter
from devd.workers.sandbox.apply import Confinement
from devd.workers.sandbox.needs import PathNeed, SandboxNeeds
from devd.workers.sandbox.runtime import python_runtime

READABLE_BY_ALL = 0o022
"""The umask: runtimes may run as another user, and there is no secret in a specification."""
MAX_REMEMBERED = 256
"""Files of which the next scribe is told; a configuration has no more resources."""


class Scribe:
    """What is to stand in which file, and what does. Implements ``loop.Task``."""

    def __init__(self, spec: WorkerSpec, channel: Channel, files: SpecFiles, outdated: Callable[[], str]) -> None:
        """``outdated`` returns a path that the sandbox, made for what lay there before, shuts out now."""
        match = Params("match", spec.match)
        self._spec = spec
        self._channel = channel
        self._files = files
        self._outdated = outdated
        self._elsewhere = tuple(match.texts("elsewhere"))
        self._report = Reporter(channel, spec, "cdi")
        self._wanted: dict[str, str] = {}
        self._sought: tuple[str, ...] = ()
        left = set(Params("baseline", spec.baseline).texts("files"))
        self._stale = left - set(match.texts("names"))
        self._standing = left - self._stale
        self._told: Written | None = None
        self._left: dict[str, object] = dict(spec.baseline)
        self.due_at_s = time.monotonic()
        self.watched: Mapping[int, Callable[[], None]] = {}

    def run(self) -> None:
        """Write what does not stand as it should, tell what changed, publish how it went.

        Raises NodeRenewedError once that is told when the directory is another one than the sandbox was made for.
        """
        began_s = self._report.begin(f"look after CDI specifications in {self._files.directory}")
        self._remember()
        self._sweep()
        states = tuple(self._kept(name, text) for name, text in sorted(self._wanted.items()))
        found = known((*self._elsewhere, self._files.directory), self._sought)
        self._tell(Written(self._spec.device, self._spec.incarnation, states, self._sought, found))
        # What is taken away and gone needs no further care.
        gone = {one.name for one in states if not one.wanted and not one.standing and not one.error}
        self._wanted = {name: text for name, text in self._wanted.items() if name not in gone}
        self._standing -= gone
        self._remember()
        error = next((one.error for one in states if one.error), "")
        took_s = time.monotonic() - began_s
        if not error and took_s > self._spec.timeout_s:
            error = f"took {took_s:.1f} s, allowed {self._spec.timeout_s:g} s"
        self._report.verdict("fail" if error else "pass", error, began_s)
        self.due_at_s = time.monotonic() + self._spec.period_s
        if error and (path := self._outdated()):
            raise NodeRenewedError(f"{path} was made anew since this process began: another one takes over")

    def order(self, order: WriteSpecs) -> None:
        """Take an order, and go over all files at once."""
        self._sought = order.sought
        self._wanted.update({one.name: one.text for one in order.files})
        self._told = None  # an order is answered even where it changed nothing
        self.run()

    def reset(self, order: Reset) -> None:
        """Refuse: a scribe has no device."""
        spec, state = self._spec, self._report.state
        reason = "a scribe has no device to reset"
        self._channel.send(ResetDone(spec.device, spec.incarnation, order.reset_id, False, reason, 0.0, state))  # noqa: FBT003 - the field's own place

    def inject(self, fault: Fault | None) -> None:
        """Take no note: it is devices that misbehave."""

    def leave_alone(self, paths: tuple[str, ...]) -> None:
        """Take no note: devices are not a scribe's matter."""

    def _kept(self, name: str, text: str) -> SpecFile:
        """Have a file hold a text; return how that went."""
        wanted, standing, error = digest(text), "", ""
        try:
            standing = self._files.standing(name)
            if standing != wanted:
                self._report.say(f"write {self._files.path(name)}")
                if text:
                    self._files.write(name, text)
                else:
                    self._files.remove(name)
                standing = self._files.standing(name)
        except OSError as problem:
            error = _said(problem, self._files.path(name))
        if not error and standing != wanted:
            error = f"{self._files.path(name)}: somebody else writes it"
        return SpecFile(name, wanted, standing, error)

    def _sweep(self) -> None:
        """Take away what earlier scribes wrote for resources that are not there any more; what fails, next time."""
        for name in sorted(self._stale):
            if OWN_NAME.fullmatch(name):
                try:
                    self._files.remove(name)
                except OSError:
                    continue
            self._stale.discard(name)

    def _remember(self) -> None:
        """Leave the names of all files to the next scribe, before they are written."""
        self._standing |= self._wanted.keys()
        names = [*sorted(self._standing), *sorted(self._stale)][:MAX_REMEMBERED]
        left: dict[str, object] = {"files": names} if names else {}
        if left != self._left:
            self._left = left
            spec = self._spec
            self._channel.send(Findings(spec.device, spec.incarnation, (), (), {}, left))

    def _tell(self, written: Written) -> None:
        if written != self._told:
            self._told = written
            self._channel.send(written)


def run(spec: WorkerSpec, lifeline_fd: int) -> int:
    """Be the scribe until told to stop; return the exit code. Raises SpecError for a spec nothing can be made of."""
    match = Params("match", spec.match)
    directory = match.text("directory")
    os.umask(READABLE_BY_ALL)
    with suppress(OSError):  # the first write says it
        os.makedirs(directory, 0o755, exist_ok=True)  # noqa: PTH103 - text paths throughout
    needs = SandboxNeeds(
        (
            PathNeed(directory, "rw", vital=True),
            *(PathNeed(path, "r") for path in match.texts("elsewhere")),
            *python_runtime("r"),
        ),
        groups=frozenset({"files"}),
    )
    confinement = Confinement(spec.device, needs, spec.sandbox)
    confinement.before_connect()
    with Channel(spec) as channel:
        channel.wait_heard()
        channel.greet(confinement.after_connect(), os.getpid())
        if confinement.broken:
            raise SandboxBrokenError(confinement.broken)
        scribe = Scribe(spec, channel, SpecFiles(directory), confinement.outdated)
        return serve(scribe, channel, lifeline_fd, scribe.order)


def _said(error: OSError, path: str) -> str:
    """Return a failed call in a line: the path, the errno's name, its text."""
    number = error.errno or 0
    return f"{error.filename or path}: {errno.errorcode.get(number, 'error')} ({error.strerror or error})"
