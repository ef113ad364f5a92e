"""The probe kinds and their keys."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag

from devd.daemon.config.hardware import Cures, Switches
from devd.daemon.config.match import Step
from devd.daemon.config.rules import Given, choice, duration, whole
from devd.daemon.config.section import UNKNOWN, Section, exactly_one, program_first, tag_of
from devd.daemon.config.values import Argument, Attribute, NumberRange, Regex, Text

NODE_PROBES = ("exists", "open", "read", "ioctl", "sysfs", "exec")
"""What driver node allows."""
MAX_READ_BYTES = 1024 * 1024
MAX_OFFSET = 2**63 - 1

_KIND = "What a probe does, see [Probe kinds](#probe-kinds)."


class Probe(Section):
    """How a device's health is checked."""

    kind: Annotated[str, choice(*NODE_PROBES, "driver", "sim")] = Field(description=_KIND)
    period_s: Annotated[float, duration("50ms", "1h")] = Field(
        5.0, alias="period", description="Pause between the end of one probe and the start of the next."
    )
    timeout_s: Annotated[float, duration("10ms", "10m")] = Field(
        2.0,
        alias="timeout",
        description="How long a probe may take. One that takes longer makes the device Unhealthy; one that does not "
        "return at all costs its worker its life.",
    )
    failures: Annotated[int, whole(1, 100)] = Field(
        1, description="So many failed probes in a row make a Healthy device Unhealthy."
    )
    successes: Annotated[int, whole(1, 100)] = Field(
        1, description="So many passed probes in a row make an Unhealthy device Healthy again."
    )

    @property
    def params(self) -> Mapping[str, object]:
        """The kind's own keys and values, plain, durations in seconds."""
        common = {field.alias or name for name, field in Probe.model_fields.items()}
        return {key: value for key, value in self.plain().items() if key not in common}

    def as_spec(self) -> dict[str, object]:
        """Return what a worker is told: ``kind`` and the kind's own keys."""
        return {"kind": self.kind, **self.params}


class ExistsProbe(Probe):
    """The node is there, and is still the same one (type, major and minor number). The driver is not touched."""

    kind: Literal["exists"] = Field(description=_KIND)


class OpenProbe(Probe):
    """The node can be opened (without waiting, without becoming its terminal) and closed again."""

    kind: Literal["open"] = Field(description=_KIND)
    mode: Annotated[Literal["r", "w", "rw"], choice("r", "w", "rw")] = Field(
        "r", description="Open for reading, writing or both."
    )


class ReadProbe(Probe):
    """The node gives so many bytes within the timeout."""

    kind: Literal["read"] = Field(description=_KIND)
    byte_count: Annotated[int, whole(1, MAX_READ_BYTES)] = Field(1, alias="bytes", description="How many bytes.")
    offset: Annotated[int | None, whole(0, MAX_OFFSET)] = Field(
        None, description="Where to read, in bytes; absent: where the device begins, without seeking."
    )


class IoctlProbe(Probe):
    """The driver answers a request that only reads, without waiting: a number of its own, from its kernel header."""

    kind: Literal["ioctl"] = Field(description=_KIND)
    request: Annotated[int, whole(0, 0xBFFFFFFF)] = Field(
        description="The request's number, as in the driver's header (`0xAE00` is KVM_GET_API_VERSION). One that "
        "writes (bit 30) is refused."
    )
    returns: Annotated[int | None, whole(0, 2**31 - 1)] = Field(
        None, description="What the call has to return; absent: anything but an error. For requests without a buffer."
    )
    mode: Annotated[Literal["r", "w", "rw"], choice("r", "w", "rw")] = Field(
        "r", description="Open for reading, writing or both."
    )


class SysfsProbe(Probe):
    """An attribute in sysfs is as it should be. Exactly one of `equals`, `matches` and `range` is needed."""

    model_config = ConfigDict(json_schema_extra=exactly_one("equals", "matches", "range"))

    kind: Literal["sysfs"] = Field(description=_KIND)
    attribute: Attribute = Field(
        description="The attribute: a path below the device's sysfs directory (`device/power_state`), or an absolute "
        "one below /sys (`/sys/class/net/{name}/carrier`)."
    )
    equals: Annotated[Text | None, Given()] = Field(
        None, description="The attribute's text, without surrounding blanks, is this."
    )
    matches: Annotated[Regex | None, Given()] = Field(
        None, description="This regular expression is found in the attribute's text."
    )
    range: Annotated[NumberRange | None, Given()] = Field(
        None,
        description="The attribute's number (decimal or 0x..., a unit behind it is left out) lies between the two.",
    )


