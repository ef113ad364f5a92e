"""The system call filter as a program: run here by an interpreter of its own, for both architectures."""

import errno
import re
import struct
from pathlib import Path

import pytest

from devd.workers.sandbox import bpf
from devd.workers.sandbox.numbers import LAST_KNOWN, MACHINES, NUMBERS, Machine
from devd.workers.sandbox.requests import ANY, Request, of_type
from devd.workers.sandbox.syscalls import BASE, GROUPS, NEW_NAMESPACES

PID, POLICY = 4711, 3
ALLOWED = bpf.ALLOW
REFUSED = 0x00050000 | errno.EPERM
UNKNOWN = 0x00050000 | errno.ENOSYS
NOTHING: frozenset[str] = frozenset()
THREAD = 0x3D0F00
"""The flags glibc gives a new thread."""
STRANGERS = (0x5412, 0x541C, 0x8901, 0x8902)
"""TIOCSTI, TIOCLINUX, FIOSETOWN, SIOCSPGRP: requests that reach for somebody else."""
FILE_SYSTEMS = (
    *(0xC0045877, 0xC0045878, 0xC0185879, 0x8004587D, 0x401C5820),  # FIFREEZE, FITHAW, FITRIM, shutdown, FSSETXATTR
    *(0x40086602, 0x40087602, 0x800C6613, 0x40806685, 0x40086610),  # SETFLAGS, SETVERSION, encryption, verity, resize
    *(0x40049409, 0x4020940D, 0xC0189436, 0x50009403),  # FICLONE, FICLONERANGE, FIDEDUPERANGE, BTRFS_IOC_RESIZE
    *(0x6E8A, 0x40047211, 0x9362, 0x4004F501, 0xC040CF08),  # nilfs2, FAT, autofs, f2fs, cifs
    *(0x541D, 0x5423),  # TIOCCONS, TIOCSETD
)
"""Requests that any file answers, not device nodes alone, and two of terminals."""
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


def _run(code: bytes, data: bytes) -> int:
    """Interpret a program the way the kernel does; fail on what its checker would refuse."""
    program = list(bpf.INSTRUCTION.iter_unpack(code))
    assert 0 < len(program) <= 4096
    accumulator, at = 0, 0
    while True:
        operation, if_true, if_false, value = program[at]
        at += 1
        match operation:
            case 0x05:
                at += value
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, value)
            case 0x54:
                accumulator &= value
            case 0x06:
                return int(value)
            case 0x15:
                at += if_true if accumulator == value else if_false
            case 0x25:
                at += if_true if accumulator > value else if_false
            case 0x35:
                at += if_true if accumulator >= value else if_false
            case _:
                raise AssertionError(f"instruction {operation:#x}")


def _ask(
    machine: Machine,
    groups: frozenset[str],
    call: str | int,
    *arguments: int,
    requests: frozenset[Request] = frozenset(),
) -> int:
    """Return the filter's answer to a call."""
    number = machine.number(call) if isinstance(call, str) else call
    assert number is not None
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("=IIQ6Q", number, machine.audit_arch, 0, *(one & (1 << 64) - 1 for one in padded))
    return _run(bpf.program(machine, groups, requests, PID, POLICY), data)


@pytest.fixture(params=sorted(MACHINES))
def machine(request: pytest.FixtureRequest) -> Machine:
    return MACHINES[request.param]


def test_what_is_declared_is_allowed_and_nothing_else(machine: Machine) -> None:
    """For each group, every call of the table gets the answer its group says, whatever the arguments."""
    for groups in (NOTHING, *(frozenset({name}) for name in GROUPS)):
        chosen = [BASE, *(GROUPS[name] for name in groups)]
        plain = {call for group in chosen for call in group.calls}
        ruled = {rule.call for group in chosen for rule in group.rules}
        for call in NUMBERS:
            if machine.number(call) is None or call in ruled - plain:
                continue
            # Of the arguments of ioctl and mmap the tests below ask; these here are none that matter to mmap.
            expected = ALLOWED if call in plain else UNKNOWN if call == "clone3" else REFUSED
            assert _ask(machine, groups, call, 1, 2, 3, 4, 5, 6) == expected, (call, groups)


