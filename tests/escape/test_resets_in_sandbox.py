"""Every reset of every driver inside the sandbox that its own declaration makes: what it reaches for, it may reach.

Real workers, confined as on any node, with a tree of fixtures for /sys (``tests/support/sysbench.py``).
"""

import contextlib
import os
import select
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from devd.ipc.messages import Device, Node
from devd.workers.drivers import KINDS
from devd.workers.drivers.infiniband import InfinibandDriver
from devd.workers.drivers.nvme import NvmeDriver
from devd.workers.drivers.pci import PciDriver
from devd.workers.drivers.usb import UsbDriver
from devd.workers.drivers.vfio import VfioDriver
from tests.support import nvml_standin
from tests.support.forkbench import WAIT_S
from tests.support.sysbench import SysBench, plain_node
from tests.unit.workers.drivers import infiniband_tree, nvme_tree, pci_tree, usb_tree
from tests.unit.workers.drivers.nvidia_tree import UUID
from tests.unit.workers.drivers.tree import grow

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can lay a tree over /sys and confine a worker")

CARD = pci_tree.CARD
GPU = "0000:41:00.0"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[SysBench]:
    with SysBench(tmp_path) as one:
        yield one


def _pci(tree: Path) -> Device:
    (device,) = PciDriver({"address": CARD}, root=tree).discover().devices
    return device


TESTED = {
    "pci": {"function", "remove-rescan", "rebind"},
    "vfio": {"function"},
    "infiniband": {"recover", "reload", "link", "function"},
    "nvme": {"controller", "subsystem"},
    "usb": {"port", "authorized"},
    "nvidia": {"gpu"},
}


def test_no_reset_is_left_out() -> None:
    """A reset that is added is tried in its sandbox, too."""
    assert {name: set(kind.resets) for name, kind in KINDS.items() if kind.resets} == TESTED


def test_pci_function(bench: SysBench) -> None:
    """The function's own attribute is written."""
    pci_tree.bridge(bench.tree)
    reset = pci_tree.function(bench.tree, files={"reset_method": "flr bus"}) / "reset"
    bench.attribute(reset)
    done = bench.reset(bench.begin("pci", _pci(bench.tree), "function"))
    assert (done.ok, done.reason, bench.written(reset)) == (True, "", b"1")


def test_pci_function_by_a_method(bench: SysBench) -> None:
    """The order of the methods is read and written; no pipe can be both, so that here files may be written."""
    reset = pci_tree.function(bench.tree, files={"reset_method": b"flr bus"}) / "reset"
    bench.attribute(reset)
    worker = bench.begin("pci", _pci(bench.tree), "function", by="bus", sandbox={"syscalls": ["files"]})
    done = bench.reset(worker)
    assert (done.ok, done.reason, bench.written(reset)) == (True, "", b"1")
    assert reset.with_name("reset_method").read_text() == "flr bus"


def test_pci_remove_rescan(bench: SysBench) -> None:
    """The function is removed, and the bridge above looks for it again."""
    rescan = pci_tree.bridge(bench.tree) / "rescan"
    remove = pci_tree.function(bench.tree) / "remove"
    for one in (rescan, remove):
        bench.attribute(one)
    done = bench.reset(bench.begin("pci", _pci(bench.tree), "remove-rescan"))
    assert (done.ok, done.reason) == (True, "")
    assert (bench.written(remove), bench.written(rescan)) == (b"1", b"1")


def test_pci_remove_rescan_on_the_root_bus(bench: SysBench) -> None:
    """Without a bridge above the whole machine looks."""
    remove, rescan = pci_tree.function(bench.tree, above="") / "remove", bench.tree / "sys/bus/pci/rescan"
    for one in (rescan, remove):
        bench.attribute(one)
    done = bench.reset(bench.begin("pci", _pci(bench.tree), "remove-rescan"))
    assert (done.ok, done.reason) == (True, "")
    assert (bench.written(remove), bench.written(rescan)) == (b"1", b"1")


def test_pci_rebind(bench: SysBench) -> None:
    """The driver's own attributes are written."""
    pci_tree.function(bench.tree)
    drivers = bench.tree / "sys/bus/pci/drivers/edu"
    for name in ("unbind", "bind"):
        bench.attribute(drivers / name)
    done = bench.reset(bench.begin("pci", _pci(bench.tree), "rebind"))
    assert (done.ok, done.reason) == (True, "")
    assert bench.written(drivers / "unbind") == bench.written(drivers / "bind") == CARD.encode()


def test_vfio_function(bench: SysBench) -> None:
    """Each function of the group is reset."""
    grow(bench.tree, {"sys/class/vfio/7/dev": "241:0", "sys/class/misc/vfio/dev": "10:196", "dev/vfio/7": b""})
    reset = pci_tree.function(bench.tree, driver="vfio-pci", group="7", files={"reset_method": "flr"}) / "reset"
    bench.attribute(reset)
    (device,) = VfioDriver({}, root=bench.tree).discover().devices
    done = bench.reset(bench.begin("vfio", device, "function"))
    assert (done.ok, done.reason, bench.written(reset)) == (True, "", b"1")


