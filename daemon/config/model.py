"""The configuration as the daemon sees it. Values are right by themselves here; ``cross`` checks them together."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from devd.daemon.config.hardware import (
    HARDWARE,
    InfinibandMatch,
    NvidiaMatch,
    NvmeMatch,
    PciMatch,
    PluginMatch,
    UsbMatch,
    VfioMatch,
    plugins,
)
from devd.daemon.config.listen import Listen
from devd.daemon.config.match import NodeMatch, SimMatch
from devd.daemon.config.probes import (
    AnyProbe,
    DriverProbe,
    ExistsProbe,
    HardwareProbe,
    NodeProbe,
    Probe,
    SimOnlyProbe,
    SimProbe,
)
from devd.daemon.config.resets import AnyReset
from devd.daemon.config.rules import Given, choice, custom, duration, flag, whole
from devd.daemon.config.sandbox import MODES, Mode, SandboxAllow
from devd.daemon.config.section import UNKNOWN, Section, tag_of
from devd.daemon.config.values import (
    Access,
    AnnotationKey,
    Directory,
    EnvName,
    PathTemplate,
    ResourceName,
    Template,
)

DRIVERS = ("node", *HARDWARE, "sim")
PLUGIN = "third party's"
"""Tag of the resources of drivers that are not devd's own."""
PluginName = Annotated[
    str,
    custom(
        "word",
        "the name of an installed driver",
        lambda value: value,
        {"not": {"enum": list(DRIVERS)}},
    ),
]
MAX_RESOURCES = 256
"""Each has a gRPC server, a socket and a scanning process of its own."""
MAX_REPLICAS = 9999
"""Four digits: the kubelet's API has 63 characters for an id, 56 of them the device's, the rest ``::9998``."""


class Kubelet(Section):
    """Where and how resources are registered."""

    dir: Directory = Field(
        Path("/var/lib/kubelet/device-plugins"),
        description="The kubelet's device plugin directory; `--kubelet-dir` goes before it.",
    )
    registration: Annotated[Literal["socket", "watcher"], choice("socket", "watcher")] = Field(
        "socket",
        description="`socket` registers on kubelet.sock in `dir`; `watcher` puts sockets into `registry_dir`, where "
        "the kubelet's plugin watcher finds them.",
    )
    registry_dir: Directory = Field(
        Path("/var/lib/kubelet/plugins_registry"),
        description="The directory of the kubelet's plugin watcher; `--registry-dir` goes before it.",
    )
    pod_resources: Directory | None = Field(
        None,
        description="The socket of the kubelet's PodResources API, asked before a reset for who has what; without it "
        "`pod-resources/kubelet.sock` beside the device plugin directory.",
    )

    @property
    def pod_resources_socket(self) -> Path:
        """Return where PodResources is asked."""
        return self.pod_resources or self.dir.parent / "pod-resources/kubelet.sock"


class Metrics(Section):
    """Metrics in Prometheus' text format, over plain HTTP without a password: see [metrics.md](metrics.md).

    A change of this section needs a restart of devd.
    """

    listen: Listen = Field(
        description="Where `GET /metrics` and `GET /healthz` are answered. `[::]` takes IPv4 as well; beyond "
        "127.0.0.1, everybody who reaches the address can read names and health of the devices."
    )


class Mount(Section):
    """A bind mount a container gets."""

    host: PathTemplate = Field(description="Path on the node.")
    container: PathTemplate = Field(description="Path in the container.")
    read_only: Annotated[bool, flag()] = Field(default=False, description="Whether the container may only read it.")


class Discovery(Section):
    """How devices are looked for."""

    period_s: Annotated[float, duration("50ms", "1h")] = Field(
        10.0,
        alias="period",
        description="Pause between two scans. New and vanished nodes are noticed by events at once; scans are for what "
        "raises none.",
    )
    timeout_s: Annotated[float, duration("10ms", "10m")] = Field(
        10.0,
        alias="timeout",
        description="How long a scan may take; then the scanning process is replaced and the last list stays.",
    )
    linger_s: Annotated[float, duration("0ms", "24h")] = Field(
        60.0,
        alias="linger",
        description="How long a vanished device stays in the kubelet's list as Unhealthy before it is taken out.",
    )


