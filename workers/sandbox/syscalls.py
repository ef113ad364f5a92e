"""Which system calls a worker may make, in groups: ``base`` for all, the others for those that declare them.

``base`` is what CPython, the C library and libzmq make once everything is loaded and connected. Note what it lacks:
sockets, connections, new processes, other processes, ioctls of drivers, anything that makes or changes a file.
"""

import fcntl
import mmap
import socket
import termios
from collections.abc import Iterable
from dataclasses import dataclass

from devd.ipc import inotify
from devd.workers.sandbox.requests import REFUSED, Request

CLONE_VM, CLONE_THREAD = 0x100, 0x10000
NEW_NAMESPACES = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET of linux/sched.h."""
_LOW_WORD = 0xFFFFFFFF
_FIONBIO, _FIOCLEX, _FIONCLEX = 0x5421, 0x5451, 0x5450
_FIONREAD, _TCGETS2 = 0x541B, 0x802C542A
_F_OFD_GETLK, _F_OFD_SETLK, _F_OFD_SETLKW = 36, 37, 38
_MAP_GROWSDOWN, _MAP_HUGETLB = 0x100, 0x40000
_NETLINK_ROUTE, _NETLINK_KOBJECT_UEVENT, _NETLINK_GENERIC, _NETLINK_RDMA = 0, 15, 16, 20
_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_GET_NAME, _PR_SET_CHILD_SUBREAPER, _PR_SET_VMA = 1, 15, 16, 36, 0x53564D41


@dataclass(frozen=True, slots=True)
class Argument:
    """A test: argument number ``index``, masked, equals ``value``. All 64 bits count where ``mask`` has them."""

    index: int
    value: int
    mask: int = _LOW_WORD


ALL = (1 << 64) - 1
"""The mask for a pointer or another argument of 64 bits."""
NULL = 0
OWN_PID, OWN_POLICY = -1, -2
"""Stand for the process's own pid and scheduling policy in an ``Argument``."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A call that is allowed when all tests of one alternative hold."""

    call: str
    alternatives: tuple[tuple[Argument, ...], ...]


def only(call: str, index: int, *values: int) -> Rule:
    """Return the rule that one argument has one of these values."""
    return Rule(call, tuple((Argument(index, value),) for value in values))


@dataclass(frozen=True, slots=True)
class Group:
    """Calls allowed whatever their arguments, and rules for those whose arguments matter."""

    calls: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()


_FILES_AND_POLLS = (
    "read write readv writev pread64 pwrite64 preadv pwritev close close_range lseek dup dup2 dup3 pipe pipe2 "
    "open openat openat2 stat fstat lstat newfstatat statx statfs fstatfs access faccessat faccessat2 readlink "
    "readlinkat getdents getdents64 getcwd chdir fchdir umask fsync fdatasync fadvise64 poll ppoll select "
    "pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd2 timerfd_create "
    "timerfd_settime recvfrom"
)
_MEMORY = "mmap munmap mprotect mremap madvise brk mincore msync membarrier"
_SIGNALS = (
    "rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigsuspend rt_sigtimedwait sigaltstack pause "
    "restart_syscall"
)
_TIME = (
    "clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time times getitimer setitimer alarm getrusage"
)
_SELF = (
    "getpid gettid getppid getpgid getpgrp getsid getuid geteuid getgid getegid getresuid getresgid getgroups uname "
    "sysinfo getcpu getrandom capget getpriority getrlimit"
)
_THREADS = (
    "futex futex_waitv set_robust_list get_robust_list set_tid_address rseq arch_prctl sched_yield sched_getaffinity "
    "sched_getscheduler sched_getparam sched_getattr sched_get_priority_max sched_get_priority_min exit exit_group"
)

BASE = Group(
    calls=tuple(f"{_FILES_AND_POLLS} {_MEMORY} {_SIGNALS} {_TIME} {_SELF} {_THREADS}".split()),
    rules=(
        # Not F_SETOWN and F_SETSIG: by those the kernel sends any signal to any process of the same uid.
        only(
            "fcntl",
            1,
            *(fcntl.F_DUPFD, fcntl.F_DUPFD_CLOEXEC, fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL, fcntl.F_SETFL),
        ),
        # On the connections there are; a destination of one's own choice would need the last argument.
        Rule("sendto", ((Argument(4, NULL, ALL),),)),
        only("prctl", 0, _PR_SET_NAME, _PR_GET_NAME, _PR_SET_VMA),
        # libzmq gives each of its threads the policy it has, as it starts; nobody may be given another one.
        only("sched_setscheduler", 1, OWN_POLICY),
        # A thread, which libzmq's reaper may be as late as this. No new process, no namespace.
        Rule("clone", ((Argument(0, CLONE_THREAD | CLONE_VM, CLONE_THREAD | CLONE_VM | NEW_NAMESPACES),),)),
        # What abort() and a thread's cancellation need.
        only("tgkill", 0, OWN_PID),
        # Python sets these on its own descriptors, and asks each file it opens, as others do, whether it is a terminal.
        only("ioctl", 1, _FIONBIO, _FIOCLEX, _FIONCLEX, _FIONREAD, termios.TCGETS, _TCGETS2, termios.TIOCGWINSZ),
        # To ask, for this process alone: no limit is set once the worker has begun.
        Rule("prlimit64", ((Argument(0, 0), Argument(2, NULL, ALL)),)),
    ),
)

