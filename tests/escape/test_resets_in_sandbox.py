"""Every reset of every driver inside the sandbox that its own declaration makes: what it reaches for, it may reach.

A real fork server runs in namespaces of its own, where a tree of fixtures lies at /sys, and plain nodes and programs
stand for the devices' own; its workers are confined as on any node. Attributes that resets write are pipes here: a
worker may not write a byte to a plain file, and what it wrote is read at the other end.
"""

import os
import select
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

import pytest

from devd.ipc.messages import Device, Node, Reset, ResetDone, Usage
from devd.workers.drivers import KINDS
from devd.workers.drivers.infiniband import InfinibandDriver
from devd.workers.drivers.nvme import NvmeDriver
from devd.workers.drivers.pci import PciDriver
from devd.workers.drivers.usb import UsbDriver
from devd.workers.drivers.vfio import VfioDriver
from tests.support import nvml_standin
from tests.support.forkbench import WAIT_S, ForkBench, Worker
from tests.unit.workers.drivers import infiniband_tree, nvme_tree, pci_tree, usb_tree
from tests.unit.workers.drivers.nvidia_tree import HEALTHY, UUID
from tests.unit.workers.drivers.tree import grow

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can lay a tree over /sys and confine a worker")

CARD = pci_tree.CARD
GPU = "0000:41:00.0"
NODES = {"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9}
"""What programs need of /dev: minors of the kernel's memory devices."""
INTO = (
    "ip link set lo address 00:00:00:00:00:00; "
    'for one in sys dev run; do mount --bind "$0/$one" "/$one" || exit 9; done; exec "$@"'
)
SPEAKS_NETLINK = "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16).close()"
"""What devlink does first; generic netlink is protocol 16."""
DEVLINK = f"""#!/bin/sh
exec /usr/bin/python3 -c '{SPEAKS_NETLINK}'
"""
SMI = """#!/bin/sh
for one in nvidia0 nvidiactl; do : > /dev/$one || exit 1; done
"""
"""What nvidia-smi does first: it opens the GPU's nodes for writing."""


def _plain_node(path: Path, minor: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    os.mknod(path, 0o20600, os.makedev(1, minor))
    path.chmod(0o666 if minor in NODES.values() and path.name in NODES else 0o600)


def _program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def _world(root: Path) -> Path:
    """Grow what all tests share: attributes are for root alone, as the kernel's are."""
    for folder in ("sys", "dev", "run/nvidia/driver/lib"):
        (root / folder).mkdir(parents=True)
    for name, minor in NODES.items():
        _plain_node(root / "dev" / name, minor)
    _program(root / "run/bin/devlink", DEVLINK)
    _program(root / "run/bin/nvidia-smi", SMI)
    return root


class Bench:
    """A fork server whose workers find a tree of fixtures at /sys, /dev and /run."""

    def __init__(self, root: Path) -> None:
        root.chmod(0o755)
        self.tree = root / "tree"
        self.tree.mkdir()
        try:
            _world(self.tree)
        except PermissionError:
            pytest.skip("no device nodes can be made here")
        for program in ("unshare", "ip"):
            if shutil.which(program) is None:
                pytest.skip(f"takes {program}")
        if subprocess.run(["unshare", "--mount", "--net", "true"], check=False, capture_output=True).returncode:
            pytest.skip("no namespaces can be made here")
        self.script = self.tree / "run/nvml"
        self.script.write_text(HEALTHY)
        prefix = ["env", f"PATH=/run/bin:{os.environ['PATH']}", "LD_LIBRARY_PATH=/run/nvidia/driver/lib"]
        prefix += [f"{nvml_standin.VARIABLE}=/run/nvml"]
        prefix += ["unshare", "--mount", "--net", "--propagation", "private", "sh", "-c", INTO, str(self.tree)]
        self._forks = ForkBench(root / "runtime", server_prefix=prefix)
        self._attributes: dict[Path, int] = {}

    def __enter__(self) -> Self:
        self._forks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._forks.__exit__(None, None, None)
        for fd in self._attributes.values():
            os.close(fd)

    def attribute(self, path: Path) -> int:
        """Make an attribute to be written by root alone, and return what its text can be read from."""
        path.unlink(missing_ok=True)
        os.mkfifo(path, 0o200)
        self._attributes[path] = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        return self._attributes[path]

    def written(self, path: Path) -> bytes:
        """Return what was written to an attribute."""
        try:
            return os.read(self._attributes[path], 4096)
        except BlockingIOError:
            return b""

    def begin(
        self, driver: str, device: Device, method: str, sandbox: Mapping[str, object] | None = None, **more: object
    ) -> Worker:
        """Begin a worker with this reset, in its full sandbox."""
        spec = self._forks.spec(
            f"{driver}-{method}",
            driver=driver,
            target=device,
            probe={"kind": "driver", "signals": {"node": False, **SIGNALS.get(driver, {})}},
            reset={"kind": "driver", "method": method, **more},
            timeout_s=5.0,
            sandbox=sandbox or {},
        )
        worker = self._forks.fork(spec)
        self._forks.until(lambda: bool(worker.hellos))
        assert {"landlock", "identity", "seccomp", "capabilities", "limits"} <= set(worker.hellos[0].sandbox.active)
        self._forks.until_verdict(spec.device)
        return worker

    def reset(self, worker: Worker) -> ResetDone:
        """Have a worker reset its device, which nobody uses, and return how that went."""
        self._forks.send(worker, Reset(len(worker.resets) + 1, 5.0, Usage()))
        before = len(worker.resets)
        self._forks.until(lambda: len(worker.resets) > before or worker.exit is not None)
        assert len(worker.resets) > before, worker.words()
        return worker.resets[-1]

    def until_end(self, worker: Worker) -> str:
        """Wait for a worker's end and return its last words."""
        self._forks.until(lambda: worker.exit is not None)
        return worker.words()


SIGNALS: Mapping[str, Mapping[str, bool]] = {
    "nvidia": {"xid": False},
    "usb": {"answers": False, "authorized": False},
}
"""Signals that no fixture can answer: events need a thread of their own, plain nodes and pipes answer no request."""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with Bench(tmp_path) as one:
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


def test_pci_function(bench: Bench) -> None:
    """The function's own attribute is written."""
    pci_tree.bridge(bench.tree)
    reset = pci_tree.function(bench.tree, files={"reset_method": "flr bus"}) / "reset"
    bench.attribute(reset)
    done = bench.reset(bench.begin("pci", _pci(bench.tree), "function"))
    assert (done.ok, done.reason, bench.written(reset)) == (True, "", b"1")


def test_pci_function_by_a_method(bench: Bench) -> None:
    """The order of the methods is read and written; no pipe can be both, so that here files may be written."""
    reset = pci_tree.function(bench.tree, files={"reset_method": b"flr bus"}) / "reset"
    bench.attribute(reset)
    worker = bench.begin("pci", _pci(bench.tree), "function", by="bus", sandbox={"syscalls": ["files"]})
    done = bench.reset(worker)
    assert (done.ok, done.reason, bench.written(reset)) == (True, "", b"1")
    assert reset.with_name("reset_method").read_text() == "flr bus"


def test_pci_remove_rescan(bench: Bench) -> None:
    """The function is removed, and the bridge above looks for it again."""
    rescan = pci_tree.bridge(bench.tree) / "rescan"
    remove = pci_tree.function(bench.tree) / "remove"
    for one in (rescan, remove):
        bench.attribute(one)
    done = bench.reset(bench.begin("pci", _pci(bench.tree), "remove-rescan"))
    assert (done.ok, done.reason) == (True, "")
    assert (bench.written(remove), bench.written(rescan)) == (b"1", b"1")


def test_pci_remove_rescan_on_the_root_bus(bench: Bench) -> None:
    """Without a bridge above the whole machine looks."""
    remove, rescan = pci_tree.function(bench.tree, above="") / "remove", bench.tree / "sys/bus/pci/rescan"
    for one in (rescan, remove):
        bench.attribute(one)
    done = bench.reset(bench.begin("pci", _pci(bench.tree), "remove-rescan"))
    assert (done.ok, done.reason) == (True, "")
    assert (bench.written(remove), bench.written(rescan)) == (b"1", b"1")


def test_pci_rebind(bench: Bench) -> None:
    """The driver's own attributes are written."""
    pci_tree.function(bench.tree)
    drivers = bench.tree / "sys/bus/pci/drivers/edu"
    for name in ("unbind", "bind"):
        bench.attribute(drivers / name)
    done = bench.reset(bench.begin("pci", _pci(bench.tree), "rebind"))
    assert (done.ok, done.reason) == (True, "")
    assert bench.written(drivers / "unbind") == bench.written(drivers / "bind") == CARD.encode()


def test_vfio_function(bench: Bench) -> None:
    """Each function of the group is reset."""
    grow(bench.tree, {"sys/class/vfio/7/dev": "241:0", "sys/class/misc/vfio/dev": "10:196", "dev/vfio/7": b""})
    reset = pci_tree.function(bench.tree, driver="vfio-pci", group="7", files={"reset_method": "flr"}) / "reset"
    bench.attribute(reset)
    (device,) = VfioDriver({}, root=bench.tree).discover().devices
    done = bench.reset(bench.begin("vfio", device, "function"))
    assert (done.ok, done.reason, bench.written(reset)) == (True, "", b"1")


@pytest.mark.parametrize("method", ["recover", "reload", "link", "function"])
def test_infiniband(bench: Bench, method: str) -> None:
    """Devlink speaks netlink, an interface (here the namespace's own lo) is set by it, the function's file written."""
    layer = "Ethernet" if method == "link" else "InfiniBand"
    real = infiniband_tree.adapter(bench.tree, layer=layer, interface="lo")
    reset = real.parents[1] / "reset"
    bench.attribute(reset)
    (device,) = InfinibandDriver({}, root=bench.tree).discover().devices
    done = bench.reset(bench.begin("infiniband", device, method))
    assert (done.ok, done.reason, bench.written(reset)) == (True, "", b"1" if method == "function" else b"")


def test_nvme_controller(bench: Bench) -> None:
    """The controller's attribute is written."""
    _plain_node(bench.tree / "dev/nvme0", 3)
    reset = nvme_tree.disk(bench.tree, node=False) / "reset_controller"
    bench.attribute(reset)
    (device,) = NvmeDriver({}, root=bench.tree).discover().devices
    done = bench.reset(bench.begin("nvme", device, "controller"))
    assert (done.ok, done.reason, bench.written(reset)) == (True, "", b"1")


def test_nvme_subsystem(bench: Bench) -> None:
    """The ioctl reaches the controller's node: what stands for it here does not know the request."""
    _plain_node(bench.tree / "dev/nvme0", 3)
    nvme_tree.disk(bench.tree, node=False)
    (device,) = NvmeDriver({}, root=bench.tree).discover().devices
    done = bench.reset(bench.begin("nvme", device, "subsystem"))
    assert done.reason == "subsystem reset /dev/nvme0: ENOTTY (Inappropriate ioctl for device)"


def _usb(bench: Bench) -> tuple[Path, Device]:
    real = usb_tree.device(bench.tree)
    raw = bench.tree / "dev/bus/usb/001/005"
    _plain_node(raw, 3)
    (device,) = UsbDriver({"vendor": "0403"}, root=bench.tree).discover().devices
    return real, device


def test_usb_port(bench: Bench) -> None:
    """The ioctl reaches the raw node: what stands for it here does not know the request."""
    _real, device = _usb(bench)
    done = bench.reset(bench.begin("usb", device, "port"))
    assert done.reason == "USBDEVFS_RESET /dev/bus/usb/001/005: ENOTTY (Inappropriate ioctl for device)"


def test_usb_authorized(bench: Bench) -> None:
    """The attribute is written twice, 1 at the end."""
    real, device = _usb(bench)
    bench.attribute(real / "authorized")
    done = bench.reset(bench.begin("usb", device, "authorized"))
    assert (done.ok, done.reason, bench.written(real / "authorized")) == (True, "", b"01")


def test_nvidia_gpu(bench: Bench) -> None:
    """NVML says that nobody uses the GPU, and nvidia-smi opens its nodes; both through the sandbox."""
    nvml_standin.build(bench.tree / "run/nvidia/driver/lib")
    for name in ("nvidia0", "nvidiactl"):
        _plain_node(bench.tree / "dev" / name, 3)
    grow(bench.tree, {f"sys/bus/pci/devices/{GPU}/vendor": "0x10de"})
    properties = {"sysfs": f"/sys/bus/pci/devices/{GPU}", "minor": "0", "address": GPU}
    nodes = (Node("/dev/nvidia0", "char", 1, 3), Node("/dev/nvidiactl", "char", 1, 3, shared=True))
    device = Device(UUID, nodes, properties, params={"address": GPU, "gpu_uuid": UUID})
    done = bench.reset(bench.begin("nvidia", device, "gpu"))
    assert (done.ok, done.reason) == (True, "")


def test_worker_whose_directory_a_reset_made_anew_gives_way(bench: Bench) -> None:
    """A function that was removed and found again has another directory, which this worker may not write to any more.

    It says so and ends after the reset is done: the next reset is its successor's.
    """
    rescan = pci_tree.bridge(bench.tree) / "rescan"
    real = pci_tree.function(bench.tree)
    bench.attribute(rescan)
    removed = bench.attribute(real / "remove")

    def kernel() -> None:
        """Be the kernel: once the function is removed, its directory is another one."""
        if select.select([removed], [], [], WAIT_S)[0]:
            real.rename(real.with_name("removed"))
            ignored = shutil.ignore_patterns("remove")
            shutil.copytree(real.with_name("removed"), real, symlinks=True, ignore=ignored)

    worker = bench.begin("pci", _pci(bench.tree), "remove-rescan")
    thread = threading.Thread(target=kernel)
    thread.start()
    done = bench.reset(worker)
    thread.join()
    assert (done.ok, done.reason, bench.written(rescan)) == (True, "", b"1")
    words = bench.until_end(worker)
    assert f"/sys/bus/pci/devices/{CARD} was made anew since this worker began" in words
    assert "Traceback" not in words
