"""Driver ``sim``: devices out of nothing, for tests, the demo and rehearsals. Their scripts go to their workers."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from devd.ipc.messages import Device, Node
from devd.workers import sim
from devd.workers.drivers.base import Found
from devd.workers.errors import SpecError, explain
from devd.workers.params import Params
from devd.workers.probes.base import identity
from devd.workers.sandbox.needs import PathNeed, SandboxNeeds


class SimDriver:
    """``count`` devices of one name, or ``devices`` by name, each with a script and a real path if it is given one."""

    def __init__(self, match: Mapping[str, object]) -> None:
        params = Params("match", match)
        if params.has("count") == params.has("devices"):
            raise SpecError("match: exactly one of count, devices is needed")
        if params.has("count"):
            prefix = params.text("prefix", "sim")
            self._devices = [_Simulated(f"{prefix}{number}") for number in range(params.whole("count"))]
        else:
            self._devices = [_Simulated.of(one) for one in params.maps("devices")]
        self.leave_alone: frozenset[str] = frozenset()
        self.baseline: Mapping[str, object] = {}
        self.uevents: Collection[str] = ()
        self.watches = any(one.path for one in self._devices)
        self.what = f"{len(self._devices)} simulated devices"
        paths = [PathNeed(str(Path(one.path).parent), "l", vital=True) for one in self._devices if one.path]
        self.needs = SandboxNeeds(tuple(paths), frozenset({"watch"}))

    def discover(self) -> Found:
        """Return the devices; the path of each is looked at, and the device is listed without it if it is missing."""
        problems: list[str] = []
        devices = tuple(one.device(problems) for one in self._devices if one.path not in self.leave_alone)
        parents = dict.fromkeys(Path(one.path).parent for one in self._devices if one.path)
        return Found(devices, tuple(problems), tuple(parents))


class _Simulated:
    """One simulated device."""

    def __init__(
        self,
        name: str,
        script: object = None,
        path: str = "",
        properties: Mapping[str, str] | None = None,
        numa_node: int | None = None,
    ) -> None:
        sim.parse(script, f"match.devices.{name}.script")
        self.path = path
        self._properties = properties or {}
        self._numa_node = numa_node
        self._name = name
        self._params: Mapping[str, object] = {} if script is None else {"script": script}

    @classmethod
    def of(cls, params: Params) -> "_Simulated":
        """Return the device a map describes. Raises SpecError."""
        properties = params.values.get("properties") or {}
        if not isinstance(properties, Mapping) or not all(isinstance(one, str) for one in properties.values()):
            raise SpecError(f"{params.where}.properties: {properties!r:.80} found, a map of texts is needed")
        numa_node = params.whole("numa_node") if params.has("numa_node") else None
        name, path = params.text("name"), params.text("path", "")
        return cls(name, params.values.get("script"), path, properties, numa_node)

    def device(self, problems: list[str]) -> Device:
        """Return the device as it is found now."""
        nodes: tuple[Node, ...] = ()
        if self.path:
            try:
                nodes = (Node(self.path, *identity(os.stat(self.path))),)  # noqa: PTH116 - the call's name is told
            except OSError as error:
                problems.append(f"{self._name}: {explain('stat', self.path, error)}")
        return Device(self._name, nodes, self._properties, self._numa_node, self._params)
