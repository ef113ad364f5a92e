"""An address to listen on: the key ``metrics.listen``. IP addresses only: no resolver is asked, at start or ever."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Annotated

from devd.daemon.config.rules import custom, refused

MAX_PORT = 65_535
_ALLOWED = "an IP address and a port, as in 127.0.0.1:9400, 0.0.0.0:9400 or [::1]:9400"
_SHAPE = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<v4>[0-9.]+)):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """An IP address and a TCP port."""

    host: str
    port: int

    @property
    def is_v6(self) -> bool:
        """Whether the host is an IPv6 address."""
        return ":" in self.host

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if self.is_v6 else f"{self.host}:{self.port}"


def _check(value: str) -> ListenAddress:
    match = _SHAPE.fullmatch(value)
    if match is None:
        raise refused("not an address to listen on", _ALLOWED)
    port = int(match["port"])
    if not 1 <= port <= MAX_PORT:
        raise refused(f"a port is 1 to {MAX_PORT}", _ALLOWED)
    try:
        host = ipaddress.IPv6Address(match["v6"]) if match["v6"] else ipaddress.IPv4Address(match["v4"])
    except ipaddress.AddressValueError as error:
        raise refused(f"not an IP address: {error}", _ALLOWED) from None
    return ListenAddress(str(host), port)


Listen = Annotated[
    ListenAddress, custom("address", _ALLOWED, _check, {"pattern": r"^(\[[0-9A-Fa-f:.]+\]|[0-9.]+):[0-9]{1,5}$"})
]
