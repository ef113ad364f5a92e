"""A worker that was taken over tries to get out: what it gets, and which layers stop it each by itself.

Each attempt is made without a sandbox as well, where it must work: else its refusal would prove nothing.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from devd.workers.drivers import KINDS
from devd.workers.sandbox import landlock
from tests.support.unprivileged import NOBODY, unprivileged

ROOT = Path(__file__).parents[2]
IS_ROOT = os.geteuid() == 0


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


NOT_EVEN_WITHOUT = {"EPERM", "EACCES"}
"""A container's own walls: what they refuse to everybody proves nothing here."""
ROOTS_LAYERS = {"identity", "capabilities", "network_namespace", "process_limit"}
"""Layers that only root can put on (or that take what only root has)."""

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
    Case("allocate_shared", "ENOMEM", {"limits": "ENOMEM"}),
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
]
ROOTS_COMMANDS = [
    Case("fork_many", "EAGAIN", {"process_limit": "EAGAIN"}, kind="exec"),
    Case("mount", "EPERM", {"seccomp": "EPERM", "landlock": "EPERM"}, kind="exec"),
    Case("mknod", "EPERM", {"seccomp": "EPERM", "landlock": "EACCES"}, kind="exec"),
    Case("terminal_input", "EPERM", {"seccomp": "EPERM"} | PRIVILEGED, kind="exec"),
    Case("open_by_handle", "EPERM", {"seccomp": "EPERM", "landlock": "EACCES"} | PRIVILEGED, kind="exec"),
]
DRIVERS_ATTEMPTS = {
    "read_shadow": "EACCES",
    "read_secret": "EACCES",
    "open_other_node": "EACCES",
    "write_new_file": "EACCES",
    "unix_socket": "EPERM",
    "memory_of_parent": "EACCES",
    "memory_of_sibling": "EACCES",
    "files_of_sibling": "EACCES",
    "ptrace_parent": "EPERM",
    "signal_sibling": "EPERM",
    "signal_by_descriptor": "EPERM",
    "mount": "EPERM",
    "user_namespace": "EPERM",
    "enter_namespace": "EPERM",
    "load_module": "EPERM",
    "bpf": "EPERM",
    "io_uring": "EPERM",
    "open_by_handle": "EPERM",
    "mknod": "EPERM",
    "make_setuid": "EPERM",
    "set_uid_back": "EPERM",
    "terminal_input": "EPERM",
    "raise_limit": "EPERM",
    "environ_of_parent": "EACCES",
}
"""What the worker of no driver may do, whatever its probes and resets declare, capabilities included."""
LEFT_OVER = {("nvidia", "environ_of_parent")}
"""What newer kernels let who keeps CAP_SYS_ADMIN and sees /proc; docs/security.md says so."""
DRIVERS = [
    Case(attempt, full, {}, kind=driver)
    for driver in sorted(KINDS)
    for attempt, full in DRIVERS_ATTEMPTS.items()
    if (driver, attempt) not in LEFT_OVER
]
SCOUTS = [
    Case(attempt, full, {"landlock": "EACCES"} if full == "EACCES" else {}, kind=f"scout-{driver}")
    for driver in ("node", "sim", *sorted(KINDS))
    for attempt, full in {"open_other_node": "EACCES", "read_secret": "EACCES", "write_new_file": "EACCES"}.items()
]
"""A scout lists the directories of nodes; it may open none of them, although others may."""


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Make what the attempts reach for: files, sockets that listen, a link to the worker's own node."""
    paths = {name: tmp_path / name for name in ("new", "node", "own", "disk", "setuid", "folder", "socket")}
    tmp_path.chmod(0o711)
    private = tmp_path / "private"
    for folder in (paths["folder"], private):
        folder.mkdir(mode=0o700)
    paths |= {name: private / name for name in ("secret", "hidden")}
    paths["hidden"].symlink_to("/dev/null")
    paths["own"].symlink_to("/dev/null")
    for name in ("disk", "setuid", "secret"):
        paths[name].write_text("x")
        paths[name].chmod(0o600 if name == "secret" else 0o644)
    abstract = f"devd-test-{os.getpid()}"
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as path_socket,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as abstract_socket,
    ):
        udp.bind(("127.0.0.1", 0))
        path_socket.bind(str(paths["socket"]))
        paths["socket"].chmod(0o600)
        abstract_socket.bind("\0" + abstract)
        for one in (path_socket, abstract_socket):
            one.listen(16)
        yield {
            **{name: str(path) for name, path in paths.items()},
            "tcp": str(tcp.getsockname()[1]),
            "udp": str(udp.getsockname()[1]),
            "abstract": abstract,
        }


