"""The project's own kinds of values, as annotations: names, paths, templates, patterns."""

import math
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from devd.daemon.config import placeholders
from devd.daemon.config.rules import Rule, custom, refused, text
from devd.daemon.templates import PROPERTY

MAX_PREFIX_CHARS = 244
"""The kubelet checks ``requests.`` + name: 253 characters of a DNS name less those nine."""
MAX_NAME_CHARS = 63
"""Kubernetes' limit on the part of a qualified name behind the slash."""
MAX_ID_CHARS = 56
"""The kubelet's API has 63 for a device id; the rest is for the replica's ``::9998``."""
MAX_TEXT_CHARS = 4096
"""Linux's limit on a path (PATH_MAX); as good as any for other texts."""
MAX_PATTERN_CHARS = 1000

_PATHS = ("{path}", "{sysfs}")
"""Placeholders that stand for an absolute path."""
_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_PREFIX = rf"{_LABEL}(\.{_LABEL})*"
_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?"
_RANGE_ENDS = 2
_HEX_SIGN = r"(?:[0-9A-Fa-f?]|\[!?[0-9A-Fa-f-]+\])"
"""What fits one hexadecimal digit in a glob."""


def _resource_name() -> Rule:
    allowed = "DOMAIN/NAME like example.com/serial, without kubernetes.io/ or requests."

    def check(value: str) -> str:
        prefix, _, name = value.partition("/")
        demands = (
            (value.count("/") == 1, "a resource's name has exactly one slash"),
            ("kubernetes.io/" not in value, "kubernetes.io/ is kept for Kubernetes itself"),
            (not value.startswith("requests."), "the prefix requests. is kept for quotas"),
            (len(prefix) <= MAX_PREFIX_CHARS, f"more than {MAX_PREFIX_CHARS} characters before the slash"),
            (len(name) <= MAX_NAME_CHARS, f"more than {MAX_NAME_CHARS} characters behind the slash"),
            (re.fullmatch(_PREFIX, prefix), "before the slash a DNS name in lower case is needed"),
            (re.fullmatch(_NAME, name), "behind the slash letters and digits are needed, and - _ . between them"),
        )
        for met, message in demands:
            if not met:
                raise refused(message, allowed)
        return value

    guard = rf"(?!requests\.)(?!.*kubernetes\.io/)(?=[^/]{{1,{MAX_PREFIX_CHARS}}}/[^/]{{1,{MAX_NAME_CHARS}}}$)"
    return custom("resource name", allowed, check, {"pattern": rf"^{guard}{_PREFIX}/{_NAME}$"})


def _access() -> Rule:
    allowed = "r, w and m in any mix, each once"

    def check(value: str) -> str:
        if not value or set(value) - set("rwm") or len(set(value)) != len(value):
            raise refused("not a device permission", allowed)
        return value

    return custom("text", allowed, check, {"pattern": r"^(?!.*(.).*\1)[rwm]{1,3}$"})


def _absolute(kind: str, allowed: str, *, as_path: bool = False) -> Rule:
    def check(value: str) -> str | Path:
        fault = _path_fault(value)
        if fault:
            raise refused(fault, allowed)
        return Path(value) if as_path else value

    return custom(kind, allowed, check, {"pattern": "^/.", "maxLength": MAX_TEXT_CHARS})


def _path_fault(value: str) -> str:
    if not value.startswith("/"):
        return "the path must be absolute"
    if not value.strip("/"):
        return "the root directory cannot be meant"
    if ".." in value.split("/"):
        return "a path without .. is needed"
    if len(value) > MAX_TEXT_CHARS:
        return f"longer than {MAX_TEXT_CHARS} characters"
    return ""


def _template(fields: Iterable[str], *, path: bool = False, properties: bool = False, kind: str = "template") -> Rule:
    names = tuple(fields)
    more = ", properties of the device" if properties else ""
    allowed = f"{'an absolute path with ' if path else ''}{placeholders.shown(names)}{more}"

    def check(value: str) -> str:
        fault = placeholders.fault(value, names, properties=properties)
        if not fault and len(value) > MAX_TEXT_CHARS:
            fault = f"longer than {MAX_TEXT_CHARS} characters"
        if not fault and path and not value.startswith(_PATHS):
            fault = _path_fault(value)
        if fault:
            raise refused(fault, allowed)
        return value

    start = r"^(?=/.|\{path\}|\{sysfs\})" if path else "^"
    pattern = start + placeholders.pattern(names, properties=properties).removeprefix("^")
    return custom(kind, allowed, check, {"pattern": pattern, "maxLength": MAX_TEXT_CHARS})


def _attribute() -> Rule:
    names = tuple(placeholders.ATTRIBUTE_FIELDS)
    allowed = f"a path below the device's sysfs directory, or below /sys/, with {placeholders.shown(names)}"

    def check(value: str) -> str:
        fault = placeholders.fault(value, names)
        if not fault and (not value.strip("/") or (value.startswith("/") and not value.startswith("/sys/"))):
            fault = "not a sysfs attribute"
        if not fault and len(value) > MAX_TEXT_CHARS:
            fault = f"longer than {MAX_TEXT_CHARS} characters"
        if fault:
            raise refused(fault, allowed)
        return value

    pattern = r"^(?=/sys/.|[^/])" + placeholders.pattern(names).removeprefix("^")
    return custom("template", allowed, check, {"pattern": pattern, "maxLength": MAX_TEXT_CHARS})


