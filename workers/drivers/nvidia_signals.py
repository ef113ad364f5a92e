"""The signals of an NVIDIA GPU or MIG device, by NVML. What is wrong with NVML itself is told apart from a sick GPU."""

from collections.abc import Callable, Mapping
from pathlib import Path

from devd.ipc.messages import Device
from devd.workers.drivers.signals import Signal
from devd.workers.errors import SpecError
from devd.workers.hw import attributes, nodes, nvml, nvml_events, xid
from devd.workers.hw.baseline import Rule
from devd.workers.hw.counters import BOOT_ID, Counters, boottime_s
from devd.workers.hw.nvml import Fault, NvmlError, Session
from devd.workers.hw.nvml_events import EventWatch
from devd.workers.params import Params

SIGNALS = (
    Signal("nvml", "NVML is missing or does not fit the driver: not the GPU's fault, see the reason for what to do"),
    Signal("gpu", "the GPU is lost, or NVML says that it needs a reset; reset it, or reboot the node"),
    Signal("identity", "another GPU stands at this address; the next scan lists it under its own id"),
    Signal("node", "a device node is missing or leads to another device; load nvidia-uvm, run nvidia-modprobe"),
    Signal("recovery-action", "NVML asks for a reset, a drain or a reboot; do what it says"),
    Signal("xid", "the driver reported an XID that needs a cure; see the reason for which"),
    Signal("ecc", "uncorrected memory errors since the baseline; applications may have got wrong data: reset the GPU"),
    Signal("row-remap", "a row's remapping waits for a reset, or has failed (then replace the GPU)"),
    Signal("retired-pages", "a page's retirement waits for a reset (GPUs before Ampere)"),
    Signal("mig", "the MIG device is gone, or the whole GPU has been split; devd lists anew what is there"),
    Signal("slowdown", "the hardware holds the clocks down by half or more; look at power and cooling", default=False),
    Signal("thermal", "the GPU is too hot and slows down; look at cooling", default=False),
    Signal("power-brake", "the power supply asks the GPU to slow down; look at power", default=False),
)

_CLOCKS: Mapping[str, tuple[int, str]] = {
    "slowdown": (0x08, "the hardware slows the GPU down"),
    "thermal": (0x40, "the hardware slows the GPU down, it is too hot"),
    "power-brake": (0x80, "the power supply slows the GPU down"),
}
"""nvmlClocksEventReason* of nvml.h."""
_ACTIONS: Mapping[int, str] = {
    1: "reset the GPU",
    2: "reboot the node",
    3: "drain the peers' traffic",
    4: "drain the GPU and reset it",
    5: "recover the IMEX domain",
    6: "reset the bus",
    7: "reboot the system",
}
"""nvmlDeviceGpuRecoveryAction_t of nvml.h."""
ECC = Rule("uncorrected memory errors")


