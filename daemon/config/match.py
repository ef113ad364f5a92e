"""Which devices a resource offers: the selectors of each driver, and the scripts of simulated devices."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from devd.daemon.config.rules import Given, OneOrMore, choice, duration, whole
from devd.daemon.config.section import Section, exactly_one
from devd.daemon.config.values import AbsolutePath, DeviceName, DevicePrefix, Glob, PropertyName, SysfsName, Text

DEEDS = ("pass", "fail", "hang", "slow", "mute", "crash", "exit", "segv", "exception", "oom", "flood", "misbehave")
MISDEEDS = (
    "garbage",
    "truncated",
    "huge",
    "wrong-version",
    "extra-frames",
    "spoof",
    "stale",
    "next",
    "future",
    "chatter",
    "hoard",
    "unplug",
    "write",
    "endless",
    "endless-small",
)
MAX_SIMULATED = 4096
MAX_NUMA_NODE = 1023
"""The kernel has 2 to the power of CONFIG_NODES_SHIFT, which is 10 at most."""

Deed = Literal[
    "pass", "fail", "hang", "slow", "mute", "crash", "exit", "segv", "exception", "oom", "flood", "misbehave"
]
Misdeed = Literal[
    "garbage",
    "truncated",
    "huge",
    "wrong-version",
    "extra-frames",
    "spoof",
    "stale",
    "next",
    "future",
    "chatter",
    "hoard",
    "unplug",
    "write",
    "endless",
    "endless-small",
]


class NodeGroup(Section):
    """Several device nodes that are offered as one device."""

    name: DeviceName = Field(description="The device's id, unique in the file.")
    path: Annotated[tuple[Glob, ...], Field(min_length=1), OneOrMore()] = Field(
        description="Glob or list of globs of its nodes, at least one node each: while one is missing the device is "
        "not offered, and once it was, it is Unhealthy with the name of what is missing."
    )


Properties = dict[SysfsName, Annotated[tuple[Text, ...], OneOrMore()]]


class NodeMatch(Section):
    """Driver `node`: every device node that a glob matches is one device. Either `path` or `groups` is needed."""

    model_config = ConfigDict(json_schema_extra=exactly_one("path", "groups"))

    path: Annotated[tuple[Glob, ...], Field(min_length=1), OneOrMore()] = Field(
        (),
        description="Glob or list of globs of the device nodes. Nothing has to be there yet: what appears later is "
        "noticed within a second. Two paths to one node are one device, by the path found first.",
    )
    file_type: Annotated[Literal["device", "any"], choice("device", "any")] = Field(
        "device",
        alias="type",
        description="`device` takes character and block devices only, `any` every file that is no directory.",
    )
    exclude: Annotated[tuple[Glob, ...], OneOrMore()] = Field(
        (), description="Glob or list of globs of what is left out."
    )
    groups: Annotated[tuple[NodeGroup, ...], Field(min_length=1)] = Field(
        (), description="Groups of nodes, each offered as one device, see the next table."
    )
    properties: Properties = Field(
        default_factory=dict,
        description="What a node must have, by name: a glob or list of globs each. Names in capitals are udev's "
        "(`ID_SERIAL_SHORT`) or the kernel's event's (`DEVTYPE`), others `subsystem`, `driver`, `address` or an "
        "attribute in sysfs (`idVendor`), of the device or the nearest above it that has one. Of a group the first "
        "node counts.",
    )
    exclude_properties: Properties = Field(
        default_factory=dict, description="What a node must not have, likewise; one that fits is left out."
    )

    def plain(self) -> dict[str, object]:
        """Return the selector as plain values, without the ways of selecting that were not given."""
        return {key: value for key, value in super().plain().items() if key == "exclude" or value not in ([], {})}


class Step(Section):
    """One step of a simulated device's script."""

    for_s: Annotated[float | None, duration("1ms", "24h")] = Field(
        None, alias="for", description="How long the step lasts; absent: for ever (the last step only)."
    )
    do: Annotated[Deed, choice(*DEEDS)] = Field(
        "pass",
        description="What a probe does in this step. `fail` fails with `reason`; `hang` never returns; `slow` returns "
        "too late; `mute` hangs before the worker's first word (first step only); `crash` and `segv` end the worker by "
        "SIGSEGV, `exit` by exit code 3, `exception` by an error in Python, `oom` by its own memory limit; `flood` "
        "publishes as fast as it can for a second; `misbehave` breaks the protocol as `how` says.",
    )
    how: Annotated[Misdeed | None, choice(*MISDEEDS)] = Field(
        None,
        description="For `misbehave`: what is sent beside the report; absent: `garbage`. `spoof` speaks for the device "
        "that `reason` names, `stale` and `next` for another incarnation, `future` has an impossible sequence number; "
        "`chatter` floods the command channel, `hoard` leaves more behind for the next worker than is kept; "
        "`unplug` lists devices as a scout does, `write` speaks as the writer of CDI specifications; "
        "`endless` and `endless-small` send one message that has no end.",
    )
    reason: Text = Field("", description="Text shown with the verdict.")
    takes_s: Annotated[float | None, duration("0ms", "1h")] = Field(
        None,
        alias="takes",
        description="How long a probe takes; absent: no time at all, for `slow` one and a half timeouts.",
    )


class SimDevice(Section):
    """One simulated device."""

    name: DeviceName = Field(description="The device's id, unique among all simulated devices of the file.")
    script: Annotated[tuple[Step, ...] | None, Given()] = Field(
        None, description="What its probes do over time, see [Scripts](#scripts); absent: what `probe.script` says."
    )
    path: Annotated[AbsolutePath | None, Given()] = Field(
        None, description="A real file or device node that a container gets with it; absent: none."
    )
    numa_node: Annotated[int | None, whole(0, MAX_NUMA_NODE)] = Field(
        None, description="The NUMA node it is said to be on; absent: none."
    )
    properties: Annotated[dict[PropertyName, Text] | None, Given()] = Field(
        None,
        description="Its properties, for [templates](#templates) and [allocation](allocation.md): name and value; "
        "absent: none.",
    )


class SimMatch(Section):
    """Driver `sim`: devices out of nothing, for tests and rehearsals. Either `count` or `devices` is needed."""

    model_config = ConfigDict(json_schema_extra=exactly_one("count", "devices"))

    count: Annotated[int | None, whole(1, MAX_SIMULATED)] = Field(
        None, description="So many devices, named `prefix` and a number from 0."
    )
    prefix: DevicePrefix = Field("sim", description="With `count`: what the names begin with.")
    devices: Annotated[Annotated[tuple[SimDevice, ...], Field(min_length=1)] | None, Given()] = Field(
        None, description="The devices one by one, see the next table."
    )
