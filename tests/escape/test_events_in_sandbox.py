"""What a driver hears of between two probes, inside its sandbox: the next probe does not wait for its period.

The probes' period is a minute throughout; what is seen sooner was heard of.
"""

import math
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from devd.workers.drivers.infiniband import InfinibandDriver
from devd.workers.drivers.usb import UsbDriver
from devd.workers.main import CALM_S, STORM_PAUSE_S
from tests.support import notified
from tests.support.sysbench import SysBench, plain_node
from tests.unit.workers.drivers import infiniband_tree, usb_tree

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can lay a tree over /sys and confine a worker")

FLAPS = 400
FEW = 3
"""Probes beside those of the storm: the first, one before the pause grows, one of what came last."""


def _set_link(bench: SysBench, *ways: str) -> None:
    """Set the worker's own loopback interface up or down."""
    batch = "".join(f"link set lo {way}\n" for way in ways)
    into = ["nsenter", f"--net=/proc/{bench.forks.server.pid}/ns/net", "ip", "-batch", "-"]
    subprocess.run(into, input=batch, text=True, check=True, timeout=60)


def test_a_link_that_changes_is_looked_at_at_once(tmp_path: Path) -> None:
    """An InfiniBand device's interface goes down: rtnetlink tells, its worker probes; a storm costs a few probes."""
    if shutil.which("nsenter") is None:
        pytest.skip("takes nsenter")
    with SysBench(tmp_path) as bench:
        infiniband_tree.adapter(bench.tree, layer="Ethernet", interface="lo")
        (device,) = InfinibandDriver({}, root=bench.tree).discover().devices
        name = bench.begin("infiniband", device, "").device
        (bench.tree / f"sys/devices/pci0000:00/{infiniband_tree.PCI}/net/lo/carrier").write_text("0\n")
        _set_link(bench, "up")
        bench.forks.until(lambda: bench.forks.verdicts(name)[-1].verdict == "fail")
        assert "port 1 has no carrier on lo" in bench.forks.verdicts(name)[-1].reason

        began_s, before = time.monotonic(), bench.forks.verdicts(name)[-1].probe_count
        _set_link(bench, *(("down", "up") * FLAPS))
        bench.forks.until(lambda: bench.forks.verdicts(name)[-1].probe_count > before)
        quiet_s = time.monotonic() + CALM_S
        bench.forks.until(lambda: time.monotonic() > quiet_s)
        took_s = time.monotonic() - began_s
        assert bench.forks.verdicts(name)[-1].probe_count - before <= math.ceil(took_s / STORM_PAUSE_S) + FEW


def test_an_over_current_is_looked_at_at_once(tmp_path: Path) -> None:
    """The port's count is an attribute that the kernel tells changes of: here a control group's stands for it."""
    with notified.attribute() as told:
        port = f"/{usb_tree.CONTROLLER}/usb1/1-0:1.0/usb1-port4/over_current_count"
        (tmp_path / "tree").mkdir()
        real = usb_tree.device(tmp_path / "tree")
        with SysBench(tmp_path, [(told.attribute, port)]) as bench:
            plain_node(bench.tree / "dev/bus/usb/001/005", 3)
            (device,) = UsbDriver({"vendor": "0403"}, root=bench.tree).discover().devices
            name = bench.begin("usb", device, "").device
            assert bench.forks.verdicts(name)[-1].verdict == "pass"
            (real / "bConfigurationValue").write_text("\n")
            with told.member():
                bench.forks.until(lambda: bench.forks.verdicts(name)[-1].verdict == "fail")
            assert "has no configuration" in bench.forks.verdicts(name)[-1].reason