def _found(case: Case, arguments: dict[str, str], layers: list[str], prefix: list[str]) -> dict[str, str]:
    """Return what each mode of an attempt came to."""
    request = {"attempt": case.attempt, "arguments": arguments, "kind": case.kind, "own": case.own, "layers": layers}
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "tests.escape.inside"],
        input=json.dumps(request | {"drop": bool(prefix)}),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def _check(case: Case, arguments: dict[str, str], layers: dict[str, str], prefix: list[str]) -> None:
    found = _found(case, arguments, list(layers), prefix)
    control = found.pop("nothing")
    if control in NOT_EVEN_WITHOUT:
        pytest.skip(f"refused here even without a sandbox: {control}")
    if control == "EOPNOTSUPP":
        pytest.skip("there is no such thing on this machine, or this file system")
    if control == "ENOSYS":  # a kernel built without it: no layer but the filter comes before that answer
        assert found["full"] == case.full
        return
    assert control == case.without
    assert found == {"full": case.full, **layers}


def _name(case: Case) -> str:
    return f"{case.kind}-{case.attempt}-{case.own}"


def _needs_landlock() -> None:
    try:
        version = landlock.abi()
    except OSError as error:
        pytest.skip(f"no Landlock on this kernel: {error}")
    if version < landlock.ABI_SCOPES:
        pytest.skip(f"Landlock ABI {version}: these expectations are those of {landlock.ABI_SCOPES}")


@pytest.mark.root
@pytest.mark.skipif(not IS_ROOT, reason="puts on layers that only root can")
@pytest.mark.parametrize(
    "case", [*EVERYBODY, *ROOTS, *COMMANDS, *ROOTS_COMMANDS, *KEEPS_A_CAPABILITY, *SCOUTS], ids=_name
)
def test_worker_of_roots_does_not_get_out(case: Case, scene: dict[str, str]) -> None:
    """Under root every attempt works without the sandbox, and is refused in it and behind each layer that counts."""
    _needs_landlock()
    _check(case, scene, case.layers, [])


@pytest.mark.root
@pytest.mark.skipif(not IS_ROOT, reason="keeps capabilities that only root has to give")
@pytest.mark.parametrize("case", DRIVERS, ids=_name)
def test_worker_of_no_driver_gets_out(case: Case, scene: dict[str, str]) -> None:
    """With all that a driver's signals and resets declare, and the capabilities they keep, each attempt is refused."""
    _needs_landlock()
    found = _found(case, scene, [], [])
    if found["nothing"] in NOT_EVEN_WITHOUT:
        pytest.skip(f"refused here even without a sandbox: {found['nothing']}")
    assert found["full"] == case.full


@pytest.mark.parametrize("case", [*EVERYBODY, *COMMANDS, *SCOUTS], ids=_name)
def test_worker_of_an_ordinary_user_does_not_get_out(case: Case, scene: dict[str, str]) -> None:
    """Under an ordinary user, whose uid all workers share, the other layers refuse it still."""
    _needs_landlock()
    prefix = []
    if IS_ROOT:
        prefix = unprivileged()
        folder = Path(scene["own"]).parent
        for path in (folder, *folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    layers = {name: code for name, code in case.layers.items() if name not in ROOTS_LAYERS}
    if not layers:
        pytest.skip("only a uid of its own stops this")
    _check(case, scene, layers, prefix)


@pytest.mark.parametrize("kind", ["open", "exec"])
def test_worker_reaches_its_own_node(kind: str, scene: dict[str, str]) -> None:
    """What a worker is for still works in the sandbox: its own node opens."""
    case = Case("own_node", "", {}, kind=kind)
    assert _found(case, scene, [], []) == {"nothing": "", "full": ""}


@pytest.mark.parametrize("driver", ["node", *sorted(KINDS)])
def test_scout_lists_the_nodes(driver: str, scene: dict[str, str]) -> None:
    """What a scout is for still works in the sandbox: the names below /dev can be read."""
    _needs_landlock()
    assert _found(Case("list_nodes", "", {}, kind=f"scout-{driver}"), scene, [], []) == {"nothing": "", "full": ""}


def test_no_layer_stops_everything() -> None:
    """Landlock, the uid and the filter each stop something that the other two let through: all three are needed."""
    strong = {"landlock", "identity", "seccomp"}
    alone = {name for case in (*EVERYBODY, *ROOTS) for name in strong if strong & set(case.layers) == {name}}
    assert alone == strong
