"""NVML for one GPU, by its PCI address, through NVIDIA's own Python binding; its errors sorted by whose fault they are.

Importing the binding loads no library: that happens with the first session, in the worker.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from typing import TYPE_CHECKING, Self, TypeVar

from devd.workers.hw import attributes

if TYPE_CHECKING:
    import pynvml
    from pynvml import NVMLError
else:
    try:
        import pynvml
        from pynvml import NVMLError
    except ImportError:  # the optional extra "nvidia" is not installed
        pynvml = None

        class NVMLError(Exception):
            """Stands for the binding's own error, and is never raised."""


_T = TypeVar("_T")

NO_BINDING = -1
"""Our own code for the missing Python package."""
MISMATCH = 18
"""NVML_ERROR_LIB_RM_VERSION_MISMATCH."""
NOT_SUPPORTED = 3
"""NVML_ERROR_NOT_SUPPORTED."""
NOT_FOUND = 6
"""NVML_ERROR_NOT_FOUND."""
TIMEOUT = 10
"""NVML_ERROR_TIMEOUT."""
UNKNOWN = 999
"""NVML_ERROR_UNKNOWN."""
RECOVERY_ACTION = 230
"""NVML_FI_DEV_GET_GPU_RECOVERY_ACTION."""
NO_INSTANCE = 0xFFFFFFFF
"""What an event names that concerns the whole GPU."""
MAX_MIG_DEVICES = 64
_LINK_TO_GPU = 0
"""NVML_NVLINK_DEVICE_TYPE_GPU: the other end of a link is no switch."""
_UNCORRECTED, _VOLATILE = 1, 0


class Fault(Enum):
    """Whose an error is."""

    SOFTWARE = "software"
    GONE = "gone"
    RESET_NEEDED = "reset needed"
    NOT_OFFERED = "not offered"
    DEVICE = "device"


_FAULTS = {
    NO_BINDING: (Fault.SOFTWARE, "install devd with the extra 'nvidia'"),
    1: (Fault.SOFTWARE, "the session was closed"),
    4: (Fault.SOFTWARE, "the worker may not open the GPU's nodes"),
    9: (Fault.SOFTWARE, "load the module nvidia"),
    12: (Fault.SOFTWARE, "libnvidia-ml.so.1 is not where this process can load it: mount the driver's libraries"),
    13: (Fault.NOT_OFFERED, ""),
    MISMATCH: (
        Fault.SOFTWARE,
        "the driver was changed: only a new process loads the new library; if it stays, mount the module's library",
    ),
    2: (Fault.NOT_OFFERED, ""),
    NOT_SUPPORTED: (Fault.NOT_OFFERED, ""),
    25: (Fault.NOT_OFFERED, ""),
    26: (Fault.NOT_OFFERED, ""),
    NOT_FOUND: (Fault.GONE, "no GPU answers at this PCI address"),
    15: (Fault.GONE, "it has fallen off the bus or does not answer: reset it, or reboot"),
    28: (Fault.GONE, "no GPU answers at this PCI address"),
    16: (Fault.RESET_NEEDED, "reset it"),
}
"""nvmlReturn_t of nvml.h -> whose fault, and what to do. Every other code is the device's."""


class NvmlError(Exception):
    """Raised when NVML refuses a call; the text names the call, NVML's words and its number."""

    def __init__(self, call: str, code: int, words: str) -> None:
        self.code = code
        self.fault, self.advice = _FAULTS.get(code, (Fault.DEVICE, ""))
        super().__init__(f"{call}: {words} (NVML error {code})" if code >= 0 else f"{call}: {words}")


