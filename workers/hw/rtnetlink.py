"""Network interfaces by rtnetlink(7): what one is, setting it up and down, and word of those that change.

Netlink alone: an internet socket, which the older calls of netdevice(7) take, would let a worker talk to the network.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

IFF_UP = 0x1
NAME_BYTES = 15
"""IFNAMSIZ less its NUL."""
LINK_GROUP = 0x1
"""RTMGRP_LINK of linux/rtnetlink.h: interfaces that come, go or change."""
ANSWER_S = 10.0
"""Most that one answer is waited for; the kernel gives it before the request's own call returns."""
_BUFFER_BYTES = 64 * 1024
"""An interface's answer has some 2 KiB."""
_MAX_BATCH = 64
"""Messages taken at once, so that a storm holds nobody up: what is left calls for the next look."""
_ERROR, _NEW_LINK, _GET_LINK, _SET_LINK = 2, 16, 18, 19
"""NLMSG_ERROR, and RTM_NEWLINK, RTM_GETLINK and RTM_SETLINK: the last makes no interface, whatever its name."""
_REQUEST, _ACK = 0x1, 0x4
_ADDRESS, _NAME = 1, 3
"""IFLA_ADDRESS and IFLA_IFNAME of linux/if_link.h."""
_HEADER = struct.Struct("=IHHII")
"""struct nlmsghdr: length, type, flags, sequence, port."""
_LINK = struct.Struct("=BxHiII")
"""struct ifinfomsg: family, type, index, flags, which flags change."""
_ATTRIBUTE = struct.Struct("=HH")
_NUMBER = struct.Struct("=i")
_TYPE_BITS = 0x3FFF


@dataclass(frozen=True, slots=True)
class Link:
    """One interface. ``address`` is its hardware address as sysfs writes it ("02:00:5e:10:00:01"), "" without one."""

    index: int
    name: str
    address: str
    flags: int


class Route:
    """One socket for questions and orders, each answered before the next."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.settimeout(ANSWER_S)
        self._sequence = 0

    def link(self, name: str) -> Link:
        """Return the interface of this name. Raises OSError: ENODEV when this network namespace has none."""
        encoded = name.encode()
        if not 0 < len(encoded) <= NAME_BYTES:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), name)
        text = encoded + b"\0"
        attribute = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(text), _NAME) + text
        found = self._ask(_GET_LINK, 0, _LINK.pack(0, 0, 0, 0, 0) + _padded(attribute))
        if found is None:
            raise OSError(errno.EPROTO, "an answer without an interface", name)
        return found

    def set_up(self, index: int, *, up: bool) -> None:
        """Set an interface up or down. Needs CAP_NET_ADMIN. Raises OSError."""
        self._ask(_SET_LINK, _ACK, _LINK.pack(0, 0, index, IFF_UP if up else 0, IFF_UP))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _ask(self, kind: int, flags: int, body: bytes) -> Link | None:
        """Send one request and return what it is answered with. Raises OSError, the kernel's refusal among them."""
        self._sequence += 1
        self._socket.sendto(
            _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | flags, self._sequence, 0) + body, (0, 0)
        )
        while True:  # each turn takes one message or times out
            for found, sequence, content in _messages(self._socket.recv(_BUFFER_BYTES)):
                if sequence != self._sequence:
                    continue  # of a request whose answer came too late
                if found == _ERROR:
                    _raise_refusal(content)
                    return None
                if found == _NEW_LINK:
                    return _link(content)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class LinkChanges:
    """Word of interfaces that change, as it happens: ``fd`` is readable while some waits. Needs no capability."""

    def __init__(self) -> None:
        """Begin to listen. Raises OSError."""
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        try:
            self._socket.bind((0, LINK_GROUP))
        except OSError:
            self._socket.close()
            raise

    @property
    def fd(self) -> int:
        """Return the descriptor to wait for."""
        return self._socket.fileno()

    def drain(self) -> frozenset[str] | None:
        """Return the names of the interfaces that changed; None when some were lost: any may have.

        Takes a bounded number of messages; what is left keeps the descriptor readable. Raises OSError.
        """
        names: set[str] = set()
        lost = False
        for _turn in range(_MAX_BATCH):
            try:
                data, sender = self._socket.recvfrom(_BUFFER_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                lost = True
                continue
            if sender[0] == 0:  # the kernel
                names.update(_link(content).name for found, _sequence, content in _messages(data) if found != _ERROR)
        return None if lost else frozenset(names)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield type, sequence and content of each message; what is cut off is left out."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _flags, sequence, _port = _HEADER.unpack_from(data, at)
        if length < _HEADER.size or at + length > len(data):
            return
        yield kind, sequence, data[at + _HEADER.size : at + length]
        at += _aligned(length)


def _link(content: bytes) -> Link:
    """Return the interface that a message tells of."""
    if len(content) < _LINK.size:
        return Link(0, "", "", 0)
    _family, _kind, index, flags, _change = _LINK.unpack_from(content)
    found = dict(_attributes(content[_LINK.size :]))
    name = found.get(_NAME, b"").rstrip(b"\0").decode("utf-8", "replace")
    return Link(index, name, found.get(_ADDRESS, b"").hex(":"), flags)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _TYPE_BITS, data[at + _ATTRIBUTE.size : at + length]
        at += _aligned(length)


def _raise_refusal(content: bytes) -> None:
    """Raise what an error message says; number 0 is the acknowledgement."""
    number = -_NUMBER.unpack_from(content)[0] if len(content) >= _NUMBER.size else errno.EPROTO
    if number:
        raise OSError(number, os.strerror(number))


def _padded(attribute: bytes) -> bytes:
    return attribute + bytes(_aligned(len(attribute)) - len(attribute))


def _aligned(length: int) -> int:
    """Return a length as netlink rounds it up, to four bytes."""
    return (length + 3) & ~3
