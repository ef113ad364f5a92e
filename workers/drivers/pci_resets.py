"""Resets of PCI functions. Each looks first who uses anything it would take along, and refuses then.

A write that resets blocks until the kernel is done, up to a minute for hardware that does not come back.
"""

import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
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

EVERY_BUS = "/sys/bus/pci/rescan"
"""Has the whole machine's buses looked at, for a function that had left before its worker began."""
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
        shown = self._shown(path)
        call.say(f"reset write {shown}")
        try:
            sysfs.write(str(path), value)
        except OSError as error:
            raise ResetError(explain("write", shown, error)) from error

    def _shown(self, path: Path) -> str:
        """Return where an attribute really lies: in the directory, not behind the bus's link to it."""
        return attributes.below(self._root, path.parent) + f"/{path.name}"

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
        of = pci_reach.of_functions if first <= set(pci_reach.OWN_METHODS) else pci_reach.of_bus
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
        rescans = dict.fromkeys(rescan_of(self._root, address, self._addresses) for address in self._addresses)
        # Open before anything is removed: what cannot be looked for again is not taken off the bus.
        with ExitStack() as stack:
            opened = {path: stack.enter_context(self._opened(path)) for path in rescans}
            try:
                self._remove(call)
            finally:  # one that could be removed comes back, also when another one could not
                for path, fd in opened.items():
                    self._rescan(path, fd, call)
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

    @contextmanager
    def _opened(self, path: Path) -> Iterator[int]:
        """Open what looks for the functions again. Raises ResetError when that is refused."""
        with ExitStack() as stack:
            try:
                fd = stack.enter_context(sysfs.opened(str(path)))
            except OSError as error:
                words = explain("open", self._shown(path), error)
                raise ResetError(f"nothing was removed, it could not be looked for again: {words}") from error
            yield fd

    def _remove(self, call: Call) -> None:
        """Remove the functions that are there. Raises ResetError."""
        for address in self._addresses:
            if self._directory(address).exists():
                self._write(self._directory(address) / "remove", "1", call)

    def _rescan(self, path: Path, fd: int, call: Call) -> None:
        """Have the kernel look for the functions again. Raises ResetError."""
        call.say(f"reset write {self._shown(path)}")
        try:
            os.write(fd, b"1")
        except OSError as error:
            raise ResetError(explain("write", self._shown(path), error)) from error


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


def rescan_of(root: Path, address: str, leaving: Collection[str]) -> Path:
    """Return what looks for a function again: the nearest bridge above that stays, else the whole machine's.

    A bridge that is removed with it (``leaving``) could not be asked any more.
    """
    stays = [one for one in pci.upstream(root, address) if one not in leaving]
    above = [root / pci.DEVICES / one / "rescan" for one in stays[:1]]
    return next((path for path in above if path.exists()), attributes.under(root, EVERY_BUS))


def allowed_resets(device: Device, root: Path = Path("/")) -> Allowance:
    """Return what the resets need beyond probing: to write in its functions' directories, and to have them rescanned.

    Of the bridge above that one attribute alone: its others reset and remove all that is behind it.
    """
    addresses = [one.address for one in PciSignals.functions_of(device)]
    drivers = {one.driver for one in PciSignals.functions_of(device) if one.driver}
    rescans = dict.fromkeys(f"/{rescan_of(root, one, addresses).relative_to(root)}" for one in addresses)
    return Allowance(
        read=SYSFS,
        write=(
            *(f"/{pci.DEVICES}/{address}" for address in addresses),
            *(f"/sys/bus/pci/drivers/{driver}" for driver in sorted(drivers)),
            *rescans,
            *(one for one in (EVERY_BUS,) if one not in rescans),
        ),
        capabilities=("CAP_DAC_OVERRIDE",),
        why="the attributes that reset, remove and bind are for root alone",
    )
