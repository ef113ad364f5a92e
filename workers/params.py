"""Reads the free-form parameters of a spec: each value is there and has its type, or SpecError names it."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from devd.ipc.messages import Device
from devd.workers.errors import SpecError

_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Params:
    """One map of parameters; ``where`` names it in errors ("probe", "match")."""

    where: str
    values: Mapping[str, object]

    def has(self, key: str) -> bool:
        """Return whether a parameter is given (null counts as absent)."""
        return self.values.get(key) is not None

    def text(self, key: str, default: str | None = None) -> str:
        """Return a text parameter. Raises SpecError."""
        value = self._get(key, default)
        if not isinstance(value, str):
            raise self._wrong(key, "text")
        return value

    def choice(self, key: str, allowed: Sequence[str], default: str) -> str:
        """Return a text parameter that is one of ``allowed``. Raises SpecError."""
        value = self._get(key, default)
        if not isinstance(value, str) or value not in allowed:
            raise self._wrong(key, f"one of {', '.join(allowed)}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """Return a finite number parameter. Raises SpecError."""
        return self._number(key, self._get(key, default))

    def whole(self, key: str, default: int | None = None, *, least: int = 0) -> int:
        """Return a whole number of at least ``least``. Raises SpecError."""
        value = self._get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise self._wrong(key, f"a whole number of at least {least}")
        return value

    def texts(self, key: str) -> list[str]:
        """Return a parameter that is one text or a list of them; absent is an empty list. Raises SpecError."""
        value = self.values.get(key)
        if value is None:
            return []
        listed = [value] if isinstance(value, str) else value
        if not isinstance(listed, list | tuple) or not all(isinstance(one, str) for one in listed):
            raise self._wrong(key, "text or a list of texts")
        return [str(one) for one in listed]

    def numbers(self, key: str) -> list[float]:
        """Return a list of numbers. Raises SpecError."""
        value = self._get(key, None)
        if not isinstance(value, list | tuple):
            raise self._wrong(key, "a list of numbers")
        return [self._number(key, one) for one in value]

    def maps(self, key: str) -> list["Params"]:
        """Return a list of maps; absent is an empty list. Raises SpecError."""
        value = self.values.get(key)
        if value is None:
            return []
        if not isinstance(value, list | tuple) or not all(isinstance(one, Mapping) for one in value):
            raise self._wrong(key, "a list of maps")
        return [Params(f"{self.where}.{key}[{index}]", one) for index, one in enumerate(value)]

    def _get(self, key: str, default: object) -> object:
        value = self.values.get(key)
        return default if value is None else value

    def _number(self, key: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self._wrong(key, "a number")
        return float(value)

    def _wrong(self, key: str, needed: str) -> SpecError:
        found = repr(self.values[key]) if self.has(key) else "nothing"
        return SpecError(f"{self.where}.{key}: {found:.80} found, {needed} is needed")


def kernel_name(device: Device) -> str:
    """Return the name the kernel gave the device ("ttyUSB0" even if it is reached by a by-id link), without I/O."""
    sysfs = device.properties.get("sysfs", "")
    path = sysfs or (device.nodes[0].path if device.nodes else device.id)
    return path.rpartition("/")[2]


def device_fields(device: Device) -> dict[str, str]:
    """Return what ``{id}``, ``{path}``, ``{paths}`` and ``{name}`` stand for."""
    paths = [node.path for node in device.nodes]
    return {
        "id": device.id,
        "path": paths[0] if paths else "",
        "paths": ",".join(paths),
        "name": kernel_name(device),
    }


def fill(template: str, fields: Mapping[str, str], where: str) -> str:
    """Return a template with its placeholders filled in; ``{{`` and ``}}`` stand for braces. Raises SpecError."""

    def one(match: re.Match[str]) -> str:
        if match[0] in ("{{", "}}"):
            return match[0][0]
        if match[1] not in fields:
            known = ", ".join(f"{{{name}}}" for name in fields)
            raise SpecError(f"{where}: {match[0]} is unknown, allowed are {known}")
        return fields[match[1]]

    return _PLACEHOLDER.sub(one, template)