def _regex() -> Rule:
    allowed = "a regular expression as Python's re module has it"

    def check(value: str) -> str:
        if len(value) > MAX_PATTERN_CHARS:
            raise refused(f"longer than {MAX_PATTERN_CHARS} characters", allowed)
        try:
            re.compile(value)
        # RecursionError and OverflowError: deep nesting and huge repeat counts.
        except (re.error, RecursionError, OverflowError) as error:
            raise refused(f"not a regular expression: {error}", allowed) from None
        return value

    return custom("regular expression", allowed, check, {"format": "regex", "maxLength": MAX_PATTERN_CHARS})


def _range() -> Rule:
    allowed = "[MIN, MAX]: two numbers, the smaller one first"

    def check(value: object) -> tuple[float, float]:
        if not isinstance(value, list) or len(value) != _RANGE_ENDS:
            raise refused("two numbers are needed", allowed)
        try:
            ends = [float(one) for one in value if type(one) in (int, float)]
        except OverflowError:
            raise refused("numbers as large as these cannot be compared", allowed) from None
        if len(ends) != _RANGE_ENDS or not all(map(math.isfinite, ends)):
            raise refused("two numbers are needed", allowed)
        if ends[0] > ends[1]:
            raise refused("the larger number comes first", allowed)
        return ends[0], ends[1]

    numbers = {"type": "array", "items": {"type": "number"}, "minItems": _RANGE_ENDS, "maxItems": _RANGE_ENDS}
    return Rule("list of 2 numbers", allowed, check, numbers)


def _class_code(bus: str, digits: int, allowed: str, *, beginning: str = "") -> Rule:
    """Globs on a class code of so many digits that can fit one; ``beginning`` fits what is short for ``BEGINNING*``."""
    short = f"{beginning}|" if beginning else ""
    glob = rf"{_HEX_SIGN}{{{digits}}}|{_HEX_SIGN}{{0,{digits}}}\*(?:{_HEX_SIGN}|\*)*"
    written = text(allowed, rf"(?:0[xX])?(?:{short}{glob})", f"{bus} class code")

    def check(value: object) -> object:
        found = written.check(value)
        is_short = beginning and re.fullmatch(rf"(?:0[xX])?(?:{beginning})", str(found))
        return f"{found}*" if is_short else found

    return replace(written, check=check)


def _device_name(allowed: str, most_chars: int) -> Rule:
    return text(allowed, r"(?!.*::)[A-Za-z0-9._:-]+", "device id", most_chars=most_chars)


ResourceName = Annotated[str, _resource_name()]
Access = Annotated[str, _access()]
Directory = Annotated[Path, _absolute("path", "an absolute path", as_path=True)]
AbsolutePath = Annotated[str, _absolute("path", "an absolute path")]
Glob = Annotated[
    str, _absolute("glob", "an absolute path; `*`, `?` and `[...]` match within a directory, `**` any depth")
]
Template = Annotated[str, _template(placeholders.CONTAINER_FIELDS, properties=True)]
PathTemplate = Annotated[
    str, _template(placeholders.CONTAINER_FIELDS, path=True, properties=True, kind="path template")
]
Argument = Annotated[str, _template(placeholders.COMMAND_FIELDS, kind="text")]
SysfsValue = Annotated[str, _template(placeholders.VALUE_FIELDS)]
Attribute = Annotated[str, _attribute()]
Regex = Annotated[str, _regex()]
NumberRange = Annotated[tuple[float, float], _range()]
EnvName = Annotated[
    str, text("a name of letters, digits and _, not beginning with a digit", "[A-Za-z_][A-Za-z0-9_]*", "name")
]
AnnotationKey = Annotated[
    str, text("letters, digits and . _ / -, at most 317", "[A-Za-z0-9][A-Za-z0-9._/-]*", "name", most_chars=317)
]
SysfsName = Annotated[
    str,
    text(
        "letters, digits and _ . -, a letter, digit or _ first, at most 64",
        "[A-Za-z0-9_][A-Za-z0-9_.-]*",
        "name",
        most_chars=64,
    ),
]
PropertyName = Annotated[
    str, text("letters, digits and _, a letter first, at most 64", PROPERTY, "name", most_chars=64)
]
Text = Annotated[str, text("text", ".*")]
PciClass = Annotated[
    str,
    _class_code(
        "PCI",
        6,
        "six hexadecimal digits (`030000`), the first two or four of them (`03`, `0302`), or a glob of six (`0302*`)",
        beginning="[0-9A-Fa-f]{2}|[0-9A-Fa-f]{4}",
    ),
]
UsbClass = Annotated[str, _class_code("USB", 2, "two hexadecimal digits (`09`), or a glob of both (`0*`)")]
DeviceName = Annotated[
    str, _device_name(f"letters, digits and . _ : -, at most {MAX_ID_CHARS}, without ::", MAX_ID_CHARS)
]
DevicePrefix = Annotated[str, _device_name("letters, digits and . _ : -, at most 50, without ::", 50)]
