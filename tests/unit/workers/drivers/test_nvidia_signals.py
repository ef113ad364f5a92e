"""The nvidia driver's signals: the real binding over a stand-in for the library that answers scripted faults."""

import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devd.ipc.messages import Device
from devd.workers.drivers.nvidia import SIGNALS, NvidiaDriver, NvidiaSignals
from devd.workers.errors import SpecError
from devd.workers.hw import nvml, nvml_events, xid, xid_catalogue
from tests.support import nvml_standin
from tests.unit.workers.drivers import nvidia_tree
from tests.unit.workers.drivers.nvidia_tree import HEALTHY, UUID
from tests.unit.workers.drivers.tree import grow

WHOLE_GPU = f"{nvml.NO_INSTANCE} {nvml.NO_INSTANCE}"
EVENT_S = 10.0
"""Until an event must have arrived; it takes milliseconds."""

Make = Callable[..., NvidiaSignals]


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the stand-in's script, of a GPU that is well."""
    nvml_standin.load()
    path = tmp_path / "script"
    path.write_text(HEALTHY)
    monkeypatch.setenv(nvml_standin.VARIABLE, str(path))
    return path


@pytest.fixture
def make(tmp_path: Path, script: Path) -> Iterator[Make]:
    """Return a maker of signals over the fixture's GPU (``device`` for another), closed at the end."""
    assert script.exists()
    nvidia_tree.gpu(tmp_path)
    (whole,) = NvidiaDriver({}, root=tmp_path).discover().devices
    made: list[NvidiaSignals] = []

    def one(device: Device = whole, **more: object) -> NvidiaSignals:
        signals = NvidiaSignals(device, root=tmp_path, **more)  # type: ignore[arg-type]  # checked at each call's site
        made.append(signals)
        return signals

    yield one
    for signals in made:
        signals.release()


def _bad(signals: NvidiaSignals) -> dict[str, str]:
    return {name: reason for name in signals.offered if name != "node" and (reason := signals.check(name))}


def _tell(script: Path, *lines: str) -> None:
    """Append lines to the script in one piece, since it may be read at any time."""
    fresh = script.with_name("fresh")
    fresh.write_text(script.read_text() + "".join(f"{line}\n" for line in lines))
    fresh.rename(script)


def _set(script: Path, key: str, value: str) -> None:
    """Replace one line of the script."""
    kept = [line for line in script.read_text().splitlines() if line.split(" ", 1)[0] != key]
    fresh = script.with_name("fresh")
    fresh.write_text("\n".join([*kept, f"{key} {value}", ""]))
    fresh.rename(script)


def _wait(signals: NvidiaSignals) -> None:
    """Wait until the descriptor says that an event has come."""
    assert signals.fd is not None
    ready, _write, _error = select.select([signals.fd], [], [], EVENT_S)
    assert ready, "no event came"


def _xid(script: Path, signals: NvidiaSignals, number: int, where: str = WHOLE_GPU) -> None:
    """Have the stand-in tell an XID, and wait for it."""
    signals.check("xid")  # events are waited for from here on
    _tell(script, f"event {nvml_events.XID} {number} {where}")
    _wait(signals)


def test_a_healthy_gpu_offers_all_and_passes(make: Make) -> None:
    """Every signal is offered and well, over a real ctypes call each."""
    signals = make()
    assert set(signals.offered) == {one.name for one in SIGNALS}
    assert _bad(signals) == {}
    assert signals.notes == {}


def test_what_the_gpu_does_not_support_is_not_offered(make: Make, script: Path) -> None:
    """An older GPU without row remapping, recovery action, ECC, MIG and events is no sick one."""
    script.write_text(f"uuid {UUID}\nevents 0\n")
    signals = make()
    assert signals.offered == ("nvml", "gpu", "identity", "node")
    assert [signals.check(one.name) for one in SIGNALS if one.name != "node"] == [""] * (len(SIGNALS) - 1)
    assert signals.notes["events"] == "not offered: event types: the GPU tells no XIDs (NVML error 3)"


