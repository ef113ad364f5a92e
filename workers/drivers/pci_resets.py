"""Resets of PCI functions. Each looks first who uses anything it would take along, and refuses then.

A write that resets blocks until the kernel is done, up to a minute for hardware that does not come back.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from devd.ipc.messages import Device
from devd.workers import sysfs
from devd.workers.drivers.pci_signals import PciSignals
from devd.workers.errors import ResetError, explain
from devd.workers.hw import attributes, pci, pci_reach, pci_state
from devd.workers.hw.allowance import Allowance
from devd.workers.probes.base import Call
from devd.workers.sandbox.runtime import SYSFS

OWN_METHODS = ("device_specific", "acpi", "flr", "af_flr", "pm")
"""Ways of the kernel to reset one function alone (drivers/pci/pci.c, pci_reset_fn_methods); others reset the bus."""
BACK_POLL_S = 0.05
"""Between two looks at a function that comes back; the standard gives it a second after a reset."""


class _PciReset:
    """What the resets have in common: the functions of one device."""

    def __init__(self, device: Device, *, root: Path = Path("/")) -> None:
        self._root = root
        self._functions = PciSignals.functions_of(device)
        self._addresses = [one.address for one in self._functions]

    def _directory(self, address: str) -> Path:
        return self._root / pci.DEVICES / address

    def _write(self, path: Path, value: str, call: Call) -> None:
        """Write an attribute. Raises ResetError."""
        shown = attributes.below(self._root, path.parent) + f"/{path.name}"
        call.say(f"reset write {shown}")
        try:
            sysfs.write(str(path), value)
        except OSError as error:
            raise ResetError(explain("write", shown, error)) from error

    def _await_answers(self, call: Call) -> None:
        """Wait until every function answers as what it was. Raises ResetError, OSError."""
        for one in self._functions:
            call.say(f"wait for {one.address} to answer")
            answers = partial(self._answers, one.address, one.ids)
            self._await(answers, f"{one.address} does not answer", call)

    def _answers(self, address: str, ids: str) -> bool:
        at = self._directory(address)
        now = pci.function(self._root, address)
        if now is None or f"{now.vendor}:{now.device}" != ids:
            return False
        header = pci_state.header(at)
        return header is None or not (header.gone or header.not_ready)

    @staticmethod
    def _await(done: Callable[[], bool], otherwise: str, call: Call) -> None:
        while not done():
            if call.left_s() <= BACK_POLL_S:
                raise ResetError(f"{otherwise} after the reset")
            time.sleep(BACK_POLL_S)


class FunctionReset(_PciReset):
    """Write ``reset``. Without ``method`` the kernel takes the first that works; else that one alone."""

    def __init__(self, device: Device, *, root: Path = Path("/"), method: str = "") -> None:
        super().__init__(device, root=root)
        self._method = method
        self.activity = f"reset {', '.join(self._addresses)}" + (f" by {method}" if method else "")

    def blast_radius(self) -> tuple[str, ...]:
        """Return the functions that this takes along. Raises OSError."""
        return self.reach().addresses

    def run(self, call: Call) -> None:
        """Reset each function. Raises ResetError, OSError."""
        for address in self._addresses:
            self._check_offered(address)
        call.say("look who uses the functions")
        self.reach().refuse_if_used()
        for address in self._addresses:
            self._reset(address, call)
        self._await_answers(call)

    def reach(self) -> pci_reach.Reach:
        """Return what goes along.

        The first method tells: the kernel goes on to one for the bus only if the function is alone there
        (pci_parent_bus_reset).
        """
        first = {self._method or next(iter(self._offered(address)), "") for address in self._addresses}
        of = pci_reach.of_functions if first <= set(OWN_METHODS) else pci_reach.of_bus
        return of(self._root, self._addresses)

    def _offered(self, address: str) -> list[str]:
        return (attributes.text(self._directory(address) / "reset_method") or "").split()

    def _check_offered(self, address: str) -> None:
        at = self._directory(address)
        if not (at / "reset").exists():
            raise ResetError(f"{address} cannot be reset by itself: the kernel offers no way (it has no file reset)")
        if self._method and self._method not in self._offered(address):
            listed = ", ".join(self._offered(address)) or "unknown to this kernel"
            raise ResetError(f"{address} cannot be reset by {self._method}: its methods are {listed}")

    def _reset(self, address: str, call: Call) -> None:
        at = self._directory(address)
        if not self._method:
            self._write(at / "reset", "1", call)
            return
        before = " ".join(self._offered(address))
        self._write(at / "reset_method", self._method, call)
        try:
            self._write(at / "reset", "1", call)
        finally:
            self._write(at / "reset_method", before, call)


class RemoveRescanReset(_PciReset):
    """Remove the functions from the kernel's list and have their bus looked at again: for what is dead to it."""

    def __init__(self, device: Device, *, root: Path = Path("/")) -> None:
        super().__init__(device, root=root)
        self.activity = f"remove and rescan {', '.join(self._addresses)}"

    def blast_radius(self) -> tuple[str, ...]:
        """Return the functions that this takes along. Raises OSError."""
        return pci_reach.of_removal(self._root, self._addresses).addresses

    def run(self, call: Call) -> None:
        """Remove each function, rescan, wait for them with their drivers. Raises ResetError, OSError."""
        for address in self._addresses:
            self._check_removable(address)
        call.say("look who uses the functions")
        pci_reach.of_removal(self._root, self._addresses).refuse_if_used()
        rescans = dict.fromkeys(self._rescan(address) for address in self._addresses)
        for address in self._addresses:
            if self._directory(address).exists():
                self._write(self._directory(address) / "remove", "1", call)
        for path in rescans:
            self._write(path, "1", call)
        self._await_answers(call)
        for one in self._functions:
            if one.driver:
                self._await_driver(one.address, one.driver, call)

    def _await_driver(self, address: str, driver: str, call: Call) -> None:
        link = self._directory(address) / "driver"
        self._await(lambda: attributes.target(link) == driver, f"{address} is not bound to {driver}", call)

    def _check_removable(self, address: str) -> None:
        at = self._directory(address)
        one = pci.function(self._root, address)
        if one is None:
            return  # removed already: the rescan may find it
        if one.physfn:
            raise ResetError(f"{address} is a virtual function: a rescan does not bring it back, reset {one.physfn}")
        override = attributes.text(at / "driver_override") or ""
        if override not in ("", "(null)"):
            raise ResetError(
                f"{address} has driver_override {override}, which a removal loses: "
                "its default driver would take it; reset it by rebind"
            )

    def _rescan(self, address: str) -> Path:
        """Return what looks for the function again: the bridge above it, else the whole machine's."""
        above = [self._directory(one) / "rescan" for one in pci.upstream(self._root, address)[:1]]
        return next((path for path in above if path.exists()), self._root / "sys/bus/pci/rescan")


