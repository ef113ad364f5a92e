"""The system call filter as a program: run here by an interpreter of its own, for both architectures."""

import errno
import re
import struct
from pathlib import Path

import pytest

from devd.workers.sandbox import bpf
from devd.workers.sandbox.numbers import LAST_KNOWN, MACHINES, NUMBERS, Machine
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


def _ask(machine: Machine, groups: frozenset[str], call: str | int, *arguments: int) -> int:
    """Return the filter's answer to a call."""
    number = machine.number(call) if isinstance(call, str) else call
    assert number is not None
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("=IIQ6Q", number, machine.audit_arch, 0, *(one & (1 << 64) - 1 for one in padded))
    return _run(bpf.program(machine, groups, PID, POLICY), data)


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
            # Of ioctl's arguments the test below asks; these here are none that matter.
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
        ("ioctl", "ioctl", (1, 0xAE00), ALLOWED),
        *((groups, "ioctl", (1, 1 << 32 | request), REFUSED) for groups in ("ioctl", "exec") for request in STRANGERS),
        ("", "fcntl", (1, 2, 1), ALLOWED),
        ("", "fcntl", (1, 1030, 1), ALLOWED),
        *((groups, "fcntl", (1, command, PID), REFUSED) for groups in ("", "exec") for command in (8, 10, 15, 1024)),
        ("", "sched_setaffinity", (0, 8, 0xDEAD), REFUSED),
        ("exec", "sched_setaffinity", (0, 8, 0xDEAD), ALLOWED),
        ("exec", "sched_setaffinity", (PID, 8, 0xDEAD), REFUSED),
        ("netlink", "socket", (16,), ALLOWED),
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


def test_unknown_numbers_look_like_an_old_kernel(machine: Machine) -> None:
    """A call newer than the table is answered ENOSYS, so that programs fall back to what they did before."""
    assert _ask(machine, NOTHING, LAST_KNOWN + 1) == UNKNOWN
    assert _ask(machine, NOTHING, LAST_KNOWN) == REFUSED


def test_other_architectures_are_killed(machine: Machine) -> None:
    """A call under another architecture's numbers ends the process: its numbers mean something else."""
    other = next(one for one in MACHINES.values() if one is not machine)
    number = machine.number("read")
    data = struct.pack("=IIQ6Q", number, other.audit_arch, 0, *[0] * 6)
    assert _run(bpf.program(machine, NOTHING, PID, POLICY), data) == bpf.KILL_PROCESS
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
