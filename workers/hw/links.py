"""Network interfaces: who of the host depends on one, and setting one down and up again."""

import errno
from pathlib import Path

from devd.workers.hw import attributes
from devd.workers.hw.rtnetlink import Route


def users(root: Path, name: str) -> list[str]:
    """Return what of the host would lose the network with this interface, in words. Raises OSError.

    Looked for in this network namespace: bonds and bridges, interfaces stacked upon it, IPv4 routes through it.
    """
    directory = root / "sys/class/net" / name
    master = attributes.target(directory / "master")
    found = [f"{name} is part of {master}"] if master else []
    uppers = [one.removeprefix("upper_") for one in attributes.names(directory) if one.startswith("upper_")]
    found.extend(f"{name} carries {upper}" for upper in uppers if upper != master)
    lines = (attributes.content(root / "proc/net/route") or "").splitlines()[1:]
    routes = sum(line.split("\t", 1)[0].strip() == name for line in lines)
    if routes:
        found.append(f"{name} carries {routes} of the host's routes")
    return found


def down_and_up(name: str, address: str = "") -> None:
    """Set an interface down and up again; up also when it was down before. Needs CAP_NET_ADMIN. Raises OSError.

    ``address`` is the hardware address it must have: sysfs may show another network namespace than the one that this
    process is in, with another interface of that name.
    """
    with Route() as route:
        link = route.link(name)
        if address and link.address != address:
            raise OSError(errno.ENODEV, f"the {name} of this network namespace is {link.address}, not {address}")
        route.set_up(link.index, up=False)
        route.set_up(link.index, up=True)