class Restart(Section):
    """When a worker that died is started again."""

    intensity: Annotated[int, whole(0, 1000)] = Field(
        5, description="So many deaths within `period` are followed by a restart; one more, and the device has failed."
    )
    period_s: Annotated[float, duration("100ms", "24h")] = Field(
        60.0, alias="period", description="The window in which deaths are counted."
    )
    backoff_s: Annotated[float, duration("1ms", "1h")] = Field(
        0.2, alias="backoff", description="Pause before the first restart; doubles with each further one."
    )
    backoff_max_s: Annotated[float, duration("1ms", "1h")] = Field(
        30.0, alias="backoff_max", description="The longest pause."
    )
    retry_s: Annotated[float, duration("10ms", "24h")] = Field(
        300.0, alias="retry", description="How long a failed device rests before one more try."
    )


class Flap(Section):
    """When a device that falls again and again is held back."""

    count: Annotated[int, whole(2, 100)] = Field(
        description="So many falls from Healthy to Unhealthy within `within`, and the device is held back."
    )
    within_s: Annotated[float, duration("1s", "24h")] = Field(
        600.0, alias="within", description="The window in which falls are counted."
    )
    hold_s: Annotated[float, duration("100ms", "24h")] = Field(
        1800.0,
        alias="hold",
        description="How long it has to be well without a break before it is offered again.",
    )


class Resource(Section):
    """One extended resource: what pods ask for by its name."""

    name: ResourceName = Field(description="The name pods ask for, unique in the file.")
    driver: Annotated[str, choice(*DRIVERS)] = Field(
        description="Where devices come from: `node` from device nodes; `infiniband`, `nvidia`, `nvme`, `pci`, `usb`, "
        "`vfio` from the hardware of that kind, with signals and resets of its own; `sim` from nothing (for tests and "
        "rehearsals); or the name of an installed third party's driver."
    )
    selector: Any = Field(alias="match", description="Which devices, see [match](#match-driver-node).")
    access: Access = Field(
        "rw", description="What a container may do with the device nodes: `r` read, `w` write, `m` make nodes."
    )
    replicas: Annotated[int, whole(1, MAX_REPLICAS)] = Field(
        1, description="How many times each device is offered; more than once means that containers share it."
    )
    share: Annotated[Literal["pack", "spread"], choice("pack", "spread")] = Field(
        "pack",
        description="With replicas: `pack` puts a container's replicas on the fewest devices, `spread` on the most.",
    )
    probe: Probe = Field(
        ExistsProbe(kind="exists"),
        description="How health is checked, see [probe](#probe); absent: kind `exists` for driver `node`, `sim` for "
        "`sim`, else `driver`.",
    )
    reset: AnyReset | None = Field(
        None,
        description="How a device is reset before each start of a container; absent: not at all. See [reset](#reset).",
    )
    env: dict[EnvName, Template] = Field(
        default_factory=dict, description="Environment variables of the container: name and [template](#templates)."
    )
    annotations: dict[AnnotationKey, Template] = Field(
        default_factory=dict,
        description="Annotations handed to the container runtime: key and [template](#templates).",
    )
    mounts: tuple[Mount, ...] = Field((), description="Bind mounts the container gets, see [mounts](#mounts).")
    container_path: PathTemplate | None = Field(
        None,
        description="Path of the device node in the container; absent: the same as on the node. A fixed path is for "
        "containers that take one device: with more, `{index}`, `{name}` or `{id}` has to tell them apart.",
    )
    cdi: Annotated[Literal["auto", "only", "off"], choice("auto", "only", "off", false="off")] = Field(
        "off",
        description="Whether the container runtime is told devices by name, see [cdi.md](cdi.md): `auto` beside the "
        "plain device nodes, `only` instead of them, `off` not at all.",
    )
    discovery: Discovery = Field(Discovery(), description="How devices are looked for, see [discovery](#discovery).")
    restart: Restart = Field(Restart(), description="When workers are started again, see [restart](#restart).")
    flap: Flap | None = Field(
        None,
        description="When a device that falls again and again is held back, see [flap](#flap); absent: never.",
    )

    sandbox: Annotated[Mode | None, choice(*MODES)] = Field(
        None,
        description="`required`: a layer of the workers' sandbox that cannot be had makes the devices Unhealthy; "
        "`best-effort`: it is left out and shown. Absent: what `sandbox` of the file says.",
    )
    sandbox_allow: SandboxAllow | None = Field(
        None,
        description="What the workers may do beyond what their probe and reset declare, see "
        "[What workers may do](#what-workers-may-do).",
    )

    @property
    def match(self) -> dict[str, object]:
        """The selector as plain values, ready for a scout."""
        selector: Section = self.selector
        return selector.plain()


class NodeResource(Resource):
    """Driver `node`: device nodes of this machine."""

    driver: Literal["node"] = Field(description="Where devices come from: `node`, from device nodes.")
    selector: NodeMatch = Field(alias="match", description="Which device nodes, see [match](#match-driver-node).")
    probe: NodeProbe = Field(
        ExistsProbe(kind="exists"), description="How health is checked; absent: `exists` with its defaults."
    )