class RebindReset(_PciReset):
    """Take the driver off the functions and give it back: its state is made anew, the hardware's may not be."""

    def __init__(self, device: Device, *, root: Path = Path("/")) -> None:
        super().__init__(device, root=root)
        self.activity = f"rebind {', '.join(self._addresses)}"

    def blast_radius(self) -> tuple[str, ...]:
        """Return the functions that this takes along. Raises OSError."""
        return pci_reach.of_removal(self._root, self._addresses).addresses

    def run(self, call: Call) -> None:
        """Unbind and bind each function. Raises ResetError, OSError."""
        for one in self._functions:
            if not one.driver:
                raise ResetError(f"{one.address} had no driver when it was found: nothing to bind")
        call.say("look who uses the functions")
        pci_reach.of_removal(self._root, self._addresses).refuse_if_used()
        for one in self._functions:
            bound = self._directory(one.address) / "driver"
            if bound.is_symlink():
                self._write(bound / "unbind", one.address, call)
            self._write(self._root / "sys/bus/pci/drivers" / one.driver / "bind", one.address, call)
        self._await_answers(call)


def allowed_resets(device: Device) -> Allowance:
    """Return what the resets need beyond probing: to write in its functions' directories."""
    addresses = [one.address for one in PciSignals.functions_of(device)]
    drivers = {one.driver for one in PciSignals.functions_of(device) if one.driver}
    return Allowance(
        read=SYSFS,
        write=(
            *(f"/{pci.DEVICES}/{address}" for address in addresses),
            *(f"/sys/bus/pci/drivers/{driver}" for driver in sorted(drivers)),
            "/sys/bus/pci/rescan",
        ),
        capabilities=("CAP_DAC_OVERRIDE",),
        why="the attributes that reset, remove and bind are for root alone",
    )