class Session:
    """One GPU's NVML session, opened with the first call. While it is open nobody can reset the GPU."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._handle: pynvml.c_nvmlDevice_t | None = None
        self._initialised = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @property
    def handle(self) -> "pynvml.c_nvmlDevice_t":
        """Return the GPU's handle; the session is opened for it. Raises NvmlError."""
        self._initialise()
        if self._handle is None:
            # By address: by index or UUID NVML initialises other GPUs on the way.
            try:
                self._handle = ask("open the GPU", lambda: pynvml.nvmlDeviceGetHandleByPciBusId(self._address))
            except NvmlError as error:
                if error.fault is Fault.NOT_OFFERED:
                    error.fault = Fault.DEVICE  # without a handle there is no GPU, whatever NVML calls it
                raise
        return self._handle

    def close(self) -> None:
        """Give the GPU back. No error: what is left goes with the process."""
        self._handle = None
        if self._initialised:
            self._initialised = False
            with suppress(NvmlError):
                ask("shut down", pynvml.nvmlShutdown)

    def uuid(self) -> str:
        """Return the GPU's UUID. Raises NvmlError."""
        return ask("UUID", lambda: pynvml.nvmlDeviceGetUUID(self.handle))

    def recovery_action(self) -> int:
        """Return what NVML says must be done to the GPU; 0 is nothing. Raises NvmlError."""
        (value,) = ask("recovery action", lambda: pynvml.nvmlDeviceGetFieldValues(self.handle, [RECOVERY_ACTION]))
        if value.nvmlReturn:
            raise NvmlError("recovery action", value.nvmlReturn, "the field is refused")
        return value.value.uiVal

    def uncorrected_errors(self) -> int:
        """Return the uncorrected memory errors since the driver was loaded. Raises NvmlError."""
        return ask("ECC errors", lambda: pynvml.nvmlDeviceGetTotalEccErrors(self.handle, _UNCORRECTED, _VOLATILE))

    def remapped_rows(self) -> tuple[int, int, bool, bool]:
        """Return rows remapped for correctable and uncorrectable errors, whether one waits for a reset, has failed."""
        found = ask("remapped rows", lambda: pynvml.nvmlDeviceGetRemappedRows(self.handle))
        return found[0], found[1], bool(found[2]), bool(found[3])

    def retired_pages_pending(self) -> bool:
        """Return whether a page's retirement waits for a reset (before Ampere). Raises NvmlError."""
        return bool(ask("retired pages", lambda: pynvml.nvmlDeviceGetRetiredPagesPendingStatus(self.handle)))

    def clock_reasons(self) -> int:
        """Return the bits that say why the clocks are held down. Raises NvmlError."""
        return ask("clocks", lambda: pynvml.nvmlDeviceGetCurrentClocksEventReasons(self.handle))

    def mig_enabled(self) -> bool:
        """Return whether the GPU is split into instances. Raises NvmlError."""
        return bool(ask("MIG mode", lambda: pynvml.nvmlDeviceGetMigMode(self.handle))[0])

    def mig_instances(self) -> dict[tuple[int, int], str]:
        """Return (GPU instance, compute instance) -> UUID of all MIG devices. Raises NvmlError."""
        count = ask("MIG devices", lambda: pynvml.nvmlDeviceGetMaxMigDeviceCount(self.handle))
        found: dict[tuple[int, int], str] = {}
        for index in range(min(count, MAX_MIG_DEVICES)):
            try:
                found |= self._mig_instance(index)
            except NvmlError as error:
                if error.code != NOT_FOUND and error.fault is not Fault.NOT_OFFERED:
                    raise  # else an index without an instance
        return found

    def processes(self) -> list[int]:
        """Return the pids that compute or draw on the GPU, as its own pid namespace has them. Raises NvmlError."""
        compute = ask("processes", lambda: pynvml.nvmlDeviceGetComputeRunningProcesses(self.handle))
        graphics = ask("processes", lambda: pynvml.nvmlDeviceGetGraphicsRunningProcesses(self.handle))
        return sorted({one.pid for one in (*compute, *graphics)})

    def linked_gpus(self) -> list[str]:
        """Return the addresses of GPUs joined to this one without a switch between. Raises NvmlError."""
        found: set[str] = set()
        for link in range(pynvml.NVML_NVLINK_MAX_LINKS):
            try:
                found |= self._linked(link)
            except NvmlError as error:
                if error.fault is not Fault.NOT_OFFERED:
                    raise  # else there is no such link
        return sorted(found)

    def register_events(self, wanted: int) -> "tuple[pynvml.c_nvmlEventSet_t, int]":
        """Return a set that receives these of the events that the GPU has, and which. Raises NvmlError."""
        handle = self.handle
        kinds = ask("event types", lambda: pynvml.nvmlDeviceGetSupportedEventTypes(handle)) & wanted
        events = ask("event set", pynvml.nvmlEventSetCreate)
        try:
            ask("register events", lambda: pynvml.nvmlDeviceRegisterEvents(handle, kinds, events))
        except NvmlError:
            free_events(events)
            raise
        return events, kinds

    def _initialise(self) -> None:
        if self._initialised:
            return
        ask("start NVML", lambda: pynvml.nvmlInitWithFlags(pynvml.NVML_INIT_FLAG_NO_GPUS))
        self._initialised = True

    def _mig_instance(self, index: int) -> dict[tuple[int, int], str]:
        handle = ask("MIG device", lambda: pynvml.nvmlDeviceGetMigDeviceHandleByIndex(self.handle, index))
        key = (
            ask("MIG GPU instance", lambda: pynvml.nvmlDeviceGetGpuInstanceId(handle)),
            ask("MIG compute instance", lambda: pynvml.nvmlDeviceGetComputeInstanceId(handle)),
        )
        return {key: ask("MIG UUID", lambda: pynvml.nvmlDeviceGetUUID(handle))}

    def _linked(self, link: int) -> set[str]:
        if not ask("NVLink", lambda: pynvml.nvmlDeviceGetNvLinkState(self.handle, link)):
            return set()
        if ask("NVLink", lambda: pynvml.nvmlDeviceGetNvLinkRemoteDeviceType(self.handle, link)) != _LINK_TO_GPU:
            return set()
        other = ask("NVLink", lambda: pynvml.nvmlDeviceGetNvLinkRemotePciInfo(self.handle, link))
        return {short_address(other.busId)}


def ask(call: str, what: Callable[[], _T]) -> _T:
    """Return what a call of the binding returns. Raises NvmlError."""
    if pynvml is None:
        raise NvmlError("load NVML", NO_BINDING, "the Python package nvidia-ml-py is missing")
    with _errors_of(call):
        return what()


def next_event(events: "pynvml.c_nvmlEventSet_t", timeout_ms: int) -> "pynvml.c_nvmlEventData_t":
    """Wait for an event of a set. Raises NvmlError, of code TIMEOUT when there was none."""
    return ask("wait for events", lambda: pynvml.nvmlEventSetWait_v2(events, timeout_ms))


def free_events(events: "pynvml.c_nvmlEventSet_t") -> None:
    """Free a set; one that is refused goes with the process."""
    with suppress(NvmlError):
        ask("free event set", lambda: pynvml.nvmlEventSetFree(events))


def short_address(found: str) -> str:
    """Return a PCI address as the kernel writes it (0000:3b:00.0) from NVML's (00000000:3B:00.0)."""
    domain, _colon, rest = found.lower().partition(":")
    return f"{domain[-4:] if domain[:-4].strip('0') == '' else domain}:{rest}"


@contextmanager
def _errors_of(call: str) -> Iterator[None]:
    try:
        yield
    except NVMLError as error:
        raise NvmlError(call, error.value, str(error)) from error
    except UnicodeDecodeError as error:  # the binding decodes what the library gave it
        raise NvmlError(call, UNKNOWN, f"the answer is no text: {attributes.shown(repr(error.object))}") from error