@pytest.mark.parametrize(
    ("key", "value", "name", "reason"),
    [
        ("action", "1", "recovery-action", "NVML asks to reset the GPU"),
        ("action", "2", "recovery-action", "NVML asks to reboot the node"),
        ("action", "9", "recovery-action", "NVML asks to take its action 9"),
        ("remap", "1 2 1 0", "row-remap", "a row's remapping waits for a reset of the GPU"),
        (
            "remap",
            "1 2 1 1",
            "row-remap",
            "a row's remapping has failed (1 and 2 rows are remapped): replace the GPU",
        ),
        ("pending", "1", "retired-pages", "a page's retirement waits for a reset of the GPU"),
        ("clocks", "0x8", "slowdown", "the hardware slows the GPU down"),
        ("clocks", "0x40", "thermal", "the hardware slows the GPU down, it is too hot"),
        ("clocks", "0x80", "power-brake", "the power supply slows the GPU down"),
        ("mig", "1", "mig", "the GPU has been split by MIG: it can't be used whole"),
        ("uuid", "GPU-other", "identity", f'NVML says it is "GPU-other" now, was {UUID}'),
        ("fail ecc", "999", "ecc", "ECC errors: Unknown Error (NVML error 999)"),
    ],
)
def test_each_fault_is_its_own_signal(make: Make, script: Path, key: str, value: str, name: str, reason: str) -> None:
    """One scripted fault makes one signal bad, and none of the others."""
    signals = make()
    _set(script, key, value)
    assert _bad(signals) == {name: reason}


def test_new_memory_errors_are_bad_and_old_ones_are_not(make: Make, script: Path) -> None:
    """Counted from the baseline, over workers, until a reset has cured it."""
    _set(script, "ecc", "3")
    first = make()
    assert first.check("ecc") == ""
    _set(script, "ecc", "5")
    second = make(baseline=first.baseline)
    assert second.check("ecc") == "uncorrected memory errors grew by 2 (3 -> 5)"
    second.cured()
    assert second.check("ecc") == ""


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("fail uuid 15", "UUID: GPU is lost (NVML error 15): it has fallen off the bus"),
        ("fail handle 6", "open the GPU: Not Found (NVML error 6): no GPU answers"),
        ("fail uuid 16", "UUID: GPU requires restart (NVML error 16): reset it"),
        ("fail handle 2", "open the GPU: Invalid Argument (NVML error 2)"),
    ],
)
def test_a_lost_gpu_is_the_gpus_fault(make: Make, script: Path, line: str, reason: str) -> None:
    """The GPU is accused, NVML is not; well again when it answers again."""
    signals = make(events=False)
    _tell(script, line)
    assert signals.check("gpu").startswith(reason)
    assert signals.check("nvml") == ""
    script.write_text(HEALTHY)
    assert signals.check("gpu") == ""


@pytest.mark.parametrize(("code", "stale"), [(9, False), (12, False), (18, True), (4, False)])
def test_trouble_with_nvml_is_not_the_gpus_fault(make: Make, script: Path, code: int, stale: bool) -> None:  # noqa: FBT001 - a parameter of the table
    """NVML is accused, the GPU is not, yet nothing is called well; only a changed driver needs a new process."""
    signals = make(events=False)
    _tell(script, f"fail init {code}")
    assert signals.check("nvml").startswith("not the GPU's fault: start NVML: ")
    assert f"(NVML error {code}): " in signals.check("nvml")
    assert signals.check("gpu") == ""
    assert signals.check("ecc") == signals.check("nvml")
    assert signals.stale is stale
    script.write_text(HEALTHY)
    assert signals.check("nvml") == ""
    assert not signals.stale


def test_the_gpu_is_opened_by_its_address_alone(make: Make, script: Path) -> None:
    """No other GPU is woken, and what was opened is closed."""
    signals = make()
    assert _bad(signals) == {}
    signals.release()
    signals.release()
    calls = Path(f"{script}.calls").read_text().splitlines()
    assert [one for one in calls if one.startswith("open")] == [f"open {nvidia_tree.ADDRESS}"]
    assert calls == ["init", f"open {nvidia_tree.ADDRESS}", "set", "free", "shutdown"]


