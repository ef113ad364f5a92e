"""A configuration to paste, made of what a survey found. Pure: answers in, YAML out.

What is in use is left out, or stands as a comment with the reason: nobody shall lose the disk he boots from by a paste.
"""

import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import yaml

from devd.daemon.claims import Claims
from devd.daemon.cli.tree import printable
from devd.daemon.survey import Surveyed
from devd.ipc.messages import Device

DOMAIN = "devd.io"
MAX_NAME_CHARS = 63
"""Of a resource's name after its domain (Kubernetes' qualified names)."""
WIDTH = 110
NAMED = 4
"""So many devices of a resource are named in its comment."""

HEAD = """\
# What devd could offer on this node, found by `devd discover --suggest`. Keep what you want, name it as you like
# (a domain of your own before the slash), and try it: devd check FILE, devd discover --config FILE.
# Resources that are commented out are in use by the node itself, or of no use to a container as they are."""


NOTHING = """\
# Nothing of this node can be offered without a thought, so here is a device to try devd with.
resources:
  - name: devd.io/simulated
    driver: sim
    match: {count: 1}"""


@dataclass(frozen=True, slots=True)
class Advice:
    """What is known of a kind of node: how to probe it, how many may share it, and why one should hesitate."""

    lines: tuple[str, ...] = ()
    shared: bool = False
    caution: str = ""


_OPENS = "probe: {kind: open, mode: rw, period: 10s, timeout: 2s}"
_SHARED = "replicas: 100"
NODE_ADVICE: Mapping[str, Advice] = {
    "kvm": Advice(
        (_SHARED, "# KVM_GET_API_VERSION is 12 for ever.", "probe: {kind: ioctl, request: 0xAE00, returns: 12}"),
        shared=True,
    ),
    "tun": Advice((_SHARED, _OPENS), shared=True),
    "fuse": Advice((_SHARED, _OPENS), shared=True),
    "vhost-net": Advice((_SHARED,), shared=True),
    "vhost-vsock": Advice((_SHARED,), shared=True),
    "hwrng": Advice((_SHARED,), shared=True),
    "serial": Advice(
        ("# Never `open`: it raises DTR, which resets many boards.", 'container_path: "/dev/serial{index}"')
    ),
    "watchdog": Advice(caution="who opens it starts a countdown to the node's reset"),
    "i2c": Advice(caution="other devices of the node may be on the same bus"),
    "gpio": Advice(caution="the node itself may hang on some of its lines"),
}


@dataclass(slots=True)
class Suggestion:
    """One resource. ``why_not`` is why it is commented out; ``note`` a word on what was left out."""

    name: str
    driver: str
    match: Mapping[str, object]
    devices: list[Device]
    lines: tuple[str, ...] = ()
    why_not: str = ""
    note: str = ""


def suggestion(found: Iterable[Surveyed]) -> str:
    """Return the whole configuration as YAML with comments."""
    plan = _Plan()
    for one in found:
        for made in _of(one):
            plan.add(made)
    active = [one for one in plan.made if not one.why_not]
    parts = [HEAD, "resources:" if active else NOTHING]
    parts += ["\n".join(_block(one)) for one in (*active, *(one for one in plan.made if one.why_not))]
    return "\n\n".join(parts).replace("resources:\n\n", "resources:\n", 1)


@dataclass(slots=True)
class _Plan:
    """Keeps names apart, and each device with the first who finds it."""

    made: list[Suggestion] = field(default_factory=list)
    _claims: Claims = field(default_factory=Claims)
    _names: set[str] = field(default_factory=set)
    _functions: set[str] = field(default_factory=set)

    def add(self, one: Suggestion) -> None:
        """Take a resource in, unless others offer its devices already."""
        own = [device.properties.get("address", "") for device in one.devices]
        if one.driver == "pci" and self._functions.issuperset(own):
            return
        if not one.why_not:
            if any(self._claims.claim(one.name, device) is not None for device in one.devices):
                return
            self._functions.update(address for address in own if address)
        one.name = self._free(one.name)
        self.made.append(one)

    def _free(self, name: str) -> str:
        free, number = name, 1
        while free in self._names:
            number += 1
            free = f"{name[: MAX_NAME_CHARS - 4]}-{number}"
        self._names.add(free)
        return free


# ---- what a driver's devices are made of ------------------------------------------------------------------------

KEYS: Mapping[str, tuple[str, ...]] = {
    "nvidia": ("model",),
    "infiniband": ("hca_type", "link_layer"),
    "nvme": ("model",),
    "vfio": ("vendor", "device"),
    "usb": ("vendor", "product"),
    "pci": ("vendor", "device"),
}
"""Properties that make a model: devices that agree in them are one resource."""
NAMES: Mapping[str, Callable[[Mapping[str, str]], str]] = {
    "nvidia": lambda facts: facts.get("model", "gpu"),
    "infiniband": lambda facts: f"rdma-{facts.get('hca_type', '')}-{facts.get('link_layer', '')}",
    "nvme": lambda facts: f"nvme-{facts.get('model', '')}",
    "vfio": lambda facts: f"vfio-{facts.get('vendor', '')}-{facts.get('device', '')}",
    "usb": lambda facts: f"usb-{facts.get('product_name') or facts.get('product', '')}",
    "pci": lambda facts: f"pci-{facts.get('vendor', '')}-{facts.get('device', '')}",
}


