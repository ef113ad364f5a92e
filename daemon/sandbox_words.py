"""The words in which workers tell of their sandboxes: those of devd's own processes, in a worker's order."""

BROKEN = "broken"
"""The level of a sandbox behind which works what must not: its worker touches nothing, and says so."""
LEVELS = ("full", "partial", "basic", BROKEN)
LAYERS = (
    *("identity", "no_core", "limits", "oom_score", "nice", "io_nice", "cgroup", "network_namespace", "no_new_privs"),
    *("landlock", "landlock_truncate", "landlock_tcp", "landlock_ioctl", "landlock_scopes"),
    *("capabilities", "undumpable", "process_limit", "seccomp", "self_test"),
)
OTHER = "other"
"""For a word that none of devd's own processes would say."""