@pytest.mark.parametrize("method", ["recover", "reload", "link", "function"])
def test_infiniband(bench: SysBench, method: str) -> None:
    """Devlink speaks netlink, an interface (here the namespace's own lo) is set by it, the function's file written."""
    layer = "Ethernet" if method == "link" else "InfiniBand"
    real = infiniband_tree.adapter(bench.tree, layer=layer, interface="lo")
    reset = real.parents[1] / "reset"
    bench.attribute(reset)
    (device,) = InfinibandDriver({}, root=bench.tree).discover().devices
    done = bench.reset(bench.begin("infiniband", device, method))
    assert (done.ok, done.reason, bench.written(reset)) == (True, "", b"1" if method == "function" else b"")


def test_nvme_controller(bench: SysBench) -> None:
    """The controller's attribute is written."""
    plain_node(bench.tree / "dev/nvme0", 3)
    reset = nvme_tree.disk(bench.tree, node=False) / "reset_controller"
    bench.attribute(reset)
    (device,) = NvmeDriver({}, root=bench.tree).discover().devices
    done = bench.reset(bench.begin("nvme", device, "controller"))
    assert (done.ok, done.reason, bench.written(reset)) == (True, "", b"1")


def test_nvme_subsystem(bench: SysBench) -> None:
    """The ioctl reaches the controller's node: what stands for it here does not know the request."""
    plain_node(bench.tree / "dev/nvme0", 3)
    nvme_tree.disk(bench.tree, node=False)
    (device,) = NvmeDriver({}, root=bench.tree).discover().devices
    done = bench.reset(bench.begin("nvme", device, "subsystem"))
    assert done.reason == "subsystem reset /dev/nvme0: ENOTTY (Inappropriate ioctl for device)"


def _usb(bench: SysBench) -> tuple[Path, Device]:
    real = usb_tree.device(bench.tree)
    raw = bench.tree / "dev/bus/usb/001/005"
    plain_node(raw, 3)
    (device,) = UsbDriver({"vendor": "0403"}, root=bench.tree).discover().devices
    return real, device


def test_usb_port(bench: SysBench) -> None:
    """The ioctl reaches the raw node: what stands for it here does not know the request."""
    _real, device = _usb(bench)
    done = bench.reset(bench.begin("usb", device, "port"))
    assert done.reason == "USBDEVFS_RESET /dev/bus/usb/001/005: ENOTTY (Inappropriate ioctl for device)"


def test_usb_authorized(bench: SysBench) -> None:
    """The attribute is written twice, 1 at the end."""
    real, device = _usb(bench)
    bench.attribute(real / "authorized")
    done = bench.reset(bench.begin("usb", device, "authorized"))
    assert (done.ok, done.reason, bench.written(real / "authorized")) == (True, "", b"01")


def test_nvidia_gpu(bench: SysBench) -> None:
    """NVML says that nobody uses the GPU, and nvidia-smi opens its nodes; both through the sandbox."""
    nvml_standin.build(bench.tree / "run/nvidia/driver/lib")
    for name in ("nvidia0", "nvidiactl"):
        plain_node(bench.tree / "dev" / name, 3)
    grow(bench.tree, {f"sys/bus/pci/devices/{GPU}/vendor": "0x10de"})
    properties = {"sysfs": f"/sys/bus/pci/devices/{GPU}", "minor": "0", "address": GPU}
    nodes = (Node("/dev/nvidia0", "char", 1, 3), Node("/dev/nvidiactl", "char", 1, 3, shared=True))
    device = Device(UUID, nodes, properties, params={"address": GPU, "gpu_uuid": UUID})
    done = bench.reset(bench.begin("nvidia", device, "gpu"))
    assert (done.ok, done.reason) == (True, "")


def _fill(pipe: int) -> int:
    """Write to a pipe until it takes no more; return how many bytes."""
    filled = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            filled += os.write(pipe, bytes(select.PIPE_BUF))
    return filled


def test_worker_whose_directory_a_reset_made_anew_gives_way(bench: SysBench) -> None:
    """A function that was removed and found again has another directory, which this worker may not write to any more.

    It says so and ends after the reset is done: the next reset is its successor's.
    """
    rescan = pci_tree.bridge(bench.tree) / "rescan"
    real = pci_tree.function(bench.tree)
    rescans = bench.attribute(rescan)
    # Full, so that the order to rescan is taken only once what it has to find is there, as the kernel does it.
    filled = _fill(rescans)
    removed = bench.attribute(real / "remove")

    def kernel() -> None:
        """Be the kernel: once the function is removed, its directory is another one."""
        if select.select([removed], [], [], WAIT_S)[0]:
            real.rename(real.with_name("removed"))
            ignored = shutil.ignore_patterns("remove")
            shutil.copytree(real.with_name("removed"), real, symlinks=True, ignore=ignored)
        os.read(rescans, filled)

    worker = bench.begin("pci", _pci(bench.tree), "remove-rescan")
    thread = threading.Thread(target=kernel)
    thread.start()
    done = bench.reset(worker)
    thread.join()
    assert (done.ok, done.reason, bench.written(rescan)) == (True, "", b"1")
    words = bench.until_end(worker)
    assert f"/sys/bus/pci/devices/{CARD} was made anew since this worker began" in words
    assert "Traceback" not in words
