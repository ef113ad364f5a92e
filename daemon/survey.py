"""What of this node devd could offer: each driver is asked for all it can find, in a process of its own."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from devd.daemon.config.hardware import plugins
from devd.daemon.look import Looked, look
from devd.ipc.messages import Device
from devd.ipc.patterns import matches

LOOK_WITHIN_S = 10.0
"""For each driver; a bus that hangs costs its own driver alone."""
AT_ONCE = 4

NODES: Mapping[str, str] = {
    "kvm": "/dev/kvm",
    "tun": "/dev/net/tun",
    "fuse": "/dev/fuse",
    "vhost-net": "/dev/vhost-net",
    "vhost-vsock": "/dev/vhost-vsock",
    "serial": "/dev/serial/by-id/*",
    "video": "/dev/v4l/by-id/*-video-index0",
    "render": "/dev/dri/renderD*",
    "accel": "/dev/accel/*",
    "fpga": "/dev/fpga*",
    "tpm": "/dev/tpmrm[0-9]*",
    "hwrng": "/dev/hwrng",
    "watchdog": "/dev/watchdog[0-9]*",
    "i2c": "/dev/i2c-[0-9]*",
    "spi": "/dev/spidev*",
    "gpio": "/dev/gpiochip[0-9]*",
    "pps": "/dev/pps[0-9]*",
    "ptp": "/dev/ptp[0-9]*",
}
"""Device nodes worth offering, by the name of their kind (the kernel's Documentation/admin-guide/devices.txt)."""

EVERYTHING: Mapping[str, Mapping[str, object]] = {"usb": {"vendor": "*"}, "pci": {"vendor": "*"}}
"""What a driver is asked for that takes no empty selector."""


@dataclass(frozen=True, slots=True)
class Surveyed:
    """What one driver found; for driver ``node`` one for each ``kind`` of node that is there."""

    driver: str
    kind: str
    match: Mapping[str, object]
    looked: Looked


def survey() -> list[Surveyed]:
    """Ask all drivers; return their answers, those first that know their devices best."""
    wishes: list[tuple[str, Mapping[str, object]]] = [
        ("nvidia", {}),
        ("nvidia", {"offer": "mig"}),
        *((name, {}) for name in ("infiniband", "nvme", "vfio", *sorted(plugins()))),
        ("node", {"path": list(NODES.values())}),
        *EVERYTHING.items(),
    ]
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        answers = list(pool.map(lambda one: look(one[0], one[1], LOOK_WITHIN_S, usage=True), wishes))
    found: list[Surveyed] = []
    for (driver, match), looked in zip(wishes, answers, strict=True):
        if driver == "node" and not looked.error:
            found += _by_kind(looked)
        else:
            found.append(Surveyed(driver, "mig" if match.get("offer") == "mig" else "", match, looked))
    return found


def _by_kind(looked: Looked) -> list[Surveyed]:
    """Return the nodes that were found, each kind for itself; problems stand with the first."""
    found = []
    problems = looked.problems
    for kind, pattern in NODES.items():
        devices = tuple(one for one in looked.devices if _is(one, pattern))
        if devices:
            some = replace(looked, devices=devices, problems=problems)
            found.append(Surveyed("node", kind, {"path": [pattern]}, some))
            problems = ()
    return found


def _is(device: Device, pattern: str) -> bool:
    return matches(device.nodes[0].path, pattern)
