"""What is remembered of devices that left the node: the newest of them, and every cordon."""

import asyncio
from pathlib import Path

from devd.daemon.device_state import BLANK, Memory
from devd.daemon.fences import Fences
from devd.daemon.memory import Here
from devd.daemon.memory_keeper import KEPT_DEPARTED, MemoryKeeper
from devd.daemon.memory_store import MemoryStore

HERE = Here("this boot", "pid:[1]")
CLOSE_WITHIN_S = 20.0


def no_helper(device: str) -> bool:
    """Return that this is a device."""
    del device
    return False


def run(state_dir: Path, departing: list[str], unseen_after_s: float = 600.0) -> set[str]:
    """Have devices with a memory of their own leave, one after the other; return the names of the files left."""

    async def play() -> None:
        store = MemoryStore(state_dir, HERE)
        fences = Fences(asyncio.get_running_loop(), print)
        loaded = store.load()
        keeper = MemoryKeeper(store, loaded, fences, no_helper, unseen_after_s=unseen_after_s)
        for device in departing:
            keeper.recall(device)
            keeper.keep(device, Memory(cordon="mine" if device == "kept" else None, failed="given up"))
            keeper.departed(device)
        assert store.close(CLOSE_WITHIN_S)

    asyncio.run(play())
    return {one.stem for one in (state_dir / "devices").glob("*.json")}


def test_the_last_departed_are_remembered_and_every_cordon(tmp_path: Path) -> None:
    """A node that sees new serial numbers all day does not fill its disk, over restarts as well."""
    devices = [f"d{number}" for number in range(KEPT_DEPARTED + 2)]
    left = run(tmp_path, ["kept", *devices])
    assert left == {"kept", *devices[-KEPT_DEPARTED:]}
    assert run(tmp_path, ["new"]) == {"kept", "new", *devices[3:]}
    # One that comes back, and is not said to leave, is none of them.
    assert run(tmp_path, ["d3", "new"]) == {"kept", "new", *devices[3:]}


def test_who_is_merely_not_there_yet_has_not_departed(tmp_path: Path) -> None:
    """Soon after a start nobody is taken for gone that did not leave; later those are that were never seen."""

    async def many() -> None:
        store = MemoryStore(tmp_path, HERE)
        keeper = MemoryKeeper(store, store.load(), Fences(asyncio.get_running_loop(), print), no_helper)
        for number in range(KEPT_DEPARTED + 5):
            keeper.keep(f"d{number}", Memory(failed="given up"))
        assert store.close(CLOSE_WITHIN_S)

    asyncio.run(many())
    assert len(run(tmp_path, ["new"])) == KEPT_DEPARTED + 6
    assert len(run(tmp_path, ["new"], unseen_after_s=0.0)) == KEPT_DEPARTED


def test_a_scout_begins_anew(tmp_path: Path) -> None:
    """That the last one was given up says nothing of the next: only a device's failure is remembered."""

    async def play() -> None:
        store = MemoryStore(tmp_path, HERE)
        keeper = MemoryKeeper(
            store, store.load(), Fences(asyncio.get_running_loop(), print), lambda one: one == "scout:r"
        )
        for one in ("scout:r", "device"):
            keeper.keep(one, Memory(failed="given up"))
        assert (keeper.recall("scout:r"), keeper.recall("device").failed) == (BLANK, "given up")
        assert store.close(CLOSE_WITHIN_S)

    asyncio.run(play())