_FILES = "mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 truncate ftruncate fallocate utimensat"
_PROCESSES = "execve fork vfork wait4 waitid setpgid setsid kill tgkill pidfd_open socketpair"
_TALK = "bind getsockname getpeername getsockopt setsockopt sendmsg recvmsg sendmmsg recvmmsg sendto shutdown"
_NAMES_AND_MOVES = (
    (inotify.IN_CREATE | inotify.IN_DELETE | inotify.IN_MOVED_FROM | inotify.IN_MOVED_TO)
    | (inotify.IN_DELETE_SELF | inotify.IN_MOVE_SELF)
    | inotify.IN_ONLYDIR
)
_NETLINK = (_NETLINK_ROUTE, _NETLINK_KOBJECT_UEVENT, _NETLINK_GENERIC, _NETLINK_RDMA)
"""What devices' tools speak (netlink(7)). Not packet filters, IPsec, auditing."""
_LOCKS = Group(
    ("flock",),
    (only("fcntl", 1, fcntl.F_GETLK, fcntl.F_SETLK, fcntl.F_SETLKW, _F_OFD_GETLK, _F_OFD_SETLK, _F_OFD_SETLKW),),
)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


GROUPS: dict[str, Group] = {
    "ioctl": Group(("ioctl",)),
    # Landlock does not look at watches. Of a directory that is not its own a worker learns which names come and go, and
    # not which files are opened, read or changed: one that others may read tells so much to everybody.
    "watch": Group(
        _words("inotify_init inotify_init1 inotify_rm_watch"),
        (Rule("inotify_add_watch", ((Argument(2, 0, _LOW_WORD & ~_NAMES_AND_MOVES),),)),),
    ),
    # A lock of flock's takes no more than a file that may be read, and keeps others out of what they lock with it.
    "locks": _LOCKS,
    "files": Group((*_words(_FILES), *_LOCKS.calls), _LOCKS.rules),
    "exec": Group(
        (*_words(_PROCESSES), *_LOCKS.calls),
        (
            *_LOCKS.rules,
            Rule("clone", ((Argument(0, 0, NEW_NAMESPACES),),)),
            only("prctl", 0, _PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER),
            # Of the caller alone: a command of the front's own uid could push the front onto one processor.
            only("sched_setaffinity", 0, 0),
        ),
    ),
    "netlink": Group(
        _words(_TALK),
        (Rule("socket", tuple((Argument(0, socket.AF_NETLINK), Argument(2, one)) for one in _NETLINK)),),
    ),
    "network": Group(_words(f"{_TALK} connect"), (only("socket", 0, socket.AF_INET, socket.AF_INET6),)),
    # Reaches every unix socket whose mode lets the worker's uid through: Landlock does not stop connections to paths.
    "unix": Group(_words(f"{_TALK} connect"), (only("socket", 0, socket.AF_UNIX),)),
    "numa": Group(_words("mbind set_mempolicy get_mempolicy")),
    "lock_memory": Group(_words("mlock munlock")),
    # Nothing more is allowed by it, one thing less refused: see below.
    "shared_memory": Group(),
}
"""What may be declared, and widened by the operator, beside ``base``."""


def asking(requests: Iterable[Request]) -> Rule:
    """Return the rule that ioctl's request is one of these."""
    return Rule("ioctl", tuple((Argument(1, one.value, one.mask),) for one in sorted(requests)))


_REFUSED_ALWAYS = (
    asking(REFUSED),
    # Memory that the limits of processes do not count: a stack that grows, and the huge pages kept for pods.
    Rule("mmap", tuple((Argument(3, one, one),) for one in (_MAP_GROWSDOWN, _MAP_HUGETLB))),
)
_ANONYMOUS_AND_SHARED = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS
_SHARED_MEMORY = Rule("mmap", ((Argument(3, _ANONYMOUS_AND_SHARED, _ANONYMOUS_AND_SHARED),),))
"""Counted as address space alone, of which commands have gigabytes."""


def refused(groups: frozenset[str]) -> tuple[Rule, ...]:
    """Return rules turned round: what is refused although these groups allow the call."""
    return _REFUSED_ALWAYS if "shared_memory" in groups else (*_REFUSED_ALWAYS, _SHARED_MEMORY)
