"""What devices are remembered by: recalled when one is discovered, kept when it changes. Runs on the event loop."""

import logging
from collections.abc import Mapping
from dataclasses import replace

from devd.daemon import proc
from devd.daemon.device_state import BLANK, Memory
from devd.daemon.fences import Fences
from devd.daemon.journal import file_name
from devd.daemon.memory import Kept, WorkerMark
from devd.daemon.memory_store import SUFFIX, Loaded, MemoryStore

log = logging.getLogger("devd.memory")


class MemoryKeeper:
    """Between the lifecycles and the disk: the present word on each device, in memory."""

    def __init__(self, store: MemoryStore, loaded: Loaded, fences: Fences) -> None:
        self._store = store
        self._fences = fences
        self._known: dict[str, Memory] = {kept.device: kept.memory for kept in loaded.kept.values()}
        self._workers: dict[str, WorkerMark] = {
            kept.device: kept.worker for kept in loaded.kept.values() if kept.worker is not None
        }
        self._baselines: dict[str, Mapping[str, object]] = {
            kept.device: kept.baseline for kept in loaded.kept.values() if kept.baseline
        }
        self._corrupt: Mapping[str, str] = loaded.corrupt
        for problem in loaded.corrupt.values():
            log.warning("%s; its device is cordoned until an operator has looked", problem)

    def recall(self, device: str) -> Memory:
        """Return what is known of a device; its ``worker`` is one that lives and is waited for from now on.

        A device whose file could not be read comes back cordoned: whether it was is not known.
        """
        memory = self._known.get(device, BLANK)
        mark = self._workers.pop(device, None)
        held = mark is not None and self._fences.hold(device, mark)
        memory = replace(memory, worker=mark.pid if held and mark is not None else None)
        problem = self._corrupt.get(file_name(device, SUFFIX))
        if problem is not None and device not in self._known:
            memory = replace(memory, cordon=f"not known whether it was: {problem}")
            self.keep(device, memory)
        return memory

    def keep(self, device: str, memory: Memory) -> None:
        """Remember a device by this from now on."""
        self._known[device] = memory
        mark = None
        if memory.worker is not None:
            ticks = proc.start_time_ticks(memory.worker)
            mark = WorkerMark(memory.worker, ticks) if ticks is not None else None
        memory = replace(memory, worker=mark.pid if mark else None)
        self._store.put(Kept(device, memory, mark, self._baselines.get(device, {})))

    def baseline(self, device: str) -> Mapping[str, object]:
        """Return what the last worker of a device left to its next."""
        return self._baselines.get(device, {})

    def keep_baseline(self, device: str, baseline: Mapping[str, object]) -> None:
        """Remember what a device's worker leaves to its next."""
        if baseline != self._baselines.get(device, {}):
            self._baselines[device] = baseline
            self.keep(device, self._known.get(device, BLANK))
