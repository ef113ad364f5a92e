"""Builds the classic BPF program that seccomp(2) runs before each system call. Pure: groups in, bytes out.

The calls whose arguments matter come first. The kernel works out beforehand which calls are allowed whatever their
arguments and lets those through without running the program at all (since Linux 5.11), so its length costs little.
"""

import errno
import struct
from collections.abc import Iterable, Mapping
from functools import lru_cache

from devd.workers.sandbox.numbers import LAST_KNOWN, Machine
from devd.workers.sandbox.requests import Request
from devd.workers.sandbox.syscalls import (
    BASE,
    GROUPS,
    OWN_PID,
    OWN_POLICY,
    Argument,
    Group,
    asking,
    refused,
)

# linux/bpf_common.h and linux/seccomp.h
_LOAD, _AND, _RETURN, _JUMP = 0x20, 0x54, 0x06, 0x05
_JUMP_EQUAL, _JUMP_GREATER, _JUMP_AT_LEAST = 0x15, 0x25, 0x35
ALLOW = 0x7FFF0000
KILL_PROCESS = 0x80000000
REFUSE = 0x00050000 | errno.EPERM
UNKNOWN = 0x00050000 | errno.ENOSYS

_NUMBER_AT, _ARCH_AT, _ARGUMENTS_AT = 0, 4, 16
"""Offsets in struct seccomp_data."""
_WORD = 0xFFFFFFFF
_FARTHEST = 255
"""How many instructions a conditional jump can skip."""
_X32_BIT = 0x40000000
"""Set in the numbers of x86's third ABI, which has the same audit number."""
INSTRUCTION = struct.Struct("=HBBI")


def program(machine: Machine, groups: frozenset[str], requests: frozenset[Request], pid: int, policy: int) -> bytes:
    """Return the program for a worker that declares these groups and requests, with this pid and scheduling policy."""
    head = b"".join(
        (
            _op(_LOAD, _ARCH_AT),
            _op(_JUMP_EQUAL, machine.audit_arch, 1, 0),
            _op(_RETURN, KILL_PROCESS),
            _op(_LOAD, _NUMBER_AT),
            _op(_JUMP_AT_LEAST, _X32_BIT, 0, 1),
            _op(_RETURN, KILL_PROCESS),
        )
    )
    own = {OWN_PID: pid, OWN_POLICY: policy}
    return head + _ruled(machine, _own_rules(groups, requests), own) + _common(machine, groups, requests)


def _chosen(groups: frozenset[str]) -> list[Group]:
    return [BASE, *(GROUPS[name] for name in sorted(groups))]


def _plain_calls(groups: frozenset[str]) -> set[str]:
    return {call for group in _chosen(groups) for call in group.calls}


Rules = dict[str, list[tuple[Argument, ...]]]
"""Call -> alternatives, each a set of tests that must all hold."""


@lru_cache(maxsize=64)
def _rules(groups: frozenset[str], requests: frozenset[Request]) -> Rules:
    """Return the calls whose arguments matter still, once every group has allowed what it allows."""
    plain = _plain_calls(groups)
    rules: Rules = {}
    for rule in (*(rule for group in _chosen(groups) for rule in group.rules), asking(requests)):
        if rule.call not in plain:
            rules.setdefault(rule.call, []).extend(rule.alternatives)
    return rules


@lru_cache(maxsize=64)
def _own_rules(groups: frozenset[str], requests: frozenset[Request]) -> Rules:
    """Return the rules that differ from process to process."""
    return {call: alternatives for call, alternatives in _rules(groups, requests).items() if _is_own(alternatives)}


def _is_own(alternatives: list[tuple[Argument, ...]]) -> bool:
    return any(test.value in (OWN_PID, OWN_POLICY) for tests in alternatives for test in tests)


