"""What runs in the guest: one real devd with the drivers' resources, the stub kubelet, and the scenarios one by one.

Each scenario makes something happen to a device, here or (by a line to the host) at the machine, and waits for what the
kubelet sees of it. Lines that begin with the mark are for the host.
"""

import asyncio
import json
import os
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from devd.daemon.demo.kubelet_rules import ContainerStartError
from devd.daemon.demo.rig import Rig
from devd.ipc.errors import IpcError

MARK = "LAB "
PATIENCE_S = 60.0
"""The guest is emulated: Python is some fifteen times slower in it."""
START_S = 240.0
NVME, EDU, NIC, SERIAL, RDMA, VFIO, HUNG = (
    f"lab.devd.io/{name}" for name in ("nvme", "edu", "nic", "serial", "rdma", "vfio", "hung")
)
CGROUPS = Path("/sys/fs/cgroup")
DELEGATED = f"""
import sys
from pathlib import Path
from devd.daemon.cli import main
Path("{CGROUPS}/devd.service/cgroup.procs").write_text("0")
sys.exit(main([*sys.argv[1:], "--cgroup"]))
"""
HUNG_NAME = "labhung"
HUNG_ABORT = Path(f"/sys/class/cuse/{HUNG_NAME}/abort")
NONFATAL = 0x4000
"""Completion time-out, in PCIe's uncorrectable error status."""
PCI = Path("/sys/bus/pci")

CONFIG = """
resources:
  - name: lab.devd.io/nvme
    driver: nvme
    match: {serial: LAB1}
    probe: {kind: driver, period: 2s, timeout: 15s}
    reset: {kind: driver, method: controller, timeout: 24s}
    discovery: {period: 30s, timeout: 20s, linger: 20s}
  - name: lab.devd.io/edu
    driver: pci
    match: {vendor: "1234", device: 11e8, exclude: {driver: vfio-pci}}
    probe: {kind: driver, period: 2s, timeout: 15s}
    reset: {kind: driver, method: function, timeout: 24s}
    discovery: {period: 1h, timeout: 20s, linger: 2s}
  - name: lab.devd.io/nic
    driver: pci
    match: {vendor: "8086", device: 10d3}
    probe: {kind: driver, period: 2s, timeout: 15s}
    reset: {kind: driver, method: function, timeout: 24s}
    discovery: {period: 1h, timeout: 20s, linger: 2s}
  - name: lab.devd.io/serial
    driver: usb
    match: {vendor: "0403"}
    probe: {kind: driver, period: 2s, timeout: 15s}
    reset: {kind: driver, method: port, timeout: 24s}
    discovery: {period: 1h, timeout: 20s, linger: 20s}
  - name: lab.devd.io/rdma
    driver: infiniband
    probe: {kind: driver, period: 2s, timeout: 15s}
    discovery: {period: 2s, timeout: 20s, linger: 20s}
  - name: lab.devd.io/hung
    driver: node
    match: {path: /dev/labhung}
    probe: {kind: read, period: 2s, timeout: 6s}
    discovery: {period: 2s, timeout: 20s, linger: 20s}
  - name: lab.devd.io/vfio
    driver: vfio
    probe: {kind: driver, period: 2s, timeout: 15s}
    discovery: {period: 2s, timeout: 20s, linger: 20s}
"""

Scenario = Callable[[Rig], Awaitable[str]]


def say(**facts: object) -> None:
    """Tell the host."""
    print(MARK + json.dumps(facts), flush=True)


def at_machine(execute: str, **arguments: object) -> None:
    """Have the host do something at the machine, by QEMU's monitor."""
    say(qmp={"execute": execute, "arguments": {name.replace("_", "-"): value for name, value in arguments.items()}})


def set_warning(value: int) -> None:
    """Set the SMART critical warning of the emulated disk."""
    say(
        qmp={
            "execute": "qom-set",
            "arguments": {"path": "/machine/peripheral/nvme0", "property": "smart_critical_warning", "value": value},
        }
    )