# ---- XIDs -------------------------------------------------------------------------------------------------------


def test_an_xid_that_needs_a_reset_is_told_at_once_and_until_the_reset(make: Make, script: Path) -> None:
    """The descriptor wakes the worker; the reason stays, over workers, until a reset has worked."""
    signals = make()
    _xid(script, signals, 95)
    assert signals.check("xid") == "XID 95 (uncontained ECC error): the GPU has to be reset"
    again = make(baseline=signals.baseline, events=False)
    assert again.check("xid") == "XID 95 (uncontained ECC error): the GPU has to be reset"
    again.cured()
    assert again.check("xid") == ""
    assert make(baseline=again.baseline, events=False).check("xid") == ""


@pytest.mark.parametrize("number", [13, 31, 43, 45, 63, 94])
def test_an_applications_xid_is_no_fault(make: Make, script: Path, number: int) -> None:
    """What an application caused, or what is only recorded, is a note."""
    signals = make()
    _xid(script, signals, number)
    assert signals.check("xid") == ""
    assert signals.notes[f"xid {number}"].startswith(f"XID {number} ")


def test_a_reset_by_somebody_else_is_noticed(make: Make, script: Path) -> None:
    """NVML asked for a reset and does no longer: an operator has done it."""
    signals = make()
    _set(script, "action", "1")
    _xid(script, signals, 119)
    assert signals.check("xid") == "XID 119 (GSP RPC timeout): the GPU has to be reset"
    _set(script, "action", "0")
    assert signals.check("xid") == ""


def test_an_xid_to_ask_about_is_what_nvml_says(make: Make, script: Path) -> None:
    """With the recovery action NVML decides; without it a reset is needed, but not for 45."""
    signals = make()
    _xid(script, signals, 48)
    assert signals.check("xid") == ""
    silent = script.read_text().replace("action 0\n", "")
    script.write_text(silent)
    _xid(script, signals, 45)
    assert signals.check("xid") == ""
    _xid(script, signals, 48)
    assert signals.check("xid") == "XID 48 (double bit ECC error): the GPU has to be reset"


def test_a_gpu_off_the_bus_needs_a_reboot(make: Make, tmp_path: Path, script: Path) -> None:
    """79 outlives a reset and ends with the boot; that NVML loses the GPU meanwhile costs nothing."""
    signals = make()
    _xid(script, signals, 79)
    _tell(script, "fail uuid 15", "fail fields 15")
    assert signals.check("gpu").startswith("UUID: GPU is lost")
    signals.cured()
    script.write_text(HEALTHY)
    assert signals.check("xid") == "XID 79 (GPU has fallen off the bus): the node has to be rebooted"
    grow(tmp_path, {"proc/sys/kernel/random/boot_id": "boot-2"})
    after = make(baseline=signals.baseline, events=False)
    assert after.check("xid") == ""
    assert not [key for key in after.baseline if key.startswith("xid")]


def test_an_operator_can_change_the_catalogue(make: Make, script: Path) -> None:
    """A class from the configuration wins; one that makes no sense is refused."""
    signals = make(xids={"31": "reset", "95": "ignore"})
    _xid(script, signals, 95)
    _xid(script, signals, 31)
    assert signals.check("xid") == "XID 31 (GPU memory page fault): the GPU has to be reset"
    for wrong in ({"31": "explode"}, {"many": "reset"}):
        with pytest.raises(SpecError):
            make(xids=wrong)


def test_an_event_wait_that_fails_is_begun_again(make: Make, script: Path) -> None:
    """The thread's end is noticed and a new one waits; the device is not accused for it."""
    signals = make()
    assert signals.check("xid") == ""
    _tell(script, "fail wait 999")
    _wait(signals)
    script.write_text(HEALTHY)
    assert signals.check("xid") == ""
    _xid(script, signals, 95)
    assert signals.check("xid") != ""