class HardwareResource(Resource):
    """A driver with signals of its own."""

    probe: HardwareProbe = Field(DriverProbe(), description="How health is checked; absent: the driver's signals.")


class InfinibandResource(HardwareResource):
    """Driver `infiniband`."""

    driver: Literal["infiniband"] = Field(
        description="Where devices come from: `infiniband`, InfiniBand and RoCE adapters."
    )
    selector: InfinibandMatch = Field(
        InfinibandMatch(), alias="match", description="Which ones, see [match](#match-driver-infiniband)."
    )


class NvidiaResource(HardwareResource):
    """Driver `nvidia`."""

    driver: Literal["nvidia"] = Field(description="Where devices come from: `nvidia`, NVIDIA GPUs.")
    selector: NvidiaMatch = Field(
        NvidiaMatch(), alias="match", description="Which ones, see [match](#match-driver-nvidia)."
    )


class NvmeResource(HardwareResource):
    """Driver `nvme`."""

    driver: Literal["nvme"] = Field(description="Where devices come from: `nvme`, NVMe disks.")
    selector: NvmeMatch = Field(NvmeMatch(), alias="match", description="Which ones, see [match](#match-driver-nvme).")


class PciResource(HardwareResource):
    """Driver `pci`."""

    driver: Literal["pci"] = Field(description="Where devices come from: `pci`, PCI functions.")
    selector: PciMatch = Field(alias="match", description="Which ones, see [match](#match-driver-pci).")


class UsbResource(HardwareResource):
    """Driver `usb`."""

    driver: Literal["usb"] = Field(description="Where devices come from: `usb`, USB devices.")
    selector: UsbMatch = Field(alias="match", description="Which ones, see [match](#match-driver-usb).")


class VfioResource(HardwareResource):
    """Driver `vfio`."""

    driver: Literal["vfio"] = Field(
        description="Where devices come from: `vfio`, functions set aside for virtual machines."
    )
    selector: VfioMatch = Field(VfioMatch(), alias="match", description="Which ones, see [match](#match-driver-vfio).")


class PluginResource(HardwareResource):
    """A third party's driver."""

    driver: PluginName = Field(description="The name of an installed third party's driver.")
    selector: PluginMatch = Field(PluginMatch(), alias="match", description="Which devices, in the driver's own words.")


class SimResource(Resource):
    """Driver `sim`: simulated devices."""

    driver: Literal["sim"] = Field(description="Where devices come from: `sim`, from nothing.")
    selector: SimMatch = Field(alias="match", description="Which simulated devices, see [match](#match-driver-sim).")
    probe: SimOnlyProbe = Field(SimProbe(), description="How health is checked; absent: `sim` with its defaults.")


class UnknownResource(Resource):
    """Stands in for an unknown driver: its match is not looked into."""

    probe: AnyProbe = Field(ExistsProbe(kind="exists"))


def _driver(value: Any) -> str:
    if tag_of(value, "driver", plugins() - set(DRIVERS)) != UNKNOWN:
        return PLUGIN
    return tag_of(value, "driver", frozenset(DRIVERS))


AnyResource = Annotated[
    Annotated[NodeResource, Tag("node")]
    | Annotated[InfinibandResource, Tag("infiniband")]
    | Annotated[NvidiaResource, Tag("nvidia")]
    | Annotated[NvmeResource, Tag("nvme")]
    | Annotated[PciResource, Tag("pci")]
    | Annotated[UsbResource, Tag("usb")]
    | Annotated[VfioResource, Tag("vfio")]
    | Annotated[PluginResource, Tag(PLUGIN)]
    | Annotated[SimResource, Tag("sim")]
    | Annotated[UnknownResource, Tag(UNKNOWN)],
    Discriminator(_driver),
]


class Config(Section):
    """The configuration of devd: one YAML file."""

    kubelet: Kubelet = Field(Kubelet(), description="The kubelet's directories, and the way of registering.")
    metrics: Annotated[Metrics | None, Given()] = Field(
        None, description="The endpoint for Prometheus, see [metrics](#metrics); absent: none."
    )
    sandbox: Annotated[Mode, choice(*MODES)] = Field(
        "best-effort",
        description="For resources that do not say: `required` makes devices Unhealthy whose worker lacks a layer of "
        "its sandbox, `best-effort` leaves it out and shows it.",
    )
    resources: tuple[AnyResource, ...] = Field(
        min_length=1, max_length=MAX_RESOURCES, description=f"What is offered; 1 to {MAX_RESOURCES} resources."
    )