async def until(condition: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> float:
    """Wait for a condition; return the seconds it took. Raises TimeoutError naming it."""
    began_s = time.monotonic()
    while not holds(condition):
        if time.monotonic() - began_s > patience_s:
            raise TimeoutError(f"not within {patience_s:g} s: {what}")
        await asyncio.sleep(0.05)
    return time.monotonic() - began_s


def holds(condition: Callable[[], bool]) -> bool:
    """Return whether it holds; not while a device is not listed, or devd too busy to answer."""
    try:
        return condition()
    except (LookupError, IpcError):
        return False


def healths(rig: Rig, resource: str) -> dict[str, str]:
    """Return what the kubelet was told last of a resource's devices."""
    state = rig.kubelet.resources.get(resource)
    last = state.lists[-1].devices if state is not None and state.lists else {}
    return {name: one.health for name, one in last.items()}


def only(rig: Rig, resource: str) -> str:
    """Return the id of a resource's only device. Raises LookupError."""
    [name] = healths(rig, resource) or [""]
    if not name:
        raise LookupError(resource)
    return name


async def sick(rig: Rig, resource: str, words: str) -> str:
    """Wait until the only device is Unhealthy for a reason with these words; return how soon and why."""
    name = only(rig, resource)
    took_s = await until(lambda: healths(rig, resource)[name] == "Unhealthy", f"{resource} turns Unhealthy")
    await until(lambda: words in str(rig.device(name)["reason"]), f"{words!r} in the reason of {name}")
    return f"Unhealthy after {took_s:.2f} s: {rig.device(name)['reason'][:90]}"


async def well(rig: Rig, resource: str, count: int = 1) -> float:
    """Wait until the kubelet may give out so many devices; return the seconds."""
    return await until(
        lambda: list(healths(rig, resource).values()).count("Healthy") >= count, f"{resource} is Healthy"
    )


def discovered(rig: Rig) -> str:
    """Return what discovery has to tell of each resource, for a row that failed."""
    try:
        return str({one["name"]: one["discovery"] for one in rig.status()["resources"]})
    except IpcError as error:
        return str(error)


# ---- the scenarios ----------------------------------------------------------------------------------------------


async def nvme_smart(rig: Rig) -> str:
    """Have the disk itself report SMART's spare warning."""
    await well(rig, NVME)
    set_warning(1)
    seen = await sick(rig, NVME, "spare: ")
    set_warning(0)
    await well(rig, NVME)
    return seen


async def nvme_reset(rig: Rig) -> str:
    """Reset the controller before a container starts."""
    await well(rig, NVME)
    name = only(rig, NVME)
    began_s = time.monotonic()
    await rig.kubelet.pre_start(NVME, [name])
    took_s = time.monotonic() - began_s
    await rig.journal_has(name, "reset-done", 1)
    return f"reset and probed in {took_s:.2f} s"


async def nvme_in_use(rig: Rig) -> str:
    """Refuse to reset a disk that somebody has open, and name him."""
    await well(rig, NVME)
    name = only(rig, NVME)
    held = os.open(rig.device(name)["paths"][0], os.O_RDONLY | os.O_CLOEXEC)
    try:
        await rig.kubelet.pre_start(NVME, [name])
    except ContainerStartError as error:
        if f"pid {os.getpid()}" not in str(error):
            raise AssertionError(f"the user is not named: {error}") from error
        return str(error).partition("refused, ")[2][:90]
    finally:
        os.close(held)
    raise AssertionError("it was reset under its user")


async def nvme_pulled(rig: Rig) -> str:
    """Pull the disk out of its slot and put it back: the id is the same."""
    await well(rig, NVME)
    name = only(rig, NVME)
    at_machine("device_del", id="nvme0")
    took_s = await until(lambda: healths(rig, NVME)[name] == "Unhealthy", "the pulled disk is Unhealthy")
    await asyncio.sleep(2)  # the slot's own time to power off, in the emulated controller
    at_machine("device_add", driver="nvme", id="nvme0", serial="LAB1", drive="disk", bus="rp1")
    back_s = await well(rig, NVME)
    if only(rig, NVME) != name:
        raise AssertionError(f"{name} came back as {only(rig, NVME)}")
    return f"Unhealthy {took_s:.2f} s after the order to pull, back {back_s:.2f} s after the order to plug, as {name}"


async def numa(rig: Rig) -> str:
    """Tell the kubelet of a card behind the second socket's bridge where it is."""
    await well(rig, EDU, 2)
    state = rig.kubelet.resources[EDU].lists[-1].devices
    nodes = sorted(str(list(one.numa)) for one in state.values())
    if nodes != ["[1]", "[]"]:
        raise AssertionError(f"the kubelet was told {nodes}")
    return "one card on NUMA node 1, one without"


async def pci_hotplug(rig: Rig) -> str:
    """Plug and pull a card; uevents tell, an hour before the next scan."""
    await well(rig, EDU, 2)
    at_machine("device_add", driver="edu", id="late", bus="rp3")
    added_s = await well(rig, EDU, 3)
    at_machine("device_del", id="late")
    gone_s = await until(lambda: len(healths(rig, EDU)) == 2, "the pulled card has left the list")
    return f"offered after {added_s:.2f} s, off the list after {gone_s:.2f} s (linger 2 s)"


async def pci_reset(rig: Rig) -> str:
    """Have the kernel reset the function before a container starts."""
    await well(rig, EDU, 2)
    name = min(healths(rig, EDU))
    await rig.kubelet.pre_start(EDU, [name])
    done = await rig.journal_has(name, "reset-done", 1)
    return f"{name}: {done[-1]['detail'] or 'reset'}"


async def aer(rig: Rig) -> str:
    """Have the port report an uncorrectable error of the card; a reset is its cure."""
    run("modprobe", "aer_inject")
    await well(rig, NIC)
    name = only(rig, NIC)
    address = rig.device(name)["properties"]["address"]
    bus, slot, function = int(address[5:7], 16), int(address[8:10], 16), int(address[11])
    # struct aer_error_inj of the kernel's aer_inject.c.
    order = struct.pack("=BBBxII4II", bus, slot, function, NONFATAL, 0, 0, 0, 0, 0, 0)
    fd = os.open("/dev/aer_inject", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, order)
    finally:
        os.close(fd)
    seen = await sick(rig, NIC, "errors: ")
    with suppress(ContainerStartError):  # an Unhealthy device is reset all the same; its probe may come too early
        await rig.kubelet.pre_start(NIC, [name])
    await well(rig, NIC)
    return f"{seen}; Healthy after a reset"


async def vfio(rig: Rig) -> str:
    """Offer a function bound to vfio-pci as its group; one that is in use is not broken."""
    # The one that is behind the IOMMU: the other's bridge is not.
    address = next(
        one.name
        for one in (PCI / "devices").iterdir()
        if (one / "device").read_text().strip() == "0x11e8" and (one / "numa_node").read_text().strip() == "-1"
    )
    (PCI / f"devices/{address}/driver_override").write_text("vfio-pci")
    (PCI / "drivers_probe").write_text(address)
    offered_s = await well(rig, VFIO)
    name = only(rig, VFIO)
    held = os.open(rig.device(name)["paths"][0], os.O_RDWR | os.O_CLOEXEC)
    try:
        rig.order("probe", name)
        before = rig.device(name)["last_probe"]["at"]
        await until(lambda: rig.device(name)["last_probe"]["at"] > before, "a probe while the group is in use")
        if healths(rig, VFIO)[name] != "Healthy":
            raise AssertionError(rig.device(name)["reason"])
    finally:
        os.close(held)
    return f"offered after {offered_s:.2f} s; Healthy while a process holds the group"


async def usb_serial(rig: Rig) -> str:
    """Plug a serial adapter, reset it, pull it and plug it again: one id."""
    at_machine("chardev-add", id="line", backend={"type": "null", "data": {}})
    plug_adapter()
    offered_s = await well(rig, SERIAL)
    name = only(rig, SERIAL)
    await rig.kubelet.pre_start(SERIAL, [name])
    await well(rig, SERIAL)
    at_machine("device_del", id="adapter")
    gone_s = await until(lambda: healths(rig, SERIAL)[name] == "Unhealthy", "the pulled adapter is Unhealthy")
    plug_adapter()
    back_s = await well(rig, SERIAL)
    if only(rig, SERIAL) != name:
        raise AssertionError(f"{name} came back as {only(rig, SERIAL)}")
    return f"offered {offered_s:.2f} s, gone {gone_s:.2f} s, back {back_s:.2f} s after the orders, reset between"


def plug_adapter() -> None:
    """Plug the serial adapter into its port."""
    where = {"bus": "xhci.0", "port": "2"}
    at_machine("device_add", driver="usb-serial", id="adapter", chardev="line", always_plugged=True, **where)


async def roce(rig: Rig) -> str:
    """Take the link of a Soft-RoCE device down and up again."""
    for module in ("veth", "rdma_rxe", "ib_uverbs", "ib_umad", "rdma_ucm"):
        run("modprobe", module)
    run("ip", "link", "add", "lab0", "type", "veth", "peer", "name", "lab1")
    for name in ("lab0", "lab1"):
        run("ip", "link", "set", name, "up")
    run("rdma", "link", "add", "rxe0", "type", "rxe", "netdev", "lab0")
    await well(rig, RDMA)
    run("ip", "link", "set", "lab1", "down")
    seen = await sick(rig, RDMA, "port")
    run("ip", "link", "set", "lab1", "up")
    await well(rig, RDMA)
    return seen


async def hung_call(rig: Rig) -> str:
    """Have a driver stop answering: not even SIGKILL ends who waits for it; the device is fenced until it lets go."""
    run("modprobe", "cuse")
    trigger = rig.root / "hang"
    server = serve_cuse(trigger)
    try:
        await well(rig, HUNG)
        name = only(rig, HUNG)
        trigger.touch()
        seen = await sick(rig, HUNG, "has not returned for")
        await until(lambda: bool(rig.device(name)["wedged"]), "the fence")
        wedged = rig.device(name)
        if "uninterruptible sleep (D)" not in wedged["reason"]:
            raise AssertionError(wedged["reason"])
        trigger.unlink()
        abort()
        freed_s = await until(lambda: ended(wedged["pid"]), "the end of the wedged worker")
    finally:
        server.kill()
        server.wait()
    server = serve_cuse(trigger)
    try:
        back_s = await well(rig, HUNG)
    finally:
        server.kill()
        server.wait()
    return f"{seen}; fenced in D state, freed {freed_s:.2f} s after the abort, Healthy {back_s:.2f} s after its driver"


def abort() -> None:
    """Have the kernel give up the hung driver's calls."""
    HUNG_ABORT.write_text("1")


def ended(pid: int) -> bool:
    """Return whether a process is gone."""
    return not Path(f"/proc/{pid}").exists()


def serve_cuse(trigger: Path) -> "subprocess.Popen[bytes]":
    """Start the driver of the device that can hang."""
    return subprocess.Popen([sys.executable, "-m", "tests.support.hungcuse", HUNG_NAME, str(trigger)])


def run(*words: str) -> None:
    """Run a command. Raises RuntimeError with what it said."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: {(done.stderr or done.stdout).strip()}")


async def cgroups(rig: Rig) -> str:
    """Have a worker bounded by a cgroup of its own, beside and below the front's."""
    await well(rig, NVME)
    shown = rig.device(only(rig, NVME))
    if "cgroup" not in shown["sandbox"]["active"]:
        raise AssertionError(shown["sandbox"])
    folder = CGROUPS / cgroup_of(shown["pid"]).lstrip("/")
    bounds = {name: text_of(folder / name) for name in ("memory.max", "pids.max")}
    everyone = [cgroup_of(one["pid"]) for one in rig.status()["devices"]]
    if len(set(everyone)) != len(everyone):
        raise AssertionError(f"shared: {everyone}")
    if not cgroup_of(rig.pid).endswith("/devd.service/front"):
        raise AssertionError(cgroup_of(rig.pid))
    return f"each worker has its own; {bounds}"


def cgroup_of(pid: int) -> str:
    """Return a process's cgroup."""
    return text_of(Path(f"/proc/{pid}/cgroup")).partition("0::")[2]


def text_of(file: Path) -> str:
    """Return what a file of the kernel says."""
    return file.read_text(encoding="utf-8").strip()


def delegate() -> None:
    """Give devd a cgroup of its own, as systemd's Delegate= does."""
    run("mount", "-t", "cgroup2", "none", str(CGROUPS))
    (CGROUPS / "cgroup.subtree_control").write_text("+memory +pids")
    (CGROUPS / "devd.service").mkdir()


SCENARIOS: tuple[tuple[str, str, Scenario], ...] = (
    ("-", "cgroups of the workers", cgroups),
    ("nvme", "SMART warning", nvme_smart),
    ("nvme", "controller reset", nvme_reset),
    ("nvme", "reset refused in use", nvme_in_use),
    ("pci", "NUMA node", numa),
    ("pci", "plugged and pulled", pci_hotplug),
    ("pci", "function reset", pci_reset),
    ("pci", "AER error", aer),
    ("usb", "serial adapter replugged", usb_serial),
    ("infiniband", "link down and up", roce),
    ("node", "driver call that hangs", hung_call),
    ("nvme", "disk pulled and put back", nvme_pulled),
    ("vfio", "group in use", vfio),
)


async def play() -> None:
    """Run all scenarios beside one devd."""
    rig = Rig(CONFIG)
    delegate()
    rig.program = ("-c", DELEGATED)
    async with rig:
        began_s = time.monotonic()
        await until(lambda: len(rig.status()["resources"]) > 0, "devd answers", START_S)
        for name in (NVME, EDU):
            await until(lambda name=name: bool(healths(rig, name)), f"{name} is registered", START_S)  # type: ignore[misc]  # mypy infers no default
        say(driver="-", what="devd's start", ok=True, took_s=round(time.monotonic() - began_s, 1), seen="registered")
        for driver, what, scenario in SCENARIOS:
            began_s = time.monotonic()
            try:
                seen, ok = await scenario(rig), True
            except Exception as error:  # noqa: BLE001 - a row of the table, and the next one
                seen, ok = f"{type(error).__name__}: {error}; {discovered(rig)}", False
                traceback.print_exc()
            say(driver=driver, what=what, ok=ok, took_s=round(time.monotonic() - began_s, 1), seen=seen)
        if rig.kubelet.violations:
            say(driver="-", what="the kubelet's rules", ok=False, took_s=0, seen=str(rig.kubelet.violations))


def main() -> int:
    """Run; the last line says that the end was reached."""
    for module in ("nvme", "xhci_pci", "ftdi_sio", "vfio_pci", "e1000e"):
        run("modprobe", module)
    try:
        asyncio.run(play())
    finally:
        say(end=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
