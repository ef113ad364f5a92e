"""Draws docs/configuration.md from the models: ``python -m devd.daemon.config.reference``."""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from devd.daemon.config import placeholders, shape
from devd.daemon.config import reference_text as prose
from devd.daemon.config.document import MAX_BYTES, MAX_DEPTH, MAX_VALUES
from devd.daemon.config.hardware import (
    InfinibandMatch,
    NvidiaMatch,
    NvmeMatch,
    PciMatch,
    UsbMatch,
    VfioMatch,
)
from devd.daemon.config.match import NodeGroup, NodeMatch, SimDevice, SimMatch, Step
from devd.daemon.config.model import Config, Discovery, Flap, Kubelet, Metrics, Mount, Resource, Restart
from devd.daemon.config.probes import NODE_PROBES, DriverProbe, NodeProbe, Probe, SimProbe
from devd.daemon.config.properties import PROPERTIES
from devd.daemon.config.resets import AnyReset, Reset
from devd.daemon.config.rules import duration_text
from devd.daemon.config.sandbox import SandboxAllow
from devd.daemon.config.section import UNKNOWN
from devd.daemon.device_state import LEASE_SLACK_S

HARDWARE_MATCHES: Mapping[str, type[BaseModel]] = {
    "infiniband": InfinibandMatch,
    "nvidia": NvidiaMatch,
    "nvme": NvmeMatch,
    "pci": PciMatch,
    "usb": UsbMatch,
    "vfio": VfioMatch,
}
_HEAD = ("| key | type | default | meaning | allowed |", "|---|---|---|---|---|")


def page() -> str:
    """Return the page's Markdown."""
    size = {"{size}": str(MAX_BYTES // 1024), "{values}": str(MAX_VALUES), "{depth}": str(MAX_DEPTH)}
    slack = {"{slack}": duration_text(LEASE_SLACK_S)}
    kinds = {"{node_kinds}": ", ".join(f"`{kind}`" for kind in NODE_PROBES)}
    parts = [
        _filled(prose.INTRO, size),
        _section("## The file", Config),
        _section("## kubelet", Kubelet),
        _section("## metrics", Metrics),
        _section("## resources", Resource),
        prose.MATCH,
        _section("#### match, driver node", NodeMatch),
        _section("#### match.groups, driver node", NodeGroup),
        prose.NODE_IDS,
        *(_section(f"#### match, driver {name}", model) for name, model in HARDWARE_MATCHES.items()),
        _section("#### match, driver sim", SimMatch),
        _section("#### match.devices, driver sim", SimDevice),
        _filled(prose.PROBE, slack),
        _table(Probe),
        _filled(prose.PROBE_KINDS, kinds),
        *_kinds({**shape.members(NodeProbe), "driver": DriverProbe, "sim": SimProbe}, Probe),
        prose.RESET,
        _table(Reset),
        prose.RESET_KINDS,
        *_kinds(shape.members(AnyReset), Reset),
        prose.SCRIPTS,
        _table(Step),
        prose.TEMPLATES,
        _placeholders(placeholders.CONTAINER_FIELDS),
        prose.PROPERTIES + _properties(),
        prose.COMMAND_TEMPLATES,
        _placeholders(placeholders.COMMAND_FIELDS),
        prose.SYSFS_TEMPLATES,
        _placeholders(placeholders.ATTRIBUTE_FIELDS),
        _section("### mounts", Mount),
        _section("### discovery", Discovery),
        _section("### restart", Restart),
        _section("### flap", Flap),
        _section("### What workers may do", SandboxAllow),
    ]
    return "\n".join(parts)


def _filled(text: str, values: Mapping[str, str]) -> str:
    for mark, value in values.items():
        text = text.replace(mark, value)
    return text


def _section(heading: str, model: type[BaseModel]) -> str:
    return f"{heading}\n\n{_sentence(model)}\n\n{_table(model)}"


def _kinds(kinds: Mapping[str, Any], common: type[BaseModel]) -> Iterable[str]:
    """Yield a paragraph for each kind, and a table of the keys that it alone has."""
    for tag, hint in kinds.items():
        model = shape.model_of(hint)
        if tag == UNKNOWN or model is None:
            continue
        yield f"**`{tag}`**: {_sentence(model)}\n"
        own = {name: field for name, field in model.model_fields.items() if name not in common.model_fields}
        if own:
            yield _rows(own)


def _table(model: type[BaseModel]) -> str:
    return _rows(model.model_fields)


def _rows(fields: Mapping[str, FieldInfo]) -> str:
    lines = [*_HEAD]
    for name, field in fields.items():
        hint = shape.hint_of(field)
        cells = (
            f"`{shape.key_of(name, field)}`",
            _type(hint),
            _default(field),
            field.description or "",
            _allowed(hint),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def _type(hint: Any) -> str:
    rule = shape.rule_of(hint)
    if rule is not None:
        return rule.kind
    if shape.is_list(hint):
        item = shape.rule_of(shape.item_of(hint))
        many = f"list of {item.kind}s" if item is not None else "list of maps"
        return f"{item.kind} or {many}" if item is not None and shape.may_be_single(hint) else many
    return "map"


def _allowed(hint: Any) -> str:
    item = shape.item_of(hint)
    rule = shape.rule_of(hint) or shape.rule_of(item)
    return rule.allowed if rule is not None and rule.allowed != rule.kind else ""


def _default(field: FieldInfo) -> str:
    """Return a default as the file would have it; empty where absent means that there is nothing."""
    default = field.get_default(call_default_factory=True, validated_data={})
    if field.is_required():
        return "needed"
    if default is None or default in ((), {}) or isinstance(default, BaseModel):
        return ""
    if _is_duration(field) and isinstance(default, float):
        return f"`{duration_text(default)}`"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, tuple):
        return f"`[{', '.join(map(str, default))}]`"
    return f"`{default}`" if isinstance(default, int | Path) or default else "empty"


def _is_duration(field: FieldInfo) -> bool:
    """Return whether a field is a duration."""
    rule = shape.rule_of(shape.hint_of(field))
    return rule is not None and rule.kind == "duration"


def _placeholders(fields: Mapping[str, str]) -> str:
    rows = [f"| `{{{name}}}` | {meaning} |" for name, meaning in fields.items()]
    return "\n".join(["| placeholder | stands for |", "|---|---|", *rows, ""])


def _properties() -> str:
    rows = [
        f"| `{driver}` | {', '.join(f'`{{{name}}}`' for name in names if name not in placeholders.CONTAINER_FIELDS)} |"
        for driver, names in PROPERTIES.items()
        if names
    ]
    return "\n".join(["| driver | properties |", "|---|---|", *rows, ""])


def _sentence(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").split())


if __name__ == "__main__":
    sys.stdout.write(page())
