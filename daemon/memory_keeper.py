"""What devices are remembered by: recalled when one is discovered, kept when it changes. Runs on the event loop."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from devd.daemon import proc
from devd.daemon.device_state import BLANK, Memory
from devd.daemon.fences import Fences
from devd.daemon.journal import file_name
from devd.daemon.memory import Kept, WorkerMark
from devd.daemon.memory_store import SUFFIX, Loaded, MemoryStore
from devd.ipc.messages import Node

KEPT_DEPARTED = 256
"""Devices that left the node and are remembered all the same, should they come back; of those that left earlier only
cordons are. A node that sees new serial numbers all day does not fill its disk."""
UNSEEN_AFTER_S = 600.0
"""A device that has not been seen for so long since the start has left the node: the slowest bus is up by then."""

log = logging.getLogger("devd.memory")


class MemoryKeeper:
    """Between the lifecycles and the disk: the present word on each device, in memory.

    ``loaded`` is None where the disk has not answered; ``helper`` tells devd's own scouts and scribe from devices.
    """

    def __init__(
        self,
        store: MemoryStore,
        loaded: Loaded | None,
        fences: Fences,
        helper: Callable[[str], bool],
        *,
        unseen_after_s: float = UNSEEN_AFTER_S,
    ) -> None:
        self._unseen_after_s = unseen_after_s
        self._store = store
        self._fences = fences
        self._helper = helper
        self._kept: dict[str, Kept] = {}
        self._departed: dict[str, None] = {}
        self._corrupt: Mapping[str, str] = {}
        self._read = False
        self._unseen: set[str] = set()
        self._started_s = time.monotonic()
        if loaded is not None:
            self._take(loaded)
            self.begin()

    def when_read(self, call: Callable[[], None]) -> None:
        """Have ``call`` made by whatever thread when nothing could be recalled yet and now can."""
        if not self._read:
            self._store.when_read(call)

    def take_late(self) -> None:
        """Know from now on what the disk says after all. What it is to say comes with ``keep``, and ``begin`` after."""
        if not self._read:
            self._take(self._store.found())

    def begin(self) -> None:
        """Write down what is kept, from now on."""
        self._store.begin()

    def recall(self, device: str) -> Memory:
        """Return what is known of a device, without its worker: whether that lives is the fences' word.

        A device whose file could not be read comes back cordoned: whether it was is not known. As long as nothing could
        be read no device is to be touched: one may be cordoned, or held by a process. A scout begins anew with each
        devd, whatever became of the last: what made it fail may be mended, and without it a resource has no devices.
        """
        if self._helper(device):
            self._departed.pop(device, None)
            self._unseen.discard(device)
            return BLANK
        if not self._read:
            story = f"its state has not been read yet: {self._store.problem}"
            return Memory(fence=f"{story}; 'devd uncordon {device}' gives it back unread")
        self._departed.pop(device, None)
        self._unseen.discard(device)
        kept = self._kept.get(device)
        problem = self._corrupt.get(file_name(device, SUFFIX))
        if kept is None and problem is not None:
            cordoned = replace(BLANK, cordon=f"not known whether it was: {problem}")
            self.keep(device, cordoned)
            return cordoned
        return replace(kept.memory, worker=None) if kept is not None else BLANK

    def keep(self, device: str, memory: Memory, nodes: tuple[Node, ...] = (), resource: str = "") -> None:
        """Remember a device by this from now on; ``nodes`` are what its worker was made for."""
        self._departed.pop(device, None)
        mark = None
        if memory.worker is not None:
            # What is left of a worker does not name it: the worker's own mark goes on until that is gone as well.
            fence = self._fences.of(device, ())
            held = fence.mark if fence is not None else self._fences.mark(memory.worker)
            mark = held or _mark(memory.worker, nodes, resource)
        memory = replace(memory, worker=mark.pid if mark else None, fence="")
        before = self._kept.get(device, Kept(device, BLANK))
        self._put(replace(before, memory=memory, worker=mark, departed=False))

    def baseline(self, device: str) -> Mapping[str, object]:
        """Return what the last worker of a device left to its next."""
        kept = self._kept.get(device)
        return kept.baseline if kept is not None else {}

    def keep_baseline(self, device: str, baseline: Mapping[str, object]) -> None:
        """Remember what a device's worker leaves to its next."""
        if baseline != self.baseline(device):
            self._put(replace(self._kept.get(device, Kept(device, BLANK)), baseline=baseline))

    def departed(self, device: str) -> None:
        """Take note that a device has left the node: of many that do, the last are remembered."""
        if time.monotonic() - self._started_s > self._unseen_after_s:
            # Those that left while no devd ran.
            gone, self._unseen = sorted(self._unseen), set()
            self._departed.update(dict.fromkeys(gone))
        kept = self._kept.get(device)
        if kept is None:
            return
        if kept.blank:
            del self._kept[device]
            return
        self._departed[device] = None
        self._put(replace(kept, departed=True))
        self._drop_oldest()

    def _take(self, loaded: Loaded) -> None:
        said, self._kept = self._kept, {}
        for kept in loaded.kept.values():
            self._kept[kept.device] = kept
            if kept.departed:
                self._departed[kept.device] = None
            elif not self._helper(kept.device):
                self._unseen.add(kept.device)
        for device, kept in said.items():
            before = self._kept.get(device, Kept(device, BLANK))
            cordon = before.memory.cordon if kept.memory.cordon is None else kept.memory.cordon
            merged = replace(before, memory=replace(before.memory, cordon=cordon))
            self._put(replace(merged, baseline=kept.baseline or before.baseline, departed=False))
        self._corrupt = loaded.corrupt
        for problem in loaded.corrupt.values():
            log.warning("%s; its device is cordoned until an operator has looked", problem)
        for device in sorted(one.device for one in loaded.kept.values() if one.unknown):
            log.warning("%s: its state has fields of a newer devd: not understood, and kept as they are", device)
        self._fences.hold({one.device: one.worker for one in loaded.kept.values() if one.worker is not None})
        self._read = True
        self._drop_oldest()

    def _put(self, kept: Kept) -> None:
        self._kept[kept.device] = kept
        self._store.put(kept)

    def _drop_oldest(self) -> None:
        """Forget those that left longest ago. A cordon is an operator's word, and a process that holds on a fence."""
        over = len(self._departed) - KEPT_DEPARTED
        for device in list(self._departed)[: max(0, over)]:
            del self._departed[device]
            kept = self._kept[device]
            if kept.memory.cordon is not None or kept.unknown or self._fences.of(device, ()) is not None:
                continue
            del self._kept[device]
            self._store.put(Kept(device, BLANK))


def _mark(pid: int, nodes: tuple[Node, ...], resource: str) -> WorkerMark | None:
    ticks = proc.start_time_ticks(pid)
    return WorkerMark(pid, ticks, nodes, resource) if ticks is not None else None
