"""Requests of ioctl(2), by their numbers: how a driver declares those it makes, and those that nobody may make.

A number of asm-generic/ioctl.h holds the direction, the size, a type byte (bits 8 to 15) and a running number. The
kernel looks at 32 bits of the argument, and so does the filter.
"""

import termios
from dataclasses import dataclass

_WORD = 0xFFFFFFFF
_TYPE = 0xFF00


@dataclass(frozen=True, slots=True, order=True)
class Request:
    """The request whose number, masked, equals ``value``: one, or with a narrower mask a class of them."""

    value: int
    mask: int = _WORD


def of_type(letter: str) -> Request:
    """Return the class of all requests with this type byte, for libraries that make more than one can list."""
    return Request(ord(letter) << 8, _TYPE)


ANY = Request(0, 0)
"""Every request but ``REFUSED``: for programs of which nobody knows what they ask."""

_FILE_SYSTEMS = (
    # They are answered by any file or directory, not by device nodes alone, so Landlock does not see them: whoever has
    # CAP_SYS_ADMIN freezes, shrinks or shuts down what lies beneath a library that it may read.
    of_type("X"),  # FIFREEZE, FITHAW, FITRIM, FS_IOC_SHUTDOWN (ext4's, f2fs's as well), FS_IOC_FSSETXATTR, all of XFS
    of_type("f"),  # FS_IOC_SETFLAGS, encryption, verity, all of ext4; of /proc PAGEMAP_SCAN and PROCMAP_QUERY
    of_type("\x94"),  # FICLONE, FICLONERANGE, FIDEDUPERANGE, FS_IOC_SETFSLABEL, all of btrfs
    of_type("\xf5"),  # f2fs
    of_type("\xbc"),  # bcachefs
    of_type("\x97"),  # ceph
    of_type("\xcf"),  # cifs: CIFS_DUMP_KEY hands a mount's keys out
    of_type("\x93"),  # autofs: AUTOFS_IOC_CATATONIC ends all mounting
    Request(ord("n") << 8 | 0x80, _TYPE | 0xF0),  # nilfs2
    Request(0x40087602),  # FS_IOC_SETVERSION
    Request(0x40047602),  # FS_IOC32_SETVERSION
    Request(0x40047211),  # FAT_IOCTL_SET_ATTRIBUTES
    Request(0x40186F04),  # OCFS2_IOC_REFLINK
)
_TERMINALS = (
    Request(termios.TIOCSTI),  # input for somebody else's terminal
    Request(0x541C),  # TIOCLINUX: the same, by selection and paste
    Request(termios.TIOCCONS),  # what is said on the console
    Request(termios.TIOCSETD),  # line disciplines: it loads modules, and they are where terminals have had their holes
)
_SIGNALS = (
    Request(0x8901),  # FIOSETOWN: whom the kernel signals about a descriptor, as F_SETOWN does
    Request(0x8902),  # SIOCSPGRP
)
REFUSED = (*_FILE_SYSTEMS, *_TERMINALS, *_SIGNALS)
"""Whatever is declared or added. Not among them: what only a device node answers, which Landlock keeps to one's own."""
