"""What the XIDs seen on a GPU mean now: pure functions over the map that a worker's counters live in as well.

An XID that needs a cure is kept as ``{"xid N": {"boot_id", "cure", "at_s", "acted"}}`` until it is cured. One that
asks for a reset ends with the reset; one that asks for more ends with the boot.
"""

from collections.abc import Mapping
from typing import get_args

from devd.workers.errors import SpecError
from devd.workers.hw import xid_catalogue
from devd.workers.hw.xid_catalogue import Cure

PREFIX = "xid "
"""Of the keys that are XIDs, beside those of counters."""
_HARMLESS: tuple[Cure, ...] = ("ignore", "app")
_WORDS: Mapping[Cure, str] = {
    "ignore": "nothing",
    "app": "the application has to be started again",
    "ask": "the GPU has to be reset",
    "reset": "the GPU has to be reset",
    "reboot": "the node has to be rebooted",
    "vm": "the virtual machine has to be started again",
    "check": "the GPU's seating and power have to be checked",
}


def cures(changes: Mapping[str, object] | None = None) -> dict[int, Cure]:
    """Return XID -> cure: the catalogue with an operator's changes ({"94": "reset"}). Raises SpecError."""
    found: dict[int, Cure] = {number: cure for cure, numbers in xid_catalogue.CURES.items() for number in numbers}
    for number, cure in (changes or {}).items():
        if not str(number).isdecimal() or cure not in get_args(Cure):
            raise SpecError(
                f"xids: {number!r}: {cure!r} found, a number and one of {', '.join(get_args(Cure))} is needed"
            )
        known: dict[object, Cure] = {one: one for one in get_args(Cure)}
        found[int(number)] = known[cure]
    return found


def words(number: int) -> str:
    """Return an XID for people: "XID 79 (GPU has fallen off the bus)"."""
    name = xid_catalogue.NAMES.get(number, "")
    return f"XID {number} ({name})" if name else f"XID {number}"


def cure_of(number: int, table: Mapping[int, Cure], *, action_known: bool) -> Cure:
    """Return what an XID asks for; one that nobody knows is asked about."""
    cure = table.get(number, "ask")
    if cure == "ask" and not action_known:
        return xid_catalogue.OTHERWISE.get(number, "reset")
    return cure


def record(stored: Mapping[str, object], boot_id: str, number: int, cure: Cure, at_s: float) -> dict[str, object]:
    """Return the map with an XID that was seen; a harmless one, and one that NVML decides, is not kept."""
    if cure in (*_HARMLESS, "ask"):
        return dict(stored)
    return {**stored, f"{PREFIX}{number}": {"boot_id": boot_id, "cure": cure, "at_s": at_s, "acted": False}}


def of_boot(stored: Mapping[str, object], boot_id: str) -> dict[str, object]:
    """Return the XIDs of this boot alone: a reboot cures whatever a driver can be told of."""
    return {key: entry for key, entry in _entries(stored).items() if entry.get("boot_id") == boot_id}


def without(stored: Mapping[str, object]) -> dict[str, object]:
    """Return the map without any XID."""
    return {key: one for key, one in stored.items() if not key.startswith(PREFIX)}


def acted(stored: Mapping[str, object], action: int) -> dict[str, object]:
    """Return the map after NVML told its recovery action.

    Once it has told one, "none" means that somebody has carried it out: what asked for a reset is cured.
    """
    found = dict(stored)
    for key, entry in _entries(stored).items():
        if entry.get("cure") != "reset":
            continue
        if action:
            found[key] = {**entry, "acted": True}
        elif entry.get("acted") is True:
            del found[key]
    return found


def was_reset(stored: Mapping[str, object]) -> dict[str, object]:
    """Return the map after a reset that worked: only what asks for more than that is left."""
    gone = [key for key, entry in _entries(stored).items() if entry.get("cure") == "reset"]
    return {key: one for key, one in stored.items() if key not in gone}


def reason(stored: Mapping[str, object], boot_id: str) -> str:
    """Return what has to be done because of the XIDs of this boot, "" for nothing."""
    found = []
    for key, entry in sorted(_entries(stored).items()):
        number = key.removeprefix(PREFIX)
        if entry.get("boot_id") == boot_id and number.isdecimal():
            what = next((text for cure, text in _WORDS.items() if cure == entry.get("cure")), _WORDS["reset"])
            found.append(f"{words(int(number))}: {what}")
    return "; ".join(found)


def _entries(stored: Mapping[str, object]) -> dict[str, Mapping[str, object]]:
    return {key: one for key, one in stored.items() if key.startswith(PREFIX) and isinstance(one, Mapping)}
