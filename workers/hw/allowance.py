"""What a worker's sandbox must let through for one device, as plain data."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Allowance:
    """Absolute paths by what is done with them; a directory stands for everything below it.

    ``ioctl`` are nodes that are opened and get ioctls; ``execute`` are programs and libraries that are run or loaded;
    ``sockets`` are address families; ``why`` says what is lost without it.
    """

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    ioctl: tuple[str, ...] = ()
    execute: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    sockets: tuple[str, ...] = ()
    why: str = ""