@pytest.mark.parametrize(
    ("groups", "call", "arguments", "answer"),
    [
        ("", "clone", (THREAD,), ALLOWED),
        ("", "clone", (17,), REFUSED),
        ("", "clone", (THREAD | 0x10000000,), REFUSED),
        ("exec", "clone", (17,), ALLOWED),
        ("exec", "clone", (17 | 0x10000000,), REFUSED),
        ("exec", "clone", (17 | 0x00020000,), REFUSED),
        ("", "sendto", (5, 1, 1, 0, 0, 0), ALLOWED),
        ("", "sendto", (5, 1, 1, 0, 0xDEAD, 16), REFUSED),
        ("", "sendto", (5, 1, 1, 0, 1 << 40, 16), REFUSED),
        ("", "prctl", (15,), ALLOWED),
        ("", "prctl", (4,), REFUSED),
        ("", "prctl", (1,), REFUSED),
        ("exec", "prctl", (1,), ALLOWED),
        ("exec", "prctl", (22,), REFUSED),
        ("", "tgkill", (PID, 5, 6), ALLOWED),
        ("", "tgkill", (PID + 1, 5, 6), REFUSED),
        ("", "prlimit64", (0, 7, 0, 99), ALLOWED),
        ("", "prlimit64", (0, 7, 99, 0), REFUSED),
        ("", "prlimit64", (1, 7, 0, 99), REFUSED),
        ("", "sched_setscheduler", (9, POLICY), ALLOWED),
        ("", "sched_setscheduler", (9, 5), REFUSED),
        ("", "ioctl", (1, 0x5421), ALLOWED),
        ("", "ioctl", (1, 0x5412), REFUSED),
        ("", "ioctl", (1, 0xAE00), REFUSED),
        ("exec", "ioctl", (1, 0xAE00), REFUSED),
        ("ioctl", "ioctl", (1, 0xAE00), ALLOWED),
        *((groups, "ioctl", (1, 1 << 32 | request), REFUSED) for groups in ("ioctl", "exec") for request in STRANGERS),
        *(("ioctl", "ioctl", (1, request), REFUSED) for request in FILE_SYSTEMS),
        ("", "mmap", (0, 4096, 3, 0x22), ALLOWED),
        ("", "mmap", (0, 4096, 3, 0x01, 5), ALLOWED),
        ("exec", "mmap", (0, 4096, 3, 0x21), REFUSED),
        ("exec", "mmap", (0, 4096, 3, 0x4021), REFUSED),
        ("exec", "mmap", (0, 4096, 3, 1 << 32 | 0x23), REFUSED),
        ("exec shared_memory", "mmap", (0, 4096, 3, 0x21), ALLOWED),
        *(("shared_memory", "mmap", (0, 4096, 3, 0x22 | flag), REFUSED) for flag in (0x100, 0x40000)),
        ("watch", "inotify_add_watch", (5, 0xDEAD, 0x1000FC0), ALLOWED),
        *(("watch", "inotify_add_watch", (5, 0xDEAD, 0x1000FC0 | mask), REFUSED) for mask in (0x1, 0x2, 0x4, 0x20)),
        ("", "inotify_add_watch", (5, 0xDEAD, 0x100), REFUSED),
        ("", "flock", (5, 2), REFUSED),
        *(("", "fcntl", (5, command, 0xDEAD), REFUSED) for command in (5, 6, 7, 36, 37, 38)),
        *((groups, "fcntl", (5, 6, 0xDEAD), ALLOWED) for groups in ("locks", "exec", "files")),
        *((groups, "flock", (5, 2), ALLOWED) for groups in ("locks", "exec", "files")),
        ("", "fcntl", (1, 2, 1), ALLOWED),
        ("", "fcntl", (1, 1030, 1), ALLOWED),
        *((groups, "fcntl", (1, command, PID), REFUSED) for groups in ("", "exec") for command in (8, 10, 15, 1024)),
        ("", "sched_setaffinity", (0, 8, 0xDEAD), REFUSED),
        ("exec", "sched_setaffinity", (0, 8, 0xDEAD), ALLOWED),
        ("exec", "sched_setaffinity", (PID, 8, 0xDEAD), REFUSED),
        *(("netlink", "socket", (16, 3, protocol), ALLOWED) for protocol in (0, 15, 16, 20)),
        *(("netlink", "socket", (16, 3, protocol), REFUSED) for protocol in (6, 9, 12, 18)),
        ("netlink", "socket", (1,), REFUSED),
        ("network", "socket", (2,), ALLOWED),
        ("network", "socket", (17,), REFUSED),
        ("unix", "socket", (1,), ALLOWED),
    ],
)
def test_arguments_that_matter_are_looked_at(
    machine: Machine, groups: str, call: str, arguments: tuple[int, ...], answer: int
) -> None:
    """Calls that are allowed for some arguments alone are refused for the others."""
    assert _ask(machine, frozenset(groups.split()), call, *arguments) == answer


