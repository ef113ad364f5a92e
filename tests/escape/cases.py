"""The attempts each kind of worker makes, and what is to become of them: the data of test_escapes.py."""

from dataclasses import dataclass

from devd.workers.drivers import KINDS


@dataclass(frozen=True)
class Case:
    """One attempt: the errno in the whole sandbox, and the layers that refuse it alone, each with its errno."""

    attempt: str
    full: str
    layers: dict[str, str]
    without: str = ""
    kind: str = "open"
    own: str = "own"
    """The name of the worker's own path: ``hidden`` lies where only root gets, so that a capability is kept for it."""


NO_X32 = "ENOSYS"
"""The answer of a kernel without that ABI, which most are."""
NO_EFFECT = "no effect"
"""The call succeeds, and the kernel signals nobody."""
PRIVILEGED = {"capabilities": "EPERM", "identity": "EPERM"}
FILTERED = (*("netlink", "io_uring", "userfaultfd", "perf_event", "add_key", "memory_file", "shared_memory"),)
"""What the filter alone stops, and for every worker."""

EVERYBODY = [
    Case("read_secret", "EACCES", {"landlock": "EACCES", "identity": "EACCES"}),
    Case("open_other_node", "EACCES", {"landlock": "EACCES"}),
    Case("write_new_file", "EACCES", {"landlock": "EACCES", "limits": "EFBIG", "identity": "EACCES"}),
    Case("tcp", "EPERM", {"seccomp": "EPERM", "landlock": "EACCES", "network_namespace": "ENETUNREACH"}),
    Case("udp", "EPERM", {"seccomp": "EPERM", "network_namespace": "ENETUNREACH"}),
    Case("unix_socket", "EPERM", {"seccomp": "EPERM", "identity": "EACCES"}),
    Case("abstract_socket", "EPERM", {"seccomp": "EPERM", "landlock": "EPERM", "network_namespace": "ECONNREFUSED"}),
    Case("signal_parent", "EPERM", {"seccomp": "EPERM", "landlock": "EPERM", "identity": "EPERM"}),
    Case("signal_sibling", "EPERM", {"seccomp": "EPERM", "landlock": "EPERM", "identity": "EPERM"}),
    Case("ptrace_parent", "EPERM", {"seccomp": "EPERM", "landlock": "EPERM", "identity": "EPERM"}),
    Case("ptrace_sibling", "EPERM", {"seccomp": "EPERM", "landlock": "EPERM", "identity": "EPERM"}),
    Case("memory_of_parent", "EACCES", {"landlock": "EACCES", "identity": "EACCES"}),
    Case("memory_of_sibling", "EACCES", {"landlock": "EACCES", "identity": "EACCES"}),
    Case("read_memory_of_sibling", "EPERM", {"seccomp": "EPERM", "landlock": "EPERM", "identity": "EPERM"}),
    Case("environ_of_sibling", "EACCES", {"landlock": "EACCES", "identity": "EACCES"}),
    Case("descriptor_of_sibling", "EPERM", {"seccomp": "EPERM", "landlock": "EPERM", "identity": "EPERM"}),
    Case("look_at_private", "EACCES", {"identity": "EACCES"}),
    Case("starve_sibling", "EPERM", {"seccomp": "EPERM", "identity": "EPERM"}),
    Case("fork", "EPERM", {"seccomp": "EPERM"}),
    Case("exec_shell", "EPERM", {"seccomp": "EPERM", "landlock": "EACCES"}),
    Case("user_namespace", "EPERM", {"seccomp": "EPERM"}),
    Case("keyring", "EPERM", {"seccomp": "EPERM"}),
    Case("fill_disk", "EFBIG", {"limits": "EFBIG"}),
    Case("allocate_private", "ENOMEM", {"limits": "ENOMEM"}),
    Case("allocate_shared", "EPERM", {"seccomp": "EPERM", "limits": "ENOMEM"}),
    Case("allocate_some_shared", "EPERM", {"seccomp": "EPERM"}),
    Case("allocate_zeroes", "EACCES", {"landlock": "EACCES", "limits": "ENOMEM"}),
    Case("allocate_stack", "EPERM", {"seccomp": "EPERM"}),
    # The limit on the size of files is not asked about what is written by a mapping.
    Case("mmap_write", "EACCES", {"landlock": "EACCES", "identity": "EACCES", "limits": ""}),
    Case("file_flags", "EPERM", {"seccomp": "EPERM", "identity": "EPERM"}),
    Case("lock_file", "EPERM", {"seccomp": "EPERM"}),
    Case("inotify_outside", "EPERM", {"seccomp": "EPERM"}),
    Case("inotify_names_outside", "EPERM", {"seccomp": "EPERM"}),
    Case("inotify_private", "EPERM", {"seccomp": "EPERM", "identity": "EACCES"}),
    Case("raise_limit", "EPERM", {"seccomp": "EPERM"}),
    Case("make_setuid", "EPERM", {"seccomp": "EPERM", "identity": "EPERM"}),
    Case("link_swapped", "EACCES", {"landlock": "EACCES"}),
    Case("overwrite", "EACCES", {"landlock": "EACCES", "identity": "EACCES"}),
    Case("remove", "EPERM", {"seccomp": "EPERM", "landlock": "EACCES", "identity": "EACCES"}),
    Case("files_of_sibling", "EACCES", {"landlock": "EACCES", "identity": "EACCES"}),
    Case("push_sibling_aside", "EPERM", {"seccomp": "EPERM", "identity": "EPERM"}),
    Case("renice_sibling", "EPERM", {"seccomp": "EPERM", "identity": "EPERM"}),
    Case("signal_by_pidfd", "EPERM", {"seccomp": "EPERM", "landlock": "EPERM", "identity": "EPERM"}),
    Case("signal_by_descriptor", "EPERM", {"seccomp": "EPERM", "landlock": NO_EFFECT, "identity": NO_EFFECT}),
    Case("signal_by_ioctl", "EPERM", {"seccomp": "EPERM", "landlock": NO_EFFECT, "identity": NO_EFFECT}),
    *(Case(one, "EPERM", {"seccomp": "EPERM"}) for one in FILTERED),
    Case("other_abi", "SIGSYS", {"seccomp": "SIGSYS"}),
    Case("x32_call", "SIGSYS", {"seccomp": "SIGSYS"}),
    Case("driver_ioctl", "EPERM", {"seccomp": "EPERM", "landlock": "EACCES"}, without="ENOTTY"),
]
ROOTS = [
    Case("read_shadow", "EACCES", {"landlock": "EACCES", "identity": "EACCES"}),
    Case("mount", "EPERM", {"seccomp": "EPERM", "landlock": "EPERM", "capabilities": "EPERM", "identity": "EPERM"}),
    Case("load_module", "EPERM", {"seccomp": "EPERM", "capabilities": "EPERM"}, without="EBADF"),
    Case("bpf", "EPERM", {"seccomp": "EPERM"}, without="EINVAL"),
    Case("mknod", "EPERM", {"seccomp": "EPERM", "landlock": "EACCES", "capabilities": "EPERM", "identity": "EACCES"}),
    Case("set_uid_back", "EPERM", {"seccomp": "EPERM", "identity": "EPERM"}),
    Case("open_by_handle", "EPERM", {"seccomp": "EPERM", "landlock": "EACCES"} | PRIVILEGED),
    Case("kernel_log_write", "EACCES", {"landlock": "EACCES", "identity": "EACCES"}),
    Case("kernel_log_read", "EACCES", {"landlock": "EACCES", "identity": "EACCES", "capabilities": "EPERM"}),
    Case("kernel_log_call", "EPERM", {"seccomp": "EPERM"} | PRIVILEGED),
    Case("debugfs", "EACCES", {"landlock": "EACCES", "identity": "EACCES"}),
    Case("freeze", "EPERM", {"seccomp": "EPERM"} | PRIVILEGED),
    *(Case(one, "EPERM", {"seccomp": "EPERM"} | PRIVILEGED, without="EINVAL") for one in ("thaw", "trim", "shut_down")),
    Case("change_root", "EPERM", {"seccomp": "EPERM", "capabilities": "EPERM", "identity": "EACCES"}),
    *(
        Case(one, "EPERM", {"seccomp": "EPERM"} | PRIVILEGED)
        for one in ("terminal_input", "raw_socket", "packet_socket")
    ),
    *(
        Case(one, "EPERM", {"seccomp": "EPERM"} | PRIVILEGED)
        for one in ("mount_by_descriptors", "mount_namespace", "enter_namespace")
    ),
]
KEEPS_A_CAPABILITY = [
    Case("read_shadow", "EACCES", {"landlock": "EACCES"}, own="hidden"),
    Case("read_secret", "EACCES", {"landlock": "EACCES"}, own="hidden"),
    Case("write_new_file", "EACCES", {"landlock": "EACCES"}, own="hidden"),
    Case("unix_socket", "EPERM", {"seccomp": "EPERM"}, own="hidden"),
    Case("signal_parent", "EPERM", {"seccomp": "EPERM"}, own="hidden"),
    Case("memory_of_parent", "EACCES", {"landlock": "EACCES"}, own="hidden"),
    Case("make_setuid", "EPERM", {"seccomp": "EPERM"}, own="hidden"),
    Case("mknod", "EPERM", {"seccomp": "EPERM", "landlock": "EACCES"}, own="hidden"),
    Case("read_secret", "EACCES", {"landlock": "EACCES"}, kind="exec", own="hidden"),
    Case("unix_socket", "EPERM", {"seccomp": "EPERM"}, kind="exec", own="hidden"),
    Case("debugfs", "EACCES", {"landlock": "EACCES"}, own="hidden"),
    Case("debugfs", "EACCES", {"landlock": "EACCES"}, kind="exec", own="hidden"),
]
COMMANDS = [
    Case("read_secret", "EACCES", {"landlock": "EACCES"}, kind="exec"),
    Case("write_new_file", "EACCES", {"landlock": "EACCES", "limits": "EFBIG"}, kind="exec"),
    Case("tcp", "EPERM", {"seccomp": "EPERM"}, kind="exec"),
    Case("udp", "EPERM", {"seccomp": "EPERM"}, kind="exec"),
    Case("unix_socket", "EPERM", {"seccomp": "EPERM"}, kind="exec"),
    Case("signal_parent", "EPERM", {"landlock": "EPERM", "identity": "EPERM"}, kind="exec"),
    Case("signal_sibling", "EPERM", {"landlock": "EPERM", "identity": "EPERM"}, kind="exec"),
    Case("memory_of_sibling", "EACCES", {"landlock": "EACCES", "identity": "EACCES"}, kind="exec"),
    # Landlock alone does not stop CAP_PERFMON here, which root has and a worker has not.
    Case("environ_of_sibling", "EACCES", {"identity": "EACCES"}, kind="exec"),
    Case("open_other_node", "EACCES", {"landlock": "EACCES"}, kind="exec"),
    Case("ptrace_sibling", "EPERM", {"seccomp": "EPERM", "landlock": "EPERM"}, kind="exec"),
    Case("user_namespace", "EPERM", {"seccomp": "EPERM"}, kind="exec"),
    Case("make_setuid", "EPERM", {"seccomp": "EPERM", "identity": "EPERM"}, kind="exec"),
    Case("fill_disk", "EFBIG", {"limits": "EFBIG"}, kind="exec"),
    Case("allocate_private", "ENOMEM", {"limits": "ENOMEM"}, kind="exec"),
    Case("link_swapped", "EACCES", {"landlock": "EACCES"}, kind="exec"),
    Case("overwrite", "EACCES", {"landlock": "EACCES", "identity": "EACCES"}, kind="exec"),
    Case("push_sibling_aside", "EPERM", {"seccomp": "EPERM", "identity": "EPERM"}, kind="exec"),
    Case("signal_by_pidfd", "EPERM", {"seccomp": "EPERM", "landlock": "EPERM", "identity": "EPERM"}, kind="exec"),
    Case("signal_by_descriptor", "EPERM", {"seccomp": "EPERM", "landlock": NO_EFFECT}, kind="exec"),
    Case("signal_by_ioctl", "EPERM", {"seccomp": "EPERM", "landlock": NO_EFFECT}, kind="exec"),
    *(Case(one, "EPERM", {"seccomp": "EPERM"}, kind="exec") for one in FILTERED),
    Case("other_abi", "SIGSYS", {"seccomp": "SIGSYS"}, kind="exec"),
    Case("x32_call", "SIGSYS", {"seccomp": "SIGSYS"}, without=NO_X32, kind="exec"),
    *(Case(one, "EPERM", {"seccomp": "EPERM"}, kind="exec") for one in ("keyring", "raise_limit")),
    # Of shared memory neither the limit on private memory nor that on addresses is an honest bound.
    Case("allocate_shared", "EPERM", {"seccomp": "EPERM", "limits": ""}, kind="exec"),
    Case("allocate_some_shared", "EPERM", {"seccomp": "EPERM", "limits": ""}, kind="exec"),
    Case("allocate_zeroes", "EACCES", {"landlock": "EACCES", "limits": ""}, kind="exec"),
    Case("allocate_stack", "EPERM", {"seccomp": "EPERM", "limits": ""}, kind="exec"),
    Case("mmap_write", "EACCES", {"landlock": "EACCES", "identity": "EACCES", "limits": ""}, kind="exec"),
    Case("memory_of_parent", "EACCES", {"landlock": "EACCES", "identity": "EACCES"}, kind="exec"),
    *(
        Case(one, "EPERM", {"seccomp": "EPERM", "landlock": "EPERM", "identity": "EPERM"}, kind="exec")
        for one in ("read_memory_of_sibling", "ptrace_parent", "descriptor_of_sibling")
    ),
    Case("files_of_sibling", "EACCES", {"landlock": "EACCES", "identity": "EACCES"}, kind="exec"),
    Case("starve_sibling", "EPERM", {"seccomp": "EPERM", "identity": "EPERM"}, kind="exec"),
    Case("renice_sibling", "EPERM", {"seccomp": "EPERM", "identity": "EPERM"}, kind="exec"),
    Case("look_at_private", "EACCES", {"identity": "EACCES"}, kind="exec"),
    Case("remove", "EPERM", {"seccomp": "EPERM", "landlock": "EACCES", "identity": "EACCES"}, kind="exec"),
    Case("abstract_socket", "EPERM", {"seccomp": "EPERM", "landlock": "EPERM"}, kind="exec"),
    Case("file_flags", "EPERM", {"seccomp": "EPERM", "identity": "EPERM"}, kind="exec"),
    Case("inotify_outside", "EPERM", {"seccomp": "EPERM"}, kind="exec"),
    Case("inotify_names_outside", "EPERM", {"seccomp": "EPERM"}, kind="exec"),
    Case("driver_ioctl", "EPERM", {"seccomp": "EPERM"}, without="ENOTTY", kind="exec"),
    *(Case(one, "", {}, kind="exec") for one in ("fork", "exec_shell", "lock_file")),
]
ROOTS_COMMANDS = [
    Case("fork_many", "EAGAIN", {"process_limit": "EAGAIN"}, kind="exec"),
    Case("mount", "EPERM", {"seccomp": "EPERM", "landlock": "EPERM"}, kind="exec"),
    Case("mknod", "EPERM", {"seccomp": "EPERM", "landlock": "EACCES"}, kind="exec"),
    Case("terminal_input", "EPERM", {"seccomp": "EPERM"} | PRIVILEGED, kind="exec"),
    Case("open_by_handle", "EPERM", {"seccomp": "EPERM", "landlock": "EACCES"} | PRIVILEGED, kind="exec"),
    Case("read_shadow", "EACCES", {"landlock": "EACCES", "identity": "EACCES"}, kind="exec"),
    Case("environ_of_parent", "EACCES", {"identity": "EACCES"}, kind="exec"),
    Case("load_module", "EPERM", {"seccomp": "EPERM", "capabilities": "EPERM"}, without="EBADF", kind="exec"),
    Case("bpf", "EPERM", {"seccomp": "EPERM"}, without="EINVAL", kind="exec"),
    Case("set_uid_back", "EPERM", {"seccomp": "EPERM", "identity": "EPERM"}, kind="exec"),
    Case("change_root", "EPERM", {"seccomp": "EPERM"} | PRIVILEGED | {"identity": "EACCES"}, kind="exec"),
    Case("kernel_log_write", "EACCES", {"landlock": "EACCES", "identity": "EACCES"}, kind="exec"),
    Case("kernel_log_read", "EACCES", {"identity": "EACCES", "capabilities": "EPERM"}, kind="exec"),
    Case("kernel_log_call", "EPERM", {"seccomp": "EPERM"} | PRIVILEGED, kind="exec"),
    Case("debugfs", "EACCES", {"landlock": "EACCES", "identity": "EACCES"}, kind="exec"),
    Case("freeze", "EPERM", {"seccomp": "EPERM"} | PRIVILEGED, kind="exec"),
    *(
        Case(one, "EPERM", {"seccomp": "EPERM"} | PRIVILEGED, without="EINVAL", kind="exec")
        for one in ("thaw", "trim", "shut_down")
    ),
    *(
        Case(one, "EPERM", {"seccomp": "EPERM"} | PRIVILEGED, kind="exec")
        for one in ("raw_socket", "packet_socket", "mount_by_descriptors", "mount_namespace", "enter_namespace")
    ),
]
DRIVERS_REFUSALS = {
    "EACCES": (
        *("read_shadow", "read_secret", "open_other_node", "write_new_file", "overwrite", "mmap_write", "link_swapped"),
        *("memory_of_parent", "memory_of_sibling", "files_of_sibling", "environ_of_parent", "environ_of_sibling"),
        *("kernel_log_write", "kernel_log_read", "debugfs", "allocate_zeroes"),
    ),
    "EPERM": (
        *("tcp", "udp", "unix_socket", "abstract_socket", "raw_socket", "packet_socket", "netlink"),
        *("signal_parent", "signal_sibling", "signal_by_pidfd", "signal_by_descriptor", "signal_by_ioctl"),
        *("ptrace_parent", "ptrace_sibling", "read_memory_of_sibling", "descriptor_of_sibling"),
        *("starve_sibling", "push_sibling_aside", "renice_sibling", "raise_limit"),
        *("fork", "fork_many", "exec_shell", "set_uid_back", "make_setuid", "mknod", "remove", "open_by_handle"),
        *("mount", "mount_by_descriptors", "mount_namespace", "user_namespace", "enter_namespace", "change_root"),
        *("load_module", "bpf", "io_uring", "userfaultfd", "perf_event", "keyring", "add_key", "kernel_log_call"),
        *("memory_file", "shared_memory", "allocate_shared", "allocate_some_shared", "allocate_stack", "huge_page"),
        *("freeze", "thaw", "trim", "shut_down", "file_flags", "driver_ioctl", "terminal_input"),
        *("lock_file", "inotify_outside", "inotify_names_outside", "inotify_private"),
    ),
    "ENOMEM": ("allocate_private",),
    "EFBIG": ("fill_disk",),
    "SIGSYS": ("other_abi", "x32_call"),
}
"""What the worker of no driver may do, whatever its probes and resets declare, capabilities included."""
RUNS_PROGRAMS = {"fork": "", "exec_shell": "", "lock_file": ""}
LEFT_OVER: dict[str, dict[str, str]] = {
    "infiniband": {**RUNS_PROGRAMS, "fork_many": "EAGAIN", "netlink": "", "kernel_log_read": "EPERM"},
    "nvidia": {**RUNS_PROGRAMS, "fork_many": "", "allocate_shared": "", "allocate_some_shared": ""},
    "sim": {"driver_ioctl": "EACCES"},
}
"""What is meant to work, or is stopped by another layer; docs/security.md has a row for each."""
BY_KERNEL = {("nvidia", "environ_of_parent"), ("nvidia", "environ_of_sibling"), ("nvidia", "kernel_log_read")}
"""What some kernels let who keeps CAP_SYS_ADMIN and sees /proc; docs/security.md says so."""
DRIVERS = [
    Case(attempt, LEFT_OVER.get(driver, {}).get(attempt, full), {}, kind=driver)
    for driver in ("node", "sim", *sorted(KINDS))
    for full, attempts in DRIVERS_REFUSALS.items()
    for attempt in attempts
    if (driver, attempt) not in BY_KERNEL
]
SCOUTS_REFUSALS = {"open_other_node": "EACCES", "read_secret": "EACCES", "write_new_file": "EACCES"}
"""A scout lists the directories of nodes; it may open none of them, although others may."""
SCOUTS = [
    *(
        Case(attempt, full, {"landlock": "EACCES"}, kind=f"scout-{driver}")
        for driver in ("node", "sim", *sorted(KINDS))
        for attempt, full in SCOUTS_REFUSALS.items()
    ),
    *(Case("inotify_outside", "EPERM", {"seccomp": "EPERM"}, kind=f"scout-{driver}") for driver in ("node", *KINDS)),
    *(Case("inotify_names_outside", "", {}, kind=f"scout-{driver}") for driver in ("node", *KINDS)),
]
