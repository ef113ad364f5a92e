"""``make gpu``: what the driver ``nvidia`` finds, asks and refuses on this machine, with times.

Without a GPU the same is run against the stand-in for NVML, and says so. ``--write`` adds what a real GPU showed to
docs/drivers/nvidia.md.
"""

import ctypes
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from devd.ipc.messages import Device
from devd.workers.command import CommandRunner
from devd.workers.drivers.nvidia import NvidiaDriver
from devd.workers.drivers.nvidia_resets import GpuReset
from devd.workers.drivers.nvidia_signals import SIGNALS, NvidiaSignals
from devd.workers.errors import ResetError
from devd.workers.probes.base import Call
from tests.support import nvml_standin
from tests.unit.workers.drivers import nvidia_tree

PROBES = 50
RESET_ALLOWED_S = 60.0
PAGE = Path(__file__).resolve().parents[2] / "docs/drivers/nvidia.md"
HOLD = "import os, sys; os.open(sys.argv[1], os.O_RDWR); print('held', flush=True); sys.stdin.read()"

Row = tuple[str, str]


def main() -> int:
    """Print a table for each GPU; exit 0 when everything that was asked was answered, and the reset was refused."""
    root = Path("/")
    found = NvidiaDriver({}).discover().devices
    if found:
        return _all(found, root, real=True)
    print("no NVIDIA GPU here: what follows is the stand-in for NVML, through the same code")
    with TemporaryDirectory(prefix="devd-gpu-") as folder:
        root = Path(folder)
        nvidia_tree.gpu(root)
        ctypes.CDLL(str(nvml_standin.build(root)), mode=ctypes.RTLD_GLOBAL)
        script = root / "script"
        script.write_text(f"{nvidia_tree.HEALTHY}process {os.getpid()}\n", encoding="utf-8")
        os.environ[nvml_standin.VARIABLE] = str(script)
        return _all(NvidiaDriver({}, root=root).discover().devices, root, real=False)


def _all(devices: tuple[Device, ...], root: Path, *, real: bool) -> int:
    failed = 0
    for device in devices:
        rows, refused = _measured(device, root, real=real)
        failed += not refused
        for what, value in rows:
            print(f"{what:<28}{value}")
        if real and "--write" in sys.argv:
            _write(device, rows)
    return min(failed, 1)


def _measured(device: Device, root: Path, *, real: bool) -> tuple[list[Row], bool]:
    facts = device.properties
    rows = [("GPU", f"{device.id}, {facts['model']}, driver {facts['driver_version']}, {facts['address']}")]
    signals = NvidiaSignals(device, root=root)
    try:
        began_s = time.perf_counter()
        offered = signals.offered
        rows.append(("first question to NVML", f"{(time.perf_counter() - began_s) * 1e3:.1f} ms"))
        rows.append(("signals", ", ".join(offered)))
        wanted = [one.name for one in SIGNALS if one.default and one.name in offered]
        took_ms: list[float] = []
        said: dict[str, str] = {}
        for _ in range(PROBES):
            began_s = time.perf_counter()
            said = {name: signals.check(name) for name in wanted}
            took_ms.append((time.perf_counter() - began_s) * 1e3)
        rows.append((f"a probe, {PROBES} of them", f"median {median(took_ms):.2f} ms, worst {max(took_ms):.2f} ms"))
        rows += [(f"  {name}", reason or "well") for name, reason in said.items()]
        rows += [(f"  note {name}", text) for name, text in signals.notes.items()]
        rows.append(("NVML's events", "are waited for" if signals.fd is not None else "not to be had"))
        text, refused = _reset_in_use(device, signals, root, real=real)
        rows.append(("reset while in use", text))
    finally:
        signals.release()
    return rows, refused


def _reset_in_use(device: Device, signals: NvidiaSignals, root: Path, *, real: bool) -> tuple[str, bool]:
    """Try the reset while a process has the GPU open (the stand-in tells of this one); return what came of it."""
    reset = GpuReset(device, CommandRunner(), root=root, release=signals.release)
    call = Call(lambda _text: None, time.monotonic(), RESET_ALLOWED_S)
    holder = None
    if real:
        command = [sys.executable, "-c", HOLD, device.nodes[0].path]
        holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if holder.stdout is not None:
            holder.stdout.readline()
    try:
        reset.run(call)
    except ResetError as error:
        return str(error), True
    finally:
        if holder is not None:
            holder.kill()
            holder.communicate()
    return "NOT refused", False


def _write(device: Device, rows: list[Row]) -> None:
    today = datetime.now(UTC).date().isoformat()
    head = f"\n## Seen {today}: {device.properties['model']}, driver {device.properties['driver_version']}\n\n"
    body = "".join(f"    {what:<28}{value}\n" for what, value in rows)
    PAGE.write_text(PAGE.read_text(encoding="utf-8").rstrip("\n") + f"\n{head}{body}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