NODES_OWN: Mapping[str, str] = {
    "03": "an input device (interface class 03: keyboards, mice, and what else speaks as they do)",
    "09": "a hub: what is plugged into it would go along",
    "e0": "a radio (interface class e0), which the node's own Bluetooth or network may use",
}
"""USB classes (usb.org, defined class codes) of devices that the node itself works with, and the reason in words."""


def _of(one: Surveyed) -> list[Suggestion]:
    if one.driver == "node":
        return [_of_nodes(one)]
    if one.driver not in KEYS:
        return [_of_plugin(one)] if one.looked.devices else []
    models: dict[tuple[str, ...], list[Device]] = {}
    for device in one.looked.devices:
        models.setdefault(tuple(device.properties.get(key, "") for key in KEYS[one.driver]), []).append(device)
    return [_of_model(one, values, devices) for values, devices in sorted(models.items())]


def _of_nodes(one: Surveyed) -> Suggestion:
    advice = NODE_ADVICE.get(one.kind, Advice())
    usage = {} if advice.shared else one.looked.usage
    free = [device for device in one.looked.devices if device.id not in usage]
    match = dict(one.match)
    if len(free) < len(one.looked.devices) and free:
        match["exclude"] = [device.nodes[0].path for device in one.looked.devices if device.id in usage]
    made = Suggestion(f"{DOMAIN}/{one.kind}", "node", match, free or list(one.looked.devices), advice.lines)
    made.why_not = advice.caution or ("" if free else _in_use(one))
    made.note = _in_use(one) if usage and free else ""
    return made


def _of_plugin(one: Surveyed) -> Suggestion:
    made = Suggestion(f"{DOMAIN}/{_slug(one.driver)}", one.driver, {}, list(one.looked.devices))
    made.why_not = _in_use(one) if one.looked.usage else ""
    return made


def _of_model(one: Surveyed, values: tuple[str, ...], devices: list[Device]) -> Suggestion:
    match: dict[str, object] = {"offer": one.match["offer"]} if "offer" in one.match else {}
    match |= {key: _literally(value) for key, value in zip(KEYS[one.driver], values, strict=True) if value}
    kind = f"-{one.kind}" if one.kind else ""
    name = f"{DOMAIN}/{_slug(NAMES[one.driver](devices[0].properties) + kind)}"
    used = [device for device in devices if device.id in one.looked.usage]
    free = [device for device in devices if device not in used]
    serials = [device.properties.get("serial", "") for device in used]
    made = Suggestion(name, one.driver, match, free)
    if used and free and all(serials):
        match["exclude"] = {"serial": [_literally(serial) for serial in serials]}
        made.note = _in_use(one, used)
    elif used:
        made.devices, made.why_not = devices, _in_use(one, used)
    if one.driver == "pci":
        made.why_not = _bare(devices)
    elif one.driver == "usb":
        made.why_not = made.why_not or _for_the_node(devices)
    return made


def _bare(devices: list[Device]) -> str:
    """Say why a container has nothing of a bare PCI function."""
    drivers = sorted({device.properties.get("driver") or "no driver" for device in devices})
    return (
        f"bound to {', '.join(drivers)}; a container gets nothing of a bare function: give it the driver's nodes "
        "(match.nodes), or bind it to vfio-pci and offer it by driver vfio"
    )


def _for_the_node(devices: list[Device]) -> str:
    """Say why a USB device is rather the node's own than a container's, or nothing."""
    facts = [device.properties for device in devices]
    classes = {one for each in facts for one in (each.get("class", ""), *each.get("interfaces", "").split(","))}
    return next((why for code, why in NODES_OWN.items() if code in classes), "")


def _in_use(one: Surveyed, devices: Iterable[Device] | None = None) -> str:
    names = [device.id for device in (one.looked.devices if devices is None else devices)]
    return "in use: " + "; ".join(f"{name}: {one.looked.usage[name]}" for name in names if name in one.looked.usage)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[: MAX_NAME_CHARS - len("-99")].strip("-") or "device"


def _literally(value: str) -> str:
    """Return a glob that fits this value alone."""
    return re.sub(r"([*?[])", r"[\1]", value)


# ---- text -------------------------------------------------------------------------------------------------------


def _block(one: Suggestion) -> list[str]:
    names = [device.id for device in one.devices]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    lines = _comment(f"{len(names)} now: {', '.join(names[:NAMED])}{more}")
    lines += _comment(f"left out: {one.note}") if one.note else []
    lines += _comment(f"commented out: {one.why_not}") if one.why_not else []
    body = [f"- name: {one.name}", f"  driver: {one.driver}"]
    body += [f"  match: {_flow(one.match)}"] if one.match else []
    body += [f"  {line}" for line in one.lines]
    if one.why_not:
        body = [f"# {line}" for line in body]
    return [f"  {line}" for line in (*lines, *body)]


def _comment(text: str) -> list[str]:
    # Names of devices and programs stand in it: a character that YAML breaks a line at would end the comment.
    return textwrap.wrap(printable(text), WIDTH, initial_indent="# ", subsequent_indent="#   ")


def _flow(value: Mapping[str, object]) -> str:
    text: str = yaml.safe_dump(dict(value), default_flow_style=True, width=10_000, sort_keys=False)
    return text.strip()
