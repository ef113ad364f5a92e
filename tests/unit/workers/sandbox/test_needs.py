"""What probes, resets and drivers declare, and how an operator widens it."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from devd.ipc.messages import Device, Node, WorkerSpec
from devd.workers import linux
from devd.workers.command import CommandRunner
from devd.workers.drivers import KINDS, make_driver
from devd.workers.errors import SpecError
from devd.workers.hw import allowance, nvme_smart, usb_calls, vfio
from devd.workers.probes.registry import make_probe
from devd.workers.resets import make_reset
from devd.workers.sandbox import seccomp
from devd.workers.sandbox.identity import FIRST_UID, UIDS, uid_for
from devd.workers.sandbox.needs import NOTHING, PathNeed, SandboxNeeds, widened
from devd.workers.sandbox.requests import ANY, REFUSED, Request, of_type

NODE = Node("/dev/null", "char", 1, 3)
NULL = Device("null", (NODE,))


@pytest.fixture
def runner() -> Iterator[CommandRunner]:
    yield CommandRunner()
    linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 0)  # it makes its process one: not this one for good


def _spec(probe: Mapping[str, object], reset: Mapping[str, object] | None = None) -> WorkerSpec:
    return WorkerSpec("worker", "null", "r", "node", 1, "", "", 1.0, 1.0, probe, reset, target=NULL)


@pytest.mark.parametrize(
    ("probe", "rights", "groups"),
    [
        ({"kind": "exists"}, "", set()),
        ({"kind": "open"}, "r", set()),
        ({"kind": "open", "mode": "rw"}, "rw", set()),
        ({"kind": "read"}, "r", set()),
        ({"kind": "exec", "command": "true"}, "rwi", {"exec"}),
    ],
)
def test_probes_declare_their_own_node_alone(
    probe: dict[str, object], rights: str, groups: set[str], runner: CommandRunner
) -> None:
    """A probe's only device node is its target's, with the rights its kind takes, bound to what discovery saw."""
    needs = make_probe(_spec(probe), runner).needs
    assert [one for one in needs.paths if one.node is not None] == [PathNeed("/dev/null", rights, NODE, vital=True)]
    assert needs.groups == groups
    assert not needs.capabilities


FUNCTION = {"address": "0000:00:00.0", "ids": "1:2", "driver": "planted"}
FULL = Device(
    "full",
    (NODE,),
    {"sysfs": "/sys/devices/virtual/mem/null", "address": "0000:00:00.0", "minor": "9", "name": "x"},
    params={
        "functions": [FUNCTION],
        "group": "9999",
        "controllers": [{"name": "nvme9999", "sysfs": "/sys/devices/virtual/mem/null", "serial": "x"}],
        "name": "9-9",
        "ids": "1:2",
        "ttys": [],
    },
)
"""What every driver's discovery would have left for its workers."""
SELECTORS: dict[str, dict[str, object]] = {
    "node": {"path": ["/dev/null"]},
    "sim": {"devices": [{"name": "one"}]},
    "usb": {"vendor": "0403"},
    "pci": {"class": "0x030000"},
}
SMART, CONTROL, RESET = nvme_smart.ADMIN_COMMAND, usb_calls.USBDEVFS_CONTROL, usb_calls.USBDEVFS_RESET


@pytest.mark.parametrize(
    ("driver", "probe", "resets"),
    [
        ("infiniband", set(), set()),
        ("nvidia", {of_type("F")}, {of_type("F"), of_type("c"), of_type("d")}),
        ("nvme", {Request(SMART)}, {Request(nvme_smart.SUBSYSTEM_RESET)}),
        ("pci", set(), set()),
        ("usb", {Request(CONTROL), Request(usb_calls.TIOCMGET)}, {Request(RESET)}),
        ("vfio", {Request(vfio.VFIO_GROUP_GET_STATUS)}, set()),
    ],
)
def test_drivers_declare_the_requests_they_make(driver: str, probe: set[Request], resets: set[Request]) -> None:
    """By number, or by a type of their own; none has every request, nor one that reaches a file system."""
    kind = KINDS[driver]
    assert allowance.needs_of(kind.allowed(FULL), FULL).requests == probe
    needs = [allowance.needs_of(one.allowed(FULL), FULL) for one in kind.resets.values()]
    assert {request for one in needs for request in one.requests} == resets
    assert all("ioctl" not in one.groups for one in needs)
    assert not (probe | resets) & {ANY, *REFUSED}


def test_every_driver_declares() -> None:
    """The test above asks each driver there is."""
    assert set(KINDS) == {"infiniband", "nvidia", "nvme", "pci", "usb", "vfio"}


@pytest.mark.parametrize("driver", ["node", "sim", *sorted(KINDS)])
def test_filters_of_devds_own_workers_are_prepared(driver: str, runner: CommandRunner) -> None:
    """Each set of groups that one of devd's own workers or scouts may have is built before it is forked."""
    commands = make_probe(_spec({"kind": "exec", "command": "true"}), runner).needs.groups
    if driver in KINDS:
        kind = KINDS[driver]
        probe = allowance.needs_of(kind.allowed(FULL), FULL).groups
        resets = [allowance.needs_of(one.allowed(FULL), FULL).groups for one in kind.resets.values()]
        found = {probe, *(probe | one for one in resets), probe | commands}
        found.add(make_driver(driver, SELECTORS.get(driver, {})).needs.groups)
    else:
        found = {frozenset(), commands, make_driver(driver, SELECTORS[driver]).needs.groups}
    assert found <= set(seccomp.USUAL)