class NvidiaSignals:
    """The signals of one device. Its NVML session and event watch stay open until ``release``, which a reset needs."""

    def __init__(
        self,
        device: Device,
        *,
        root: Path = Path("/"),
        baseline: Mapping[str, object] | None = None,
        xids: Mapping[str, object] | None = None,
        events: bool = True,
    ) -> None:
        """Take ``xids`` as changes to the catalogue ({"94": "reset"}). Raises SpecError."""
        params = Params("params", device.params)
        self._device = device
        self._root = root
        self._uuid = params.text("gpu_uuid")
        self._instance = _instance(params)
        self._session = Session(params.text("address"))
        self._boot_id = attributes.text(root / BOOT_ID) or ""
        self._cures = xid.cures(xids)
        self._seen: Mapping[str, object] = xid.of_boot(baseline or {}, self._boot_id)
        self._counters = Counters(root, xid.without(baseline or {}))
        self._events_wanted = events
        self._watch: EventWatch | None = None
        self._notes: dict[str, str] = {}
        self._stale = False
        self._checks: Mapping[str, Callable[[], str]] = {
            "nvml": self._nvml,
            "gpu": self._nvml,
            "identity": self._identity,
            "node": lambda: nodes.differ(root, device.nodes),
            "recovery-action": self._recovery_action,
            "xid": self._xid,
            "ecc": lambda: self._counters.judge(ECC, self._session.uncorrected_errors()),
            "row-remap": self._row_remap,
            "retired-pages": self._retired_pages,
            "mig": self._mig,
            **{name: self._clocks(*one) for name, one in _CLOCKS.items()},
        }

    @property
    def offered(self) -> tuple[str, ...]:
        """Return the signals this device has: those that NVML does not refuse as not supported."""
        return tuple(one.name for one in SIGNALS if self._is_offered(one.name))

    @property
    def notes(self) -> Mapping[str, str]:
        """Return what is worth telling although it is no fault (what -> text)."""
        return {**self._notes, **self._counters.notes}

    @property
    def baseline(self) -> Mapping[str, object]:
        """Return counters and uncured XIDs to keep for the next worker."""
        return {**self._counters.stored, **self._seen}

    @property
    def stale(self) -> bool:
        """Return whether only a new process can help: the library in this one no longer fits the driver."""
        return self._stale

    @property
    def fd(self) -> int | None:
        """Return a descriptor that is readable when an event calls for a probe at once; None while there is none."""
        return self._watch.fd if self._watch is not None else None

    def release(self) -> None:
        """Give the GPU back: nobody can reset it while a session is open. The next check opens a new one."""
        self._take_events()
        if self._watch is not None:
            if not self._watch.close():
                self._notes["events"] = "the thread that waits for events hangs in the driver"
            self._watch = None
        self._session.close()

    def cured(self) -> None:
        """Take note that a reset has worked: what asked for one is over, the counters begin anew."""
        self._seen = xid.was_reset(self._seen)
        self._counters.forget([ECC.name])

    def check(self, name: str) -> str:
        """Return "" when a signal is well or not offered, else the reason. Raises OSError, SpecError."""
        if name not in self._checks:
            raise SpecError(f"signal {name!r} is unknown to the nvidia driver")
        try:
            return self._checks[name]()
        except NvmlError as error:
            return self._told(name, error)

    def _told(self, name: str, error: NvmlError) -> str:
        """Return what an error of NVML's means for a signal, and give up a session that is of no more use."""
        if error.fault is Fault.NOT_OFFERED:
            return ""
        if error.fault in (Fault.SOFTWARE, Fault.GONE):
            self._stale = self._stale or error.code == nvml.MISMATCH
            self.release()
        advice = f": {error.advice}" if error.advice else ""
        if error.fault is Fault.SOFTWARE:
            # The GPU may be well, but nobody can know, and unknown is not healthy: every other signal says why.
            return "" if name == "gpu" else f"not the GPU's fault: {error}{advice}"
        return "" if name == "nvml" else f"{error}{advice}"

    def _is_offered(self, name: str) -> bool:
        if name in ("nvml", "gpu", "identity", "node"):
            return True
        if name == "mig" and self._instance is not None:
            return True
        try:
            self._checks[name]()
        except NvmlError as error:
            return error.fault is not Fault.NOT_OFFERED
        except OSError:
            return True  # the check says why
        return name != "xid" or self._watch is not None

    # ---- signals ------------------------------------------------------------------------------------------------

    def _nvml(self) -> str:
        """Reach the GPU: whatever is wrong is raised."""
        self._session.uuid()
        self._stale = False
        return ""

    def _identity(self) -> str:
        found = self._session.uuid()
        return "" if found == self._uuid else f"NVML says it is {attributes.shown(found)} now, was {self._uuid}"

    def _recovery_action(self) -> str:
        action = self._session.recovery_action()
        self._seen = xid.acted(self._seen, action)
        return f"NVML asks to {_ACTIONS.get(action, f'take its action {action}')}" if action else ""

    def _xid(self) -> str:
        self._take_events()
        self._start_events()
        if self._seen:
            self._ask_action()
        return xid.reason(self._seen, self._boot_id)

    def _row_remap(self) -> str:
        corrected, uncorrected, pending, failed = self._session.remapped_rows()
        if failed:
            return f"a row's remapping has failed ({corrected} and {uncorrected} rows are remapped): replace the GPU"
        return "a row's remapping waits for a reset of the GPU" if pending else ""

    def _retired_pages(self) -> str:
        return "a page's retirement waits for a reset of the GPU" if self._session.retired_pages_pending() else ""

    def _mig(self) -> str:
        if self._instance is None:
            return "the GPU has been split by MIG: it can't be used whole" if self._session.mig_enabled() else ""
        if self._instance in self._session.mig_instances():
            return ""
        return f"the GPU has no MIG device gi{self._instance[0]}-ci{self._instance[1]} any more"

    def _clocks(self, bit: int, words: str) -> Callable[[], str]:
        return lambda: words if self._session.clock_reasons() & bit else ""

    # ---- events -------------------------------------------------------------------------------------------------

    def _start_events(self) -> None:
        """Wait for events from now on, or again after an end; a GPU without events has a note."""
        if not self._events_wanted:
            return
        if self._watch is not None and self._watch.problem:
            self._take_events()
            self._watch.close()
            self._watch = None
        if self._watch is not None:
            return
        try:
            self._watch = EventWatch(self._session)
        except NvmlError as error:
            self._notes["events"] = f"not offered: {error}"
            if error.fault is not Fault.NOT_OFFERED:
                raise
        else:
            self._notes.pop("events", None)

    def _take_events(self) -> None:
        if self._watch is None:
            return
        for event in self._watch.drain():
            if event.kind == nvml_events.XID and self._is_mine(event):
                self._take_xid(event.data)
        if self._watch.missed:
            self._notes["events missed"] = f"{self._watch.missed} events came faster than they were taken"

    def _take_xid(self, number: int) -> None:
        cure = xid.cure_of(number, self._cures, action_known=self._action_known())
        self._notes[f"xid {number}"] = f"{xid.words(number)} was seen ({cure})"
        self._seen = xid.record(self._seen, self._boot_id, number, cure, boottime_s())

    def _is_mine(self, event: nvml_events.Event) -> bool:
        """Return whether an event concerns this device: the whole GPU, or just this instance of it."""
        if self._instance is None or event.gpu_instance == nvml.NO_INSTANCE:
            return True
        if event.gpu_instance != self._instance[0]:
            return False
        return event.compute_instance in (nvml.NO_INSTANCE, self._instance[1])

    def _ask_action(self) -> None:
        """See whether what an XID asked for has been done meanwhile. Raises NvmlError."""
        try:
            action = self._session.recovery_action()
        except NvmlError as error:
            if error.fault is not Fault.NOT_OFFERED:
                raise
        else:
            self._seen = xid.acted(self._seen, action)

    def _action_known(self) -> bool:
        """Return whether NVML can be asked what to do; no error may cost an event here."""
        try:
            self._session.recovery_action()
        except NvmlError:
            return False
        return True


def _instance(params: Params) -> tuple[int, int] | None:
    if not params.has("gpu_instance"):
        return None
    return params.whole("gpu_instance"), params.whole("compute_instance")
