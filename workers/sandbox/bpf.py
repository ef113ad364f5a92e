"""Builds the classic BPF program that seccomp(2) runs before each system call. Pure: groups in, bytes out.

A tree of comparisons finds the call's number; at its leaf stands the answer, or a block that looks at the arguments.
The kernel works out beforehand which calls are allowed whatever their arguments and lets those through without running
the program at all (since Linux 5.11): it asks for each number there is as the filter is loaded, and that takes the
longer the more comparisons there are on the way.
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
_JUMP_EQUAL, _JUMP_AT_LEAST = 0x15, 0x35
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
_VALUE, _VALUE_AT = struct.Struct("=I"), 4
_STANDS_FOR_PID, _STANDS_FOR_POLICY, _STANDS_FOR_LENGTH = 0xFFFF0001, 0xFFFF0002, 0xFFFF0003
"""Values in the common program where each process has its own, or where it goes on at the end; no argument has them."""

Rules = dict[str, list[tuple[Argument, ...]]]
"""Call -> alternatives, each a set of tests that must all hold."""


def program(machine: Machine, groups: frozenset[str], requests: frozenset[Request], pid: int, policy: int) -> bytes:
    """Return the program for a worker that declares these groups and requests, with this pid and scheduling policy.

    What depends on the groups alone is made once: requests, of which each device may have others, stand at the end.
    """
    code, places = _common(machine, groups)
    own = bytearray(code)
    for place, stands_for in places:
        _VALUE.pack_into(own, place, pid if stands_for == _STANDS_FOR_PID else policy)
    if "ioctl" in groups:
        return bytes(own) + _op(_RETURN, ALLOW)
    return bytes(own) + _alternatives(asking(requests).alternatives, ALLOW) + _op(_RETURN, REFUSE)


@lru_cache(maxsize=64)
def _common(machine: Machine, groups: frozenset[str]) -> tuple[bytes, tuple[tuple[int, int], ...]]:
    """Return the program of these groups up to the requests that are allowed, and where each process has its own."""
    code = b"".join(
        (
            _op(_LOAD, _ARCH_AT),
            _op(_JUMP_EQUAL, machine.audit_arch, 1, 0),
            _op(_RETURN, KILL_PROCESS),
            _op(_LOAD, _NUMBER_AT),
            _op(_JUMP_AT_LEAST, _X32_BIT, 0, 1),
            _op(_RETURN, KILL_PROCESS),
            _tree(_intervals(_answers(machine, groups))),
        )
    )
    length = _count(code)
    finished = bytearray(code)
    places = []
    for at, (_code, _if_true, _if_false, value) in enumerate(INSTRUCTION.iter_unpack(code)):
        place = at * INSTRUCTION.size + _VALUE_AT
        if value == _STANDS_FOR_LENGTH:
            _VALUE.pack_into(finished, place, length - at - 1)
        elif value in (_STANDS_FOR_PID, _STANDS_FOR_POLICY):
            places.append((place, value))
    requests = _barred(groups)["ioctl"], _rules(groups)["ioctl"]
    return bytes(finished) + _alternatives(requests[0], REFUSE) + _alternatives(requests[1], ALLOW), tuple(places)


def _answers(machine: Machine, groups: frozenset[str]) -> dict[int, bytes]:
    """Return the code that answers each call by its number; all other calls are refused."""
    plain, rules, barred = _plain_calls(groups), _rules(groups), _barred(groups)
    answers: dict[int, bytes] = {}
    for call in (*plain, *rules):
        number = machine.number(call)
        if number is not None:
            end = _op(_RETURN, ALLOW) if call in plain else _alternatives(rules[call], ALLOW) + _op(_RETURN, REFUSE)
            answers[number] = _alternatives(barred.get(call, []), REFUSE) + end
    answers[machine.number("ioctl") or 0] = _op(_JUMP, _STANDS_FOR_LENGTH)
    # glibc falls back to clone, whose flags a filter can see, only when clone3 does not exist.
    answers[machine.number("clone3") or 0] = _op(_RETURN, UNKNOWN)
    return answers


def _chosen(groups: frozenset[str]) -> list[Group]:
    return [BASE, *(GROUPS[name] for name in sorted(groups))]


def _plain_calls(groups: frozenset[str]) -> set[str]:
    """Return the calls that are allowed, of which no more than what is barred is looked at."""
    return {call for group in _chosen(groups) for call in group.calls}


def _rules(groups: frozenset[str]) -> Rules:
    """Return the calls whose arguments matter still, once every group has allowed what it allows."""
    plain = _plain_calls(groups) - {"ioctl"}
    rules: Rules = {}
    for rule in (rule for group in _chosen(groups) for rule in group.rules):
        if rule.call not in plain:
            rules.setdefault(rule.call, []).extend(rule.alternatives)
    return rules


def _barred(groups: frozenset[str]) -> Rules:
    """Return the arguments that no group gets."""
    rules: Rules = {}
    for rule in refused(groups):
        rules.setdefault(rule.call, []).extend(rule.alternatives)
    return rules


def _alternatives(alternatives: Iterable[tuple[Argument, ...]], answer: int) -> bytes:
    return b"".join(_alternative(tests, answer) for tests in alternatives)


def _alternative(tests: Iterable[Argument], answer: int) -> bytes:
    """Return code that gives the answer when all tests hold, else goes on behind itself."""
    words = [word for test in tests for word in _words_of(test)]
    code = _op(_RETURN, answer)
    for offset, mask, value in reversed(words):
        code = _op(_LOAD, offset) + _op(_AND, mask) + _op(_JUMP_EQUAL, value, 0, _count(code)) + code
    return code


def _words_of(test: Argument) -> list[tuple[int, int, int]]:
    """Return (offset, mask, value) of each half of an argument that counts; both machines are little-endian."""
    value = {OWN_PID: _STANDS_FOR_PID, OWN_POLICY: _STANDS_FOR_POLICY}.get(test.value, test.value)
    at = _ARGUMENTS_AT + 8 * test.index
    halves = [(at, test.mask & _WORD, value & _WORD), (at + 4, test.mask >> 32, value >> 32)]
    return [(offset, mask, wanted & mask) for offset, mask, wanted in halves if mask]


def _intervals(answers: Mapping[int, bytes]) -> list[tuple[int, bytes]]:
    """Return (first number, code), in order: each holds up to the next one's first."""
    runs = [(0, _op(_RETURN, REFUSE))]
    for number in range(LAST_KNOWN + 1):
        code = answers.get(number, _op(_RETURN, REFUSE))
        if code != runs[-1][1]:
            runs.append((number, code))
    found = [*runs, (LAST_KNOWN + 1, _op(_RETURN, UNKNOWN))]
    return found[1:] if found[1][0] == 0 else found


def _tree(intervals: list[tuple[int, bytes]]) -> bytes:
    """Return code that goes to a number's interval by halves. Every interval's code returns."""
    if len(intervals) == 1:
        return intervals[0][1]
    middle = len(intervals) // 2
    below, above = _tree(intervals[:middle]), _tree(intervals[middle:])
    first, length = intervals[middle][0], _count(below)
    if length <= _FARTHEST:
        return _op(_JUMP_AT_LEAST, first, length, 0) + below + above
    return _op(_JUMP_AT_LEAST, first, 0, 1) + _op(_JUMP, length) + below + above


def _op(code: int, k: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return INSTRUCTION.pack(code, if_true, if_false, k)


def _count(code: bytes) -> int:
    return len(code) // INSTRUCTION.size
