"""A hardware driver as a scout meets it: its discovery, minus what another process hangs in."""

from collections.abc import Collection, Mapping
from dataclasses import replace

from devd.workers.drivers.base import Found
from devd.workers.drivers.kind import Careful, DriverKind
from devd.workers.drivers.twins import Twins
from devd.workers.hw import survey
from devd.workers.hw.allowance import needs_of
from devd.workers.sandbox.needs import SandboxNeeds


class HardwareDriver:
    """Discovery of one resource by a ``DriverKind``. Implements ``base.Driver``.

    Sysfs and /proc alone are read, no node is touched; a device with a node in ``leave_alone`` is not listed. A
    discovery that tells twins apart keeps them in its ``twins``, which go from one scout to the next.
    """

    def __init__(self, kind: DriverKind, match: Mapping[str, object]) -> None:
        self._discovery = kind.discovery(match)
        twins = getattr(self._discovery, "twins", None)
        self._twins = twins if isinstance(twins, Twins) else Twins()
        self.leave_alone: frozenset[str] = frozenset()
        self.uevents: Collection[str] = kind.uevents
        self.watches = True
        self.what = self._discovery.what
        self.needs = needs_of(kind.scout) | SandboxNeeds(groups=frozenset({"watch"}))

    @property
    def baseline(self) -> Mapping[str, object]:
        """Return what the next scout has to know."""
        return self._twins.baseline

    @baseline.setter
    def baseline(self, left: Mapping[str, object]) -> None:
        """Begin with what an earlier scout left."""
        self._twins.baseline = left

    def discover(self) -> Found:
        """Look once. Raises OSError."""
        if isinstance(self._discovery, Careful):
            self._discovery.leave_alone = self.leave_alone
        with survey.problems() as unread:
            found = self._discovery.discover()
        devices = tuple(
            one
            for one in found.devices
            if self.leave_alone.isdisjoint(node.path for node in one.nodes if not node.shared)
        )
        return replace(found, devices=devices, problems=(*found.problems, *unread))