class ExecProbe(Probe):
    """A command says so by its exit code. It runs without a shell and is killed at the timeout with all it started."""

    kind: Literal["exec"] = Field(description=_KIND)
    command: tuple[Argument, ...] = Field(
        min_length=1,
        max_length=256,
        json_schema_extra=program_first(),
        description="Program and arguments; the program is an absolute path. The environment has DEVD_DEVICE (the id) "
        "and DEVD_PATHS.",
    )
    ok_codes: tuple[Annotated[int, whole(0, 255)], ...] = Field(
        (0,), min_length=1, max_length=256, description="Exit codes that mean healthy."
    )


class DriverProbe(Probe):
    """The signals of the device's own driver, see [drivers](drivers/). Not for drivers `node` and `sim`."""

    kind: Literal["driver"] = Field("driver", description=_KIND)
    signals: Switches = Field(
        default_factory=dict,
        description="Signals by name, each `true` or `false`: what is checked beyond the driver's defaults, and what "
        "of them is not. A signal that a device does not have is no fault.",
    )
    xids: Cures = Field(
        default_factory=dict,
        description="For driver `nvidia`: XID numbers (in quotes) and what each is taken for, where that is not to be "
        "what the catalogue says.",
    )


class SimProbe(Probe):
    """Does what a script says. For driver `sim` alone, and the only kind there."""

    kind: Literal["sim"] = Field("sim", description=_KIND)
    script: Annotated[tuple[Step, ...] | None, Given()] = Field(
        None,
        description="What the probes of all devices without a script of their own do, see [Scripts](#scripts); "
        "absent: always pass.",
    )


class _UnknownProbe(Probe):
    """Stands in for a kind that is not known: it has the keys of all kinds, and takes anything for them."""

    attribute: Any = None
    byte_count: Any = Field(None, alias="bytes")
    command: Any = None
    equals: Any = None
    matches: Any = None
    mode: Any = None
    offset: Any = None
    ok_codes: Any = None
    range: Any = None
    request: Any = None
    returns: Any = None
    script: Any = None
    signals: Any = None
    xids: Any = None


class UnknownNodeProbe(_UnknownProbe):
    """Stands in for a kind that driver node does not have."""

    kind: Annotated[
        str,
        choice(
            *NODE_PROBES,
            hints={
                "sim": "probe kind sim goes with driver sim only",
                "driver": "driver node has no signals of its own: say what to check by another kind",
            },
        ),
    ]


class UnknownHardwareProbe(_UnknownProbe):
    """Stands in for a kind that a driver with signals of its own does not have."""

    kind: Annotated[str, choice(*NODE_PROBES, "driver", hints={"sim": "probe kind sim goes with driver sim only"})]


class UnknownSimProbe(_UnknownProbe):
    """Stands in for a kind that driver sim does not have."""

    kind: Annotated[
        str,
        choice(
            "sim",
            hints=dict.fromkeys(
                (*NODE_PROBES, "driver"), "driver sim has no hardware to probe: it takes kind sim only"
            ),
        ),
    ]


class UnknownProbe(_UnknownProbe):
    """Stands in for an unknown kind where the driver is not known either."""


def _node_kind(value: Any) -> str:
    return tag_of(value, "kind", frozenset(NODE_PROBES))


def _hardware_kind(value: Any) -> str:
    return tag_of(value, "kind", frozenset({*NODE_PROBES, "driver"}), default="driver")


def _sim_kind(value: Any) -> str:
    return tag_of(value, "kind", frozenset({"sim"}), default="sim")


def _any_kind(value: Any) -> str:
    return tag_of(value, "kind", frozenset({*NODE_PROBES, "driver", "sim"}))


_Known = (
    Annotated[ExistsProbe, Tag("exists")]
    | Annotated[OpenProbe, Tag("open")]
    | Annotated[ReadProbe, Tag("read")]
    | Annotated[IoctlProbe, Tag("ioctl")]
    | Annotated[SysfsProbe, Tag("sysfs")]
    | Annotated[ExecProbe, Tag("exec")]
)

NodeProbe = Annotated[_Known | Annotated[UnknownNodeProbe, Tag(UNKNOWN)], Discriminator(_node_kind)]
HardwareProbe = Annotated[
    _Known | Annotated[DriverProbe, Tag("driver")] | Annotated[UnknownHardwareProbe, Tag(UNKNOWN)],
    Discriminator(_hardware_kind),
]
SimOnlyProbe = Annotated[
    Annotated[SimProbe, Tag("sim")] | Annotated[UnknownSimProbe, Tag(UNKNOWN)], Discriminator(_sim_kind)
]
AnyProbe = Annotated[
    _Known
    | Annotated[DriverProbe, Tag("driver")]
    | Annotated[SimProbe, Tag("sim")]
    | Annotated[UnknownProbe, Tag(UNKNOWN)],
    Discriminator(_any_kind),
]
