"""A third party's driver: each folder below a directory is a lamp; its files are what a real one's attributes would be.

``light`` says on or off, ``flickers`` counts, ``old`` says that the driver was changed beneath its worker; a byte in
the pipe ``events`` calls for a probe at once. ``address`` is its address, ``sysfs`` its directory there, ``circuit``
those of the lamps that go out with it. Nothing else is special about it: it is found by its entry point.
"""

import errno
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from devd.ipc.messages import Device
from devd.workers.drivers.base import Found
from devd.workers.drivers.kind import DriverKind, ResetKind, Tools
from devd.workers.drivers.signals import Signal
from devd.workers.errors import ResetError, SpecError
from devd.workers.hw import holders
from devd.workers.hw.allowance import Allowance
from devd.workers.hw.baseline import Rule
from devd.workers.hw.counters import Counters
from devd.workers.params import Params
from devd.workers.probes.base import Call

SIGNALS = (
    Signal("light", "the lamp is dark; change the bulb"),
    Signal("flickers", "the lamp flickered since the baseline; screw it in"),
    Signal("dust", "there is dust on it; wipe it", default=False),
    Signal("dimmer", "its dimmer is broken"),
)
GUARDED = "/dev/fuse"
"""Whoever has this open uses all lamps."""


class Lamps:
    """Discovery."""

    def __init__(self, match: Mapping[str, object]) -> None:
        self._room = Path(Params("match", match).text("room"))
        if not self._room.is_absolute():
            raise SpecError("match.room: an absolute path is needed")
        self.what = f"lamps in {self._room}"

    def discover(self) -> Found:
        """List the folders. Raises OSError."""
        names = sorted(one.name for one in self._room.iterdir() if one.is_dir())
        return Found(tuple(self._lamp(name) for name in names))

    def _lamp(self, name: str) -> Device:
        properties = {"bulb": "E27"}
        for key in ("address", "sysfs"):
            with suppress(FileNotFoundError):
                properties[key] = (self._room / name / key).read_text().strip()
        return Device(name, properties=properties, params={"folder": str(self._room / name)})


class LampSignals:
    """The signals of one lamp."""

    def __init__(self, device: Device, tools: Tools) -> None:
        self._folder = _folder(device)
        if (self._folder / "unscrewed").exists():
            raise FileNotFoundError(errno.ENOENT, "unscrewed", str(self._folder))
        self._counters = Counters(Path("/"), tools.baseline)
        self._events = -1
        with suppress(OSError):
            self._events = os.open(self._folder / "events", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    @property
    def offered(self) -> tuple[str, ...]:
        """Return all but the dimmer, which this lamp has not."""
        return ("light", "flickers", "dust")

    @property
    def notes(self) -> Mapping[str, str]:
        """Return the lamp's colour."""
        return {"colour": "warm white"}

    @property
    def baseline(self) -> Mapping[str, object]:
        """Return the counter's baseline."""
        return self._counters.stored

    @property
    def fd(self) -> int | None:
        """Return the pipe of events."""
        return self._events if self._events >= 0 else None

    @property
    def stale(self) -> bool:
        """Return whether the driver was changed."""
        return (self._folder / "old").exists()

    def cured(self) -> None:
        """Count anew."""
        self._counters.forget(["flickers"])

    def check(self, name: str) -> str:
        """Return what is wrong. Raises OSError."""
        if self._events >= 0:
            with suppress(BlockingIOError):
                os.read(self._events, 4096)
        if name == "light":
            light = (self._folder / "light").read_text().strip()
            return "" if light == "on" else f"the light is {light}"
        if name == "dust":
            return "grey"
        return self._counters.judge(Rule("flickers"), int((self._folder / "flickers").read_text()))


class Rewire:
    """Puts the light on, unless somebody uses the lamps."""

    def __init__(self, device: Device, *, careful: bool) -> None:
        self._folder = _folder(device)
        self._careful = careful
        self.activity = f"rewire {device.id}"

    def run(self, call: Call) -> None:
        """Put the light on. Raises ResetError, OSError."""
        call.say("look who uses the lamps")
        users = holders.of_nodes(Path("/"), [GUARDED])
        if self._careful and users.found:
            raise ResetError(f"refused: {users.words()}")
        (self._folder / "light").write_text("on\n")


class CutCircuit:
    """Takes the current from a whole circuit, unless a lamp of it was given to somebody."""

    def __init__(self, device: Device) -> None:
        self._folder = _folder(device)
        self.activity = f"cut the circuit of {device.id}"

    def run(self, call: Call) -> None:
        """Put the light on. Raises ResetError, OSError."""
        call.say("look who has the lamps")
        circuit = (self._folder / "circuit").read_text().split()
        if users := holders.of_nodes(Path("/"), circuit).known:
            raise ResetError(f"refused, {', '.join(circuit)} would go out: {', '.join(users)}")
        (self._folder / "light").write_text("on\n")


def _folder(device: Device) -> Path:
    return Path(Params("params", device.params).text("folder"))


def _allowed(device: Device) -> Allowance:
    folder = _folder(device)
    return Allowance(read=("/proc/sys/kernel/random/boot_id", str(folder)), write=(str(folder / "events"),))


def _allowed_reset(device: Device) -> Allowance:
    return Allowance(write=(str(_folder(device) / "light"),), groups=("files",))


DRIVER = DriverKind(
    discovery=Lamps,
    signals=SIGNALS,
    watch=LampSignals,
    allowed=_allowed,
    resets={
        "rewire": ResetKind(lambda device, _tools: Rewire(device, careful=True), _allowed_reset, "puts the light on"),
        "cut": ResetKind(lambda device, _tools: CutCircuit(device), _allowed_reset, "cuts the circuit"),
        "blind": ResetKind(lambda device, _tools: Rewire(device, careful=False), _allowed_reset, "does so in any case"),
    },
    uevents=("mem",),
    places=("/tmp",),
    scout=Allowance(read=("/tmp",)),
)
