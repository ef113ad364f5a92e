"""Probe ``driver`` asks anew which signals a device has: they come and go with firmware and drivers."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from devd.ipc.messages import Device, WorkerSpec
from devd.workers.command import CommandRunner
from devd.workers.drivers import KINDS, pci
from devd.workers.drivers.kind import DriverKind, Tools
from devd.workers.drivers.signals import Signal
from devd.workers.errors import ProbeError
from devd.workers.hw.allowance import Allowance
from devd.workers.probes.base import Call
from devd.workers.probes.driver import DriverProbe


class Folder:
    """The signals of a folder: each file is one, its text what is wrong."""

    notes: Mapping[str, str] = {}
    baseline: Mapping[str, object] = {}

    def __init__(self, device: Device, _tools: Tools) -> None:
        self._folder = Path(str(device.params["folder"]))

    @property
    def offered(self) -> tuple[str, ...]:
        """Return the files' names."""
        return tuple(sorted(one.name for one in self._folder.iterdir()))

    def check(self, name: str) -> str:
        """Return a file's text. Raises OSError."""
        return (self._folder / name).read_text()

    def cured(self) -> None:
        """Nothing is remembered."""


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WorkerSpec:
    """Return the spec of a folder's worker."""
    signals = (Signal("early", "it was there"), Signal("late", "it came"))
    kind = DriverKind(pci.DRIVER.discovery, signals, Folder, lambda _device: Allowance(), {})
    monkeypatch.setitem(KINDS, "folder", kind)
    (tmp_path / "early").write_text("")
    target = Device("one", params={"folder": str(tmp_path)})
    return WorkerSpec("worker", "one", "r", "folder", 1, "", "", 1.0, 1.0, {"kind": "driver"}, target=target)


def test_signal_that_appears_counts_and_one_that_goes_is_no_fault(spec: WorkerSpec, tmp_path: Path) -> None:
    """With the time between two questions over, a new signal is checked, and a vanished one is not missed."""
    probe = DriverProbe(spec, CommandRunner(), ask_every_s=0.0)
    call = Call(lambda _text: None, 0.0, 1.0)
    assert probe.run(call) == ""
    assert probe.checked == ("early",)
    (tmp_path / "late").write_text("bad")
    with pytest.raises(ProbeError, match=r"late: bad \(it came\)"):
        probe.run(call)
    (tmp_path / "late").write_text("")
    (tmp_path / "early").unlink()
    assert probe.run(call) == ""
    assert probe.checked == ("late",)
    assert probe.notes == {"signals gone": "offered before, and no more: early"}
    (tmp_path / "early").write_text("")
    probe.run(call)
    assert probe.notes == {}


def test_question_is_not_asked_with_every_probe(spec: WorkerSpec, tmp_path: Path) -> None:
    """Within that time what was offered first is what is checked."""
    probe = DriverProbe(spec, CommandRunner(), ask_every_s=3600.0)
    call = Call(lambda _text: None, 0.0, 1.0)
    probe.run(call)
    (tmp_path / "late").write_text("bad")
    assert probe.run(call) == ""
    assert probe.checked == ("early",)


class Bare:
    """The least that signals may be."""

    offered = ("early",)

    def __init__(self, device: Device, tools: Tools) -> None:
        del device, tools

    def check(self, name: str) -> str:
        """Find everything well."""
        del name
        return ""


class Holding(Bare):
    """Signals that hold something open, which a reset has to know of."""

    def __init__(self, device: Device, tools: Tools) -> None:
        super().__init__(device, tools)
        self.calls: list[str] = []

    def release(self) -> None:
        """Note the call."""
        self.calls.append("release")

    def cured(self) -> None:
        """Note the call."""
        self.calls.append("cured")


def _probe(monkeypatch: pytest.MonkeyPatch, watch: Callable[[Device, Tools], Bare]) -> DriverProbe:
    signals = (Signal("early", "it was there"),)
    kind = DriverKind(pci.DRIVER.discovery, signals, watch, lambda _device: Allowance(), {})
    monkeypatch.setitem(KINDS, "bare", kind)
    spec = WorkerSpec("worker", "one", "r", "bare", 1, "", "", 1.0, 1.0, {"kind": "driver"}, target=Device("one"))
    return DriverProbe(spec, CommandRunner())


def test_signals_need_not_have_more_than_they_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without notes, baseline, descriptor and the rest there is nothing to tell, and nothing fails."""
    probe = _probe(monkeypatch, Bare)
    assert probe.run(Call(lambda _text: None, 0.0, 1.0)) == ""
    assert (probe.notes, probe.baseline, probe.fd, probe.stale) == ({}, {}, None, False)
    probe.release()
    probe.cured()
    assert probe.run(Call(lambda _text: None, 0.0, 1.0)) == ""


def test_signals_hear_of_a_reset_by_the_documented_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """``release`` before one and ``cured`` after one that worked; before the first probe there is none of its code."""
    made: list[Holding] = []

    def watch(device: Device, tools: Tools) -> Holding:
        made.append(Holding(device, tools))
        return made[0]

    probe = _probe(monkeypatch, watch)
    probe.release()
    assert (made, probe.begun, probe.fd) == ([], False, None)
    assert probe.run(Call(lambda _activity: None, 0.0, 1.0)) == ""
    probe.release()
    probe.cured()
    assert (probe.begun, made[0].calls) == (True, ["release", "cured"])
