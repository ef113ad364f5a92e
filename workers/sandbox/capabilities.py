"""Capabilities: all given up but the declared few, in all five sets."""

import ctypes
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from devd.workers import linux
from devd.workers.sandbox import kernel

_NAMES = (
    "chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable "
    "net_bind_service net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot "
    "sys_ptrace sys_pacct sys_admin sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease "
    "audit_write audit_control setfcap mac_override mac_admin syslog wake_alarm block_suspend audit_read "
    "perfmon bpf checkpoint_restore"
)
CAPABILITIES: dict[str, int] = {name: number for number, name in enumerate(_NAMES.split())}
"""Name without ``CAP_`` -> number of linux/capability.h."""

_VERSION_3 = 0x20080522
_Header, _Data = ctypes.c_uint32 * 2, ctypes.c_uint32 * 6
"""Made here: a type that is made anew costs more than the call."""
_PR_CAPBSET_DROP = 24
_PR_CAP_AMBIENT, _AMBIENT_RAISE, _AMBIENT_CLEAR_ALL = 47, 2, 4
_WORD = 0xFFFFFFFF


def prepare() -> None:
    """Do what need not be done again in each process."""
    _last()


def mask_of(names: Iterable[str]) -> int:
    """Return the capabilities' bits."""
    return sum(1 << CAPABILITIES[name] for name in set(names))


def held() -> int:
    """Return the permitted set of the calling thread."""
    return _get()[1]


def use(mask: int) -> None:
    """Make the permitted capabilities of a mask effective in this thread, the others not. Raises OSError."""
    _effective, permitted, inheritable = _get()
    _set(mask & permitted, permitted, inheritable)


def drop_bounding(kept: int) -> None:
    """Take all but ``kept`` out of the bounding set: no file's capabilities can give them back. Raises OSError."""
    for number in range(_last() + 1):
        if not kept >> number & 1:
            linux.prctl(_PR_CAPBSET_DROP, number)


def keep_only(kept: int, *, for_commands: bool) -> None:
    """Hold ``kept`` (as far as it is held now) and nothing else; ``for_commands`` as well if asked. Raises OSError."""
    left = held() & kept
    linux.prctl_pair(_PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL, 0)
    _set(left, left, left if for_commands else 0)
    if for_commands:
        for number in range(_last() + 1):
            if left >> number & 1:
                linux.prctl_pair(_PR_CAP_AMBIENT, _AMBIENT_RAISE, number)


@cache
def _last() -> int:
    """Return the highest capability the kernel knows; asked once, before the file is out of reach."""
    try:
        return int(Path("/proc/sys/kernel/cap_last_cap").read_bytes())
    except OSError:
        return max(CAPABILITIES.values())


def _get() -> tuple[int, int, int]:
    """Return (effective, permitted, inheritable) of this thread."""
    data = _Data()
    kernel.call("capget", _Header(_VERSION_3, 0), data)
    low_e, low_p, low_i, high_e, high_p, high_i = data
    return high_e << 32 | low_e, high_p << 32 | low_p, high_i << 32 | low_i


def _set(effective: int, permitted: int, inheritable: int) -> None:
    sets = (effective, permitted, inheritable)
    data = _Data(*(one & _WORD for one in sets), *(one >> 32 for one in sets))
    kernel.call("capset", _Header(_VERSION_3, 0), data)