def test_events_that_nobody_can_wait_for_are_told_and_tried_again(
    make: Make, script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without room for the thread the signal says so instead of ending the worker; nothing is left open."""

    def refused(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    signals = make()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count is all that is wanted
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refused)
        assert "xid" in signals.offered
        with pytest.raises(OSError, match="no thread to wait for NVML's events with: can't start new thread"):
            signals.check("xid")
    assert signals.fd is None
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - as above
    calls = script.with_name(f"{script.name}.calls").read_text().split()
    assert calls.count("set") == calls.count("free") > 0
    assert signals.check("xid") == ""
    assert signals.fd is not None


def test_a_mig_device_hears_what_concerns_it(make: Make, tmp_path: Path, script: Path) -> None:
    """An event of one instance marks that one alone; one of the whole GPU marks all."""
    nvidia_tree.instance(tmp_path, 1, 0)
    nvidia_tree.instance(tmp_path, 2, 0)
    script.write_text(HEALTHY + "instance 1 0 MIG-aaa\ninstance 2 0 MIG-bbb\n")
    one, two = NvidiaDriver({"offer": "mig"}, root=tmp_path).discover().devices
    first = make(one)
    _xid(script, first, 95, "1 0")
    _xid(script, first, 119, "2 0")
    assert first.check("xid") == "XID 95 (uncontained ECC error): the GPU has to be reset"
    _xid(script, first, 62)
    assert "XID 62" in first.check("xid")
    assert first.check("mig") == ""
    assert make(two, events=False).check("mig") == ""
    script.write_text(HEALTHY + "instance 2 0 MIG-bbb\n")
    assert first.check("mig") == "the GPU has no MIG device gi1-ci0 any more"


def test_a_lost_gpu_is_not_a_lost_instance(make: Make, tmp_path: Path, script: Path) -> None:
    """While the GPU does not answer, its MIG devices are not said to be removed."""
    nvidia_tree.instance(tmp_path, 1, 0)
    script.write_text(HEALTHY + "instance 1 0 MIG-aaa\n")
    (device,) = NvidiaDriver({"offer": "mig"}, root=tmp_path).discover().devices
    _tell(script, "fail instance 15")
    assert make(device, events=False).check("mig").startswith("MIG device: GPU is lost")


def test_the_catalogue_gives_each_xid_one_cure() -> None:
    """No number stands in two classes, and every fallback is of one to ask about."""
    numbers = [number for members in xid_catalogue.CURES.values() for number in members]
    assert len(numbers) == len(set(numbers))
    assert set(xid_catalogue.OTHERWISE) <= xid_catalogue.CURES["ask"]
    assert set(xid_catalogue.NAMES) <= set(numbers)


def test_an_unknown_xid_is_not_taken_lightly() -> None:
    """A number nobody knows is asked about, and means a reset where NVML tells nothing."""
    assert xid.cure_of(99999, xid.cures(), action_known=True) == "ask"
    assert xid.cure_of(99999, xid.cures(), action_known=False) == "reset"


@pytest.mark.parametrize(
    "entry", [None, 5, "x", {}, {"cure": 7}, {"boot_id": "b"}, {"boot_id": "b", "cure": "nonsense"}]
)
def test_a_damaged_store_is_read(entry: object) -> None:
    """Whatever stands there, an answer comes; an entry of this boot that says nothing means a reset."""
    stored = {"xid 95": entry, "xid banana": entry, "other": 1}
    reason = xid.reason(xid.acted(stored, 1), "b")
    known = isinstance(entry, dict) and "boot_id" in entry
    assert reason == ("XID 95 (uncontained ECC error): the GPU has to be reset" if known else "")
    assert xid.without(stored) == {"other": 1}
    assert set(xid.of_boot(stored, "b")) == ({"xid 95", "xid banana"} if known else set())


def test_closing_is_quick(make: Make) -> None:
    """The thread ends within its wait."""
    signals = make()
    assert signals.check("xid") == ""
    began_s = time.monotonic()
    signals.release()
    assert time.monotonic() - began_s < nvml_events.CLOSE_S
    assert signals.fd is None


def test_an_unknown_signal_is_refused(make: Make) -> None:
    """A misspelt signal would be well for ever."""
    with pytest.raises(SpecError, match="xids"):
        make().check("xids")