@lru_cache(maxsize=64)
def _common(machine: Machine, groups: frozenset[str], requests: frozenset[Request]) -> bytes:
    """Return the part that is the same for all processes of these groups and requests."""
    every = _rules(groups, requests)
    rules = {call: alternatives for call, alternatives in every.items() if not _is_own(alternatives)}
    return _barred(machine, groups) + _ruled(machine, rules, {}) + _plain(machine, groups)


def _barred(machine: Machine, groups: frozenset[str]) -> bytes:
    """Return the part for arguments that no group gets; other arguments of these calls go on behind it."""
    code = b""
    for rule in refused(groups):
        number = machine.number(rule.call)
        if number is not None:
            block = b"".join(_alternative(tests, {}, REFUSE) for tests in rule.alternatives) + _op(_LOAD, _NUMBER_AT)
            code += _only_for(number, block)
    return code


def _only_for(number: int, block: bytes) -> bytes:
    """Return a block that is skipped when the call's number is another."""
    length = _count(block)
    if length <= _FARTHEST:
        return _op(_JUMP_EQUAL, number, 0, length) + block
    return _op(_JUMP_EQUAL, number, 1, 0) + _op(_JUMP, length) + block


def _ruled(machine: Machine, rules: Rules, own: Mapping[int, int]) -> bytes:
    """Return the part for calls whose arguments matter; each block is skipped when the number is another."""
    code = b""
    for call, alternatives in rules.items():
        number = machine.number(call)
        if number is None:
            continue
        block = b"".join(_alternative(tests, own) for tests in alternatives) + _op(_RETURN, REFUSE)
        code += _only_for(number, block)
    return code


def _alternative(tests: Iterable[Argument], own: Mapping[int, int], answer: int = ALLOW) -> bytes:
    """Return code that gives the answer when all tests hold, else goes on behind itself."""
    words = [word for test in tests for word in _words_of(test, own)]
    code = _op(_RETURN, answer)
    for offset, mask, value in reversed(words):
        code = _op(_LOAD, offset) + _op(_AND, mask) + _op(_JUMP_EQUAL, value, 0, _count(code)) + code
    return code


def _words_of(test: Argument, own: Mapping[int, int]) -> list[tuple[int, int, int]]:
    """Return (offset, mask, value) of each half of an argument that counts; both machines are little-endian."""
    value = own.get(test.value, test.value)
    at = _ARGUMENTS_AT + 8 * test.index
    halves = [(at, test.mask & _WORD, value & _WORD), (at + 4, test.mask >> 32, value >> 32)]
    return [(offset, mask, wanted & mask) for offset, mask, wanted in halves if mask]


def _plain(machine: Machine, groups: frozenset[str]) -> bytes:
    """Return the part for calls that are allowed whatever their arguments, and the end."""
    numbers = sorted(number for call in _plain_calls(groups) if (number := machine.number(call)) is not None)
    code = b"".join(_range(low, high) for low, high in _ranges(numbers))
    # glibc falls back to clone, whose flags a filter can see, only when clone3 does not exist.
    clone3 = machine.number("clone3") or 0
    return (
        code
        + _op(_JUMP_EQUAL, clone3, 0, 1)
        + _op(_RETURN, UNKNOWN)
        + _op(_JUMP_GREATER, LAST_KNOWN, 0, 1)
        + _op(_RETURN, UNKNOWN)
        + _op(_RETURN, REFUSE)
    )


def _ranges(numbers: list[int]) -> list[tuple[int, int]]:
    """Return runs of consecutive numbers as (first, last)."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


def _range(low: int, high: int) -> bytes:
    if low == high:
        return _op(_JUMP_EQUAL, low, 0, 1) + _op(_RETURN, ALLOW)
    return _op(_JUMP_AT_LEAST, low, 0, 2) + _op(_JUMP_GREATER, high, 1, 0) + _op(_RETURN, ALLOW)


def _op(code: int, k: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return INSTRUCTION.pack(code, if_true, if_false, k)


def _count(code: bytes) -> int:
    return len(code) // INSTRUCTION.size