def test_probe_of_a_request_may_make_that_one(runner: CommandRunner) -> None:
    """A probe that asks the driver one thing may ask it that; a command may ask whatever any program asks."""
    needs = make_probe(_spec({"kind": "ioctl", "request": 0xAE00}), runner).needs
    assert needs.requests == {Request(0xAE00)}
    assert not needs.groups
    assert make_probe(_spec({"kind": "exec", "command": "true"}), runner).needs.requests == {ANY}


def test_nodes_without_requests_are_refused() -> None:
    """Who names a node for ioctls and no request has forgotten them: it is told, not left with refusals."""
    with pytest.raises(ValueError, match=re.escape("ioctls of /dev/x are declared without the requests")):
        allowance.Allowance(ioctl=("/dev/x",))


def test_simulated_probe_needs_nothing(runner: CommandRunner) -> None:
    """A simulated device's worker may reach nothing at all."""
    assert make_probe(_spec({"kind": "sim"}), runner).needs == NOTHING


def test_sysfs_reaches_below_sys_alone(runner: CommandRunner) -> None:
    """An attribute outside /sys, or a link that leads there, is not opened to the worker."""
    probe = {"kind": "sysfs", "attribute": "uevent", "equals": "x"}
    needs = make_probe(_spec(probe), runner).needs
    assert {one.path for one in needs.paths} == {"/sys/dev/char/1:3/uevent", "/sys/dev/char/1:3"}
    outside = {"kind": "sysfs", "attribute": "/etc/passwd", "value": "1"}
    reset = make_reset(_spec({"kind": "sim"}, outside), runner, lambda: None)
    assert reset is not None
    assert all(one.path.startswith("/sys/") for one in reset.needs.paths)


def test_scout_lists_below_the_fixed_part_of_its_globs(tmp_path: Path) -> None:
    """A scout may list the nearest directory there is below which all matches lie, and read sysfs."""
    (tmp_path / "bus").mkdir()
    needs = make_driver("node", {"path": [f"{tmp_path}/bus/*/port*", f"{tmp_path}/later/port"]}).needs
    rights = {one.path: one.rights for one in needs.paths}
    assert rights == {f"{tmp_path}/bus": "l", str(tmp_path): "l", "/sys": "r", "/run/udev/data": "r"}
    assert needs.groups == {"watch"}


def test_needs_add_up() -> None:
    """A worker with a probe and a reset gets what both need, and the larger of the limits."""
    one = SandboxNeeds(
        (PathNeed("/a", "r"),), frozenset({"ioctl"}), memory_bytes=5, files=90, requests=frozenset({Request(1)})
    )
    both = one | SandboxNeeds(
        (PathNeed("/a", "r"), PathNeed("/b", "w")),
        frozenset({"exec"}),
        frozenset({"kill"}),
        memory_bytes=7,
        requests=frozenset({Request(2)}),
    )
    assert both.requests == {Request(1), Request(2)}
    assert both.paths == (PathNeed("/a", "r"), PathNeed("/b", "w"))
    assert both.groups == {"ioctl", "exec"}
    assert both.capabilities == {"kill"}
    assert (both.memory_bytes, both.files) == (7, 90)


def test_operator_widens_by_name() -> None:
    """What the options add is added, and nothing is lost; limits are replaced."""
    needs = SandboxNeeds((PathNeed("/a", "r"),))
    options = {
        "read": "/opt/vendor",
        "write": ["/var/lib/x"],
        "capabilities": ["sys_rawio"],
        "syscalls": ["network"],
        "memory_bytes": 1 << 20,
    }
    wide = widened(needs, options)
    assert [(one.path, one.rights) for one in wide.paths] == [("/a", "r"), ("/opt/vendor", "r"), ("/var/lib/x", "rw")]
    assert wide.groups == {"network", "files"}
    assert wide.capabilities == {"sys_rawio"}
    assert wide.memory_bytes == 1 << 20
    assert widened(needs, {}) == needs


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"capabilities": ["sys_everything"]}, "sandbox.capabilities: 'sys_everything' is unknown, allowed are"),
        ({"syscalls": ["mount"]}, "sandbox.syscalls: 'mount' is unknown, allowed are"),
        ({"read": ["etc"]}, "sandbox: 'etc' found, an absolute path is needed"),
        ({"memory_bytes": 0}, "sandbox.memory_bytes: 0 found, a whole number of at least 1 is needed"),
    ],
)
def test_names_that_do_not_exist_are_refused(options: dict[str, object], words: str) -> None:
    """A wrong option ends the worker with EX_CONFIG's error instead of a sandbox nobody asked for."""
    with pytest.raises(SpecError, match=re.escape(words)):
        widened(NOTHING, options)


def test_uids_are_stable_and_in_their_range() -> None:
    """A device keeps its uid over restarts; the front's choice goes first; root's is refused."""
    made = {uid_for(f"device-{number}", {}) for number in range(256)}
    assert all(FIRST_UID <= uid < FIRST_UID + UIDS for uid in made)
    assert len(made) > 250
    assert uid_for("device-1", {}) == uid_for("device-1", {})
    assert uid_for("device-1", {"uid": 1234}) == 1234
    for wrong in (0, -1, 1 << 32):
        with pytest.raises(SpecError):
            uid_for("device-1", {"uid": wrong})
