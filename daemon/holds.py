"""Which processes hold a device although they were killed, of this devd and of earlier ones, and who waits for them.

A process holds nodes, whatever id they are offered under: no second one is started for a device with such a node.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from devd.daemon.charge import Charge
from devd.daemon.device_state import Phase
from devd.daemon.fences import Fences, same_node
from devd.ipc.messages import Node


@dataclass(frozen=True, slots=True)
class Hold:
    """One process that does not end: the id and resource it was started for, its nodes, and words for a reason."""

    device: str
    resource: str
    pid: int
    nodes: tuple[Node, ...]
    words: str


class Holds:
    """Reads the fences and the charges; ``waiting`` are devices that wait for another's process, with their nodes."""

    def __init__(self, fences: Fences, charges: Mapping[str, Charge]) -> None:
        self._fences = fences
        self._charges = charges
        self._waiting: dict[str, tuple[Node, ...]] = {}

    def on(self, device: str, nodes: tuple[Node, ...]) -> Hold | None:
        """Return what holds a device that has no worker of its own, or None."""
        fence = self._fences.of(device, nodes)
        if fence is not None:
            as_what = "" if fence.device == device else f" (as {fence.device})"
            words = f"{fence.words} still holds the device{as_what}: none is started until the kernel lets it go"
            return Hold(fence.device, fence.mark.resource, fence.pid, fence.mark.nodes, words)
        return next((one for one in self._live() if one.device != device and same_node(one.nodes, nodes)), None)

    def __iter__(self) -> Iterator[Hold]:
        """Yield all there are."""
        for fence in self._fences:
            words = f"{fence.words} still holds {_paths(fence.mark.nodes)}"
            yield Hold(fence.device, fence.mark.resource, fence.pid, fence.mark.nodes, words)
        yield from self._live()

    def born(self, charge: Charge) -> None:
        """Take note of a device that waits from its start for what holds it."""
        if charge.state.incarnation == 0 and charge.state.wedged:
            self._waiting[charge.state.id] = charge.nodes

    def over(self) -> list[str]:
        """Return the devices that waited and that nothing holds any more; each is told once."""
        free = [device for device, nodes in self._waiting.items() if self.on(device, nodes) is None]
        for device in free:
            del self._waiting[device]
        return free

    def _live(self) -> Iterator[Hold]:
        for device, charge in self._charges.items():
            state = charge.state
            # One that waits for another's process holds nothing itself.
            if state.phase is Phase.STOPPING and state.pid is not None and device not in self._waiting:
                what = f"{_paths(charge.nodes)}: none is started until the kernel lets it go"
                words = f"worker {state.pid} of {device} still holds {what}"
                yield Hold(device, charge.resource, state.pid, charge.nodes, words)


def _paths(nodes: Iterable[Node]) -> str:
    return ", ".join(one.path for one in nodes) or "its device"