NVME, VFIO, USB = 0xC0484E41, 0x3B67, 0xC0185500


@pytest.mark.parametrize(
    ("requests", "allowed", "refused"),
    [
        ((Request(NVME),), (NVME, 1 << 32 | NVME), (0x4E45, 0xC0484E43, NVME ^ 1 << 31, 0x1277, *FILE_SYSTEMS)),
        ((Request(VFIO), Request(USB)), (VFIO, USB), (NVME, 0x3B68, 0x5514, 0xC0105500)),
        ((of_type("F"),), (0xC020462A, 0x4600, 0xC00846D3), (0xC0204700, 0x5546, *FILE_SYSTEMS)),
        ((ANY,), (NVME, VFIO, 0x1277, 0x5401), (*FILE_SYSTEMS, *STRANGERS)),
        ((Request(0xC0045877), of_type("X"), of_type("T")), (0x5402,), (*FILE_SYSTEMS, *STRANGERS)),
        (tuple(Request(0x4E00 + number) for number in range(200)), (0x4E00, 0x4EC7), (0x4EC8, 0x4DFF)),
    ],
    ids=["one", "two", "type", "any", "refused-always", "more-than-a-jump-skips"],
)
def test_requests_are_those_declared(
    machine: Machine, requests: tuple[Request, ...], allowed: tuple[int, ...], refused: tuple[int, ...]
) -> None:
    """Of ioctl's requests those pass that were declared, by number or by type, and of those none that nobody gets."""
    for groups in (NOTHING, frozenset({"exec"})):
        for request in allowed:
            assert _ask(machine, groups, "ioctl", 3, request, requests=frozenset(requests)) == ALLOWED, hex(request)
        for request in refused:
            assert _ask(machine, groups, "ioctl", 3, request, requests=frozenset(requests)) == REFUSED, hex(request)
        assert _ask(machine, groups, "ioctl", 3, 0x5421, requests=frozenset(requests)) == ALLOWED
        assert _ask(machine, groups, "read", 3, requests=frozenset(requests)) == ALLOWED


def test_unknown_numbers_look_like_an_old_kernel(machine: Machine) -> None:
    """A call newer than the table is answered ENOSYS, so that programs fall back to what they did before."""
    assert _ask(machine, NOTHING, LAST_KNOWN + 1) == UNKNOWN
    assert _ask(machine, NOTHING, LAST_KNOWN) == REFUSED


def test_other_architectures_are_killed(machine: Machine) -> None:
    """A call under another architecture's numbers ends the process: its numbers mean something else."""
    other = next(one for one in MACHINES.values() if one is not machine)
    number = machine.number("read")
    data = struct.pack("=IIQ6Q", number, other.audit_arch, 0, *[0] * 6)
    assert _run(bpf.program(machine, NOTHING, frozenset(), PID, POLICY), data) == bpf.KILL_PROCESS
    assert _ask(machine, NOTHING, 0x40000000) == bpf.KILL_PROCESS


def test_no_group_allows_a_namespace_or_another_process() -> None:
    """Nothing that can be declared holds calls that lead out of the sandbox."""
    never = {"mount", "ptrace", "setns", "bpf", "keyctl", "io_uring_setup", "pidfd_getfd", "process_vm_readv"}
    never |= {"init_module", "execveat", "unshare", "clone3", "clone", "mknod", "chmod", "setuid", "seccomp", "capset"}
    allowed = {call for group in (BASE, *GROUPS.values()) for call in group.calls}
    assert not allowed & never
    assert NEW_NAMESPACES & 0x10000000


@pytest.mark.parametrize("name", sorted(MACHINES))
def test_numbers_are_the_kernels(name: str) -> None:
    """The table holds the numbers of the kernel's own headers."""
    if not HEADERS[name].exists():
        pytest.skip(f"no kernel headers for {name} here")
    found = dict(re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)\s*$", HEADERS[name].read_text(), re.MULTILINE))
    found.setdefault("newfstatat", found.get("fstatat", ""))
    for call in NUMBERS:
        assert str(MACHINES[name].number(call) if MACHINES[name].number(call) is not None else "") == found.get(
            call, ""
        )
