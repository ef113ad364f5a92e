"""The reset kinds and their keys."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from devd.daemon.config.rules import Given, choice, duration
from devd.daemon.config.section import UNKNOWN, Section, program_first, tag_of
from devd.daemon.config.values import Argument, Attribute, SysfsValue, Text

RESETS = ("driver", "exec", "sysfs", "sim")
RESULTS = ("ok", "fail", "hang", "crash", "lie")

_KIND = "What a reset does, see [Reset kinds](#reset-kinds)."


class Reset(Section):
    """How a device is brought back to a clean state before a container gets it."""

    kind: Annotated[str, choice(*RESETS)] = Field(description=_KIND)
    timeout_s: Annotated[float, duration("10ms", "24s")] = Field(
        20.0,
        alias="timeout",
        description="How long a reset may take. The kubelet gives PreStartContainer 30 s, and devd answers inside 25 s "
        "to be able to say why it failed; the probe after the reset counts in.",
    )

    @property
    def params(self) -> Mapping[str, object]:
        """The kind's own keys and values, plain, durations in seconds."""
        common = {field.alias or name for name, field in Reset.model_fields.items()}
        return {key: value for key, value in self.plain().items() if key not in common}

    def as_spec(self) -> dict[str, object]:
        """Return what a worker is told: ``kind`` and the kind's own keys."""
        return {"kind": self.kind, **self.params}


class ExecReset(Reset):
    """Run a command; exit code 0 is success. It is killed at the timeout with all it started."""

    kind: Literal["exec"] = Field(description=_KIND)
    command: tuple[Argument, ...] = Field(
        min_length=1,
        max_length=256,
        json_schema_extra=program_first(),
        description="As for probes: an absolute program path and its arguments, no shell.",
    )


class SysfsReset(Reset):
    """Write a value to an attribute in sysfs."""

    kind: Literal["sysfs"] = Field(description=_KIND)
    attribute: Attribute = Field(
        description="The attribute, relative to the device's sysfs directory or absolute below /sys."
    )
    value: SysfsValue = Field(description="What is written; in quotes if it is a number.")


class DriverReset(Reset):
    """One of the driver's own resets, see [drivers](drivers/). It refuses while anybody uses what would go along."""

    kind: Literal["driver"] = Field(description=_KIND)
    method: Text = Field(description="Which one, by the driver's name for it (`port`, `function`, `controller`, ...).")
    by: Annotated[Text | None, Given()] = Field(
        None, description="For method `function` of `pci` and `vfio`: the one way to reset (`flr`, `bus`, ...)."
    )


class SimReset(Reset):
    """Take a while, then end as told. For tests and rehearsals: no hardware is touched."""

    kind: Literal["sim"] = Field(description=_KIND)
    takes_s: Annotated[float, duration("0ms", "1h")] = Field(
        0.0, alias="takes", description="How long the reset takes; more than `timeout` shows what that leads to."
    )
    result: Annotated[Literal["ok", "fail", "hang", "crash", "lie"], choice(*RESULTS)] = Field(
        "ok", description="How the reset ends; `lie` hangs, and says all is well again and again."
    )


class UnknownReset(Reset):
    """Stands in for a kind that is not known: it has the keys of all kinds, and takes anything for them."""

    attribute: Any = None
    by: Any = None
    command: Any = None
    method: Any = None
    result: Any = None
    takes: Any = None
    value: Any = None


def _kind(value: Any) -> str:
    return tag_of(value, "kind", frozenset(RESETS))


AnyReset = Annotated[
    Annotated[DriverReset, Tag("driver")]
    | Annotated[ExecReset, Tag("exec")]
    | Annotated[SysfsReset, Tag("sysfs")]
    | Annotated[SimReset, Tag("sim")]
    | Annotated[UnknownReset, Tag(UNKNOWN)],
    Discriminator(_kind),
]
