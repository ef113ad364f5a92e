"""Probe ``sysfs``: an attribute equals a text, matches a pattern or lies in a range."""

import re
from collections.abc import Callable

from devd.ipc.messages import Device, Node, WorkerSpec
from devd.workers import sysfs
from devd.workers.errors import ProbeError, SpecError
from devd.workers.params import Params
from devd.workers.probes.base import Call, failed, first_path

_WHERE = "probe.attribute"
_RANGE_ENDS = 2
_SHOWN_CHARS = 80

Test = Callable[[str], str]
"""Attribute's text -> "" when it is as it should be, else what it should be."""


class SysfsProbe:
    """Read the attribute for each node; one that all nodes share is read once."""

    def __init__(self, spec: WorkerSpec) -> None:
        params = Params("probe", spec.probe)
        self._attribute = params.text("attribute")
        self._test = _test(params)
        self._device = spec.target if spec.target is not None else Device(spec.device)
        self.activity = f"read {self._attribute} of {first_path(spec)}"
        self.needs = sysfs.needs(self._paths(), self._device, "r")

    def run(self, call: Call) -> str:
        """Check the attribute of every node. Raises ProbeError."""
        for path in self._paths():
            call.say(f"read {path}")
            self._check(path)
        return ""

    def _paths(self) -> tuple[str, ...]:
        """Return the attribute's path for each node, each path once."""
        nodes: tuple[Node | None, ...] = self._device.nodes or (None,)
        return tuple(dict.fromkeys(sysfs.attribute_path(self._attribute, node, self._device, _WHERE) for node in nodes))

    def _check(self, path: str) -> None:
        sysfs.check_below_sys(path, _WHERE)
        try:
            text = sysfs.read(path)
        except OSError as error:
            raise failed("read", path, error) from error
        wanted = self._test(text)
        if wanted:
            raise ProbeError(f'{path} is "{text[:_SHOWN_CHARS]}", {wanted}')


def _test(params: Params) -> Test:
    given = [key for key in ("equals", "matches", "range") if params.has(key)]
    if len(given) != 1:
        raise SpecError(f"probe: exactly one of equals, matches, range is needed, found {given or 'none'}")
    return {"equals": _equals, "matches": _matches, "range": _in_range}[given[0]](params)


def _equals(params: Params) -> Test:
    wanted = params.text("equals")
    return lambda text: "" if text == wanted.strip() else f'must be "{wanted}"'


def _matches(params: Params) -> Test:
    pattern = params.text("matches")
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise SpecError(f"probe.matches: {pattern!r} is no regular expression: {error}") from error
    return lambda text: "" if compiled.search(text) else f"must match {pattern!r}"


def _in_range(params: Params) -> Test:
    ends = params.numbers("range")
    if len(ends) != _RANGE_ENDS or ends[0] > ends[1]:
        raise SpecError(f"probe.range: {ends} found, [min, max] is needed")
    low, high = ends

    def test(text: str) -> str:
        number = _number(text)
        if number is None:
            return f"must be a number between {low:g} and {high:g}"
        return "" if low <= number <= high else f"must be between {low:g} and {high:g}"

    return test


def _number(text: str) -> float | None:
    """Return a decimal, 0x or floating-point number; a unit behind it ("8.0 GT/s") is left out."""
    first = text.split(maxsplit=1)[0] if text else ""
    for convert in (lambda one: float(int(one, 0)), float):
        try:
            return convert(first)
        except ValueError:
            continue
    return None
