"""The probe kinds: the name in the configuration and what carries it out."""

from collections.abc import Callable

from devd.ipc.messages import WorkerSpec
from devd.workers.command import CommandRunner
from devd.workers.errors import SpecError
from devd.workers.params import Params
from devd.workers.probes.base import Probe
from devd.workers.probes.driver import DriverProbe
from devd.workers.probes.exec import ExecProbe
from devd.workers.probes.exists import ExistsProbe
from devd.workers.probes.ioctl import IoctlProbe
from devd.workers.probes.open import OpenProbe
from devd.workers.probes.read import ReadProbe
from devd.workers.probes.sim import SimProbe
from devd.workers.probes.sysfs import SysfsProbe

PROBES: dict[str, Callable[[WorkerSpec, CommandRunner], Probe]] = {
    "exists": lambda spec, _runner: ExistsProbe(spec),
    "open": lambda spec, _runner: OpenProbe(spec),
    "ioctl": lambda spec, _runner: IoctlProbe(spec),
    "read": lambda spec, _runner: ReadProbe(spec),
    "sysfs": lambda spec, _runner: SysfsProbe(spec),
    "exec": ExecProbe,
    "driver": DriverProbe,
    "sim": lambda spec, _runner: SimProbe(spec),
}


def make_probe(spec: WorkerSpec, runner: CommandRunner) -> Probe:
    """Return the probe a spec asks for. Raises SpecError."""
    kind = Params("probe", spec.probe).text("kind")
    if kind not in PROBES:
        raise SpecError(f"probe.kind: {kind!r} is unknown, allowed are {', '.join(PROBES)}")
    return PROBES[kind](spec, runner)
