"""How far a worker's sandbox is required, and what an operator leaves to it beyond what its probe declares."""

from typing import Annotated, Literal

from pydantic import Field

from devd.daemon.config.rules import OneOrMore, choice, whole
from devd.daemon.config.section import Section
from devd.daemon.config.values import AbsolutePath

Mode = Literal["best-effort", "required"]
MODES = ("best-effort", "required")

CAPABILITIES = (
    *("audit_control", "audit_read", "audit_write", "block_suspend", "bpf", "checkpoint_restore", "chown"),
    *("dac_override", "dac_read_search", "fowner", "fsetid", "ipc_lock", "ipc_owner", "kill", "lease"),
    *("linux_immutable", "mac_admin", "mac_override", "mknod", "net_admin", "net_bind_service", "net_broadcast"),
    *("net_raw", "perfmon", "setfcap", "setgid", "setpcap", "setuid", "sys_admin", "sys_boot", "sys_chroot"),
    *("sys_module", "sys_nice", "sys_pacct", "sys_ptrace", "sys_rawio", "sys_resource", "sys_time"),
    *("sys_tty_config", "syslog", "wake_alarm"),
)
"""capabilities(7), without CAP_. The workers have the numbers; a test compares the names."""
SYSCALLS = (
    *("exec", "files", "ioctl", "lock_memory", "locks", "netlink", "network", "numa", "shared_memory", "unix"),
    "watch",
)
"""The groups of system calls that workers know; docs/security.md tells what is in each."""

MIB = 1 << 20
MAX_MIB = 1 << 20
MAX_FILES = 1 << 20


class SandboxAllow(Section):
    """What a resource's workers may do beyond what their probe and reset declare. Each entry widens the sandbox."""

    read: Annotated[tuple[AbsolutePath, ...], OneOrMore()] = Field(
        (), description="Files, and directories with all below them, that may be read (and run, where commands may be)."
    )
    write: Annotated[tuple[AbsolutePath, ...], OneOrMore()] = Field(
        (), description="Files and directories that may be written too."
    )
    capabilities: Annotated[tuple[Annotated[str, choice(*CAPABILITIES)], ...], OneOrMore()] = Field(
        (), description="Capabilities that are kept, in small letters and without `CAP_`."
    )
    syscalls: Annotated[tuple[Annotated[str, choice(*SYSCALLS)], ...], OneOrMore()] = Field(
        (),
        description="Groups of system calls that are allowed. `exec`: start programs and signal them, and `locks`. "
        "`files`: make, remove, rename and cut files where they may be written, and `locks`. `ioctl`: every request, "
        "to any file that may be opened, but those to file systems and a few of terminals, which nobody gets. "
        "`lock_memory`: keep memory from being swapped. `locks`: flock and fcntl's, on any file that may be opened. "
        "`netlink`: sockets for routes, links, generic families, RDMA and uevents, in the node's network. `network`: "
        "TCP and UDP, in the node's network. `numa`: choose memory by NUMA node. `shared_memory`: memory that "
        "processes share, of which only the address space is bounded. `unix`: connect to unix sockets. `watch`: hear "
        "of names that come and go in directories.",
    )
    memory_mib: Annotated[int | None, whole(16, MAX_MIB)] = Field(
        None, description="Private writable memory in MiB, absent: 256, for `exec` 1024. Thread stacks count whole."
    )
    files: Annotated[int | None, whole(16, MAX_FILES)] = Field(
        None, description="Open files, absent: 64, for `exec` 256."
    )
    processes: Annotated[int | None, whole(4, MAX_FILES)] = Field(
        None, description="Processes and threads, absent: 8, for `exec` 64."
    )

    def as_spec(self) -> dict[str, object]:
        """Return what a worker is told."""
        found: dict[str, object] = {
            "read": list(self.read),
            "write": list(self.write),
            "capabilities": list(self.capabilities),
            "syscalls": list(self.syscalls),
            "memory_bytes": self.memory_mib * MIB if self.memory_mib is not None else None,
            "files": self.files,
            "processes": self.processes,
        }
        return {name: value for name, value in found.items() if value}
