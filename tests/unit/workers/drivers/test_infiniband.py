"""The infiniband driver against trees of fixtures: bundles and ids, each signal, what resets refuse."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from devd.ipc.messages import Device
from devd.workers.command import CommandRunner
from devd.workers.drivers.infiniband import (
    SIGNALS,
    FunctionReset,
    InfinibandDriver,
    InfinibandSignals,
    LinkReset,
    RecoverReset,
    ReloadReset,
    allowed,
)
from devd.workers.errors import ResetError, SpecError
from devd.workers.hw import devlink
from devd.workers.probes.base import Call
from tests.unit.workers.drivers.infiniband_tree import GUID, PCI, adapter
from tests.unit.workers.drivers.tree import GARBAGE, grow, link


def _discover(root: Path, **match: object) -> list[Device]:
    return list(InfinibandDriver(match, root=root).discover().devices)


def _only(root: Path, **match: object) -> Device:
    (device,) = _discover(root, **match)
    return device


def _signals(root: Path, **match: object) -> InfinibandSignals:
    return InfinibandSignals(_only(root, **match), root=root)


def _bad(signals: InfinibandSignals) -> dict[str, str]:
    return {name: reason for name in signals.offered if (reason := signals.check(name))}


def _call(allowed_s: float = 5.0) -> Call:
    return Call(lambda _activity: None, time.monotonic(), allowed_s)


# ---- discovery --------------------------------------------------------------------------------------------------


def test_an_adapter_is_found_with_its_bundle(tmp_path: Path) -> None:
    """The device is known by its GUID and has the verbs, management and connection manager nodes."""
    adapter(tmp_path)
    device = _only(tmp_path)
    assert device.id == GUID
    assert [node.path for node in device.nodes] == [
        "/dev/infiniband/uverbs0",
        "/dev/infiniband/umad0",
        "/dev/infiniband/rdma_cm",
    ]
    assert device.numa_node == 0
    assert device.properties["address"] == PCI
    assert device.properties["link_layer"] == "InfiniBand"


def test_no_rdma_at_all_is_an_empty_list(tmp_path: Path) -> None:
    """A machine without the class directory has no devices, and no problem."""
    found = InfinibandDriver({}, root=tmp_path).discover()
    assert (found.devices, found.problems) == ((), ())


def test_a_renumbered_adapter_keeps_its_id(tmp_path: Path) -> None:
    """Another name, number and slot: the same GUID, the same device, with the nodes of now."""
    adapter(tmp_path / "before")
    adapter(tmp_path / "after", "mlx5_3", number=3, address="0000:81:00.0")
    before, after = _only(tmp_path / "before"), _only(tmp_path / "after")
    assert before.id == after.id
    assert after.nodes[0].path == "/dev/infiniband/uverbs3"


def test_an_adapter_that_comes_and_goes_is_followed(tmp_path: Path) -> None:
    """The next scan sees what is there then."""
    driver = InfinibandDriver({}, root=tmp_path)
    assert driver.discover().devices == ()
    adapter(tmp_path)
    assert [one.id for one in driver.discover().devices] == [GUID]
    (tmp_path / "sys/class/infiniband/mlx5_0").unlink()
    assert driver.discover().devices == ()


def test_twins_are_told_apart_by_their_slots(tmp_path: Path) -> None:
    """Two adapters with one GUID both carry their address; without a GUID the address is the name."""
    adapter(tmp_path)
    adapter(tmp_path, "mlx5_1", number=1, address="0000:06:00.0")
    adapter(tmp_path, "mlx5_2", number=2, address="0000:07:00.1", guid="0000:0000:0000:0000")
    found = InfinibandDriver({}, root=tmp_path).discover()
    assert [one.id for one in found.devices] == [f"{GUID}-{PCI}", f"{GUID}-0000:06:00.0", "0000:07:00.1"]
    assert found.problems == (f"2 devices say they are {GUID}: told apart by their ports",)


def test_a_twin_that_comes_or_goes_changes_no_id(tmp_path: Path) -> None:
    """The adapter that was there keeps its GUID for an id, the twin keeps its address in its own when it is alone."""
    adapter(tmp_path)
    driver = InfinibandDriver({}, root=tmp_path)
    assert [one.id for one in driver.discover().devices] == [GUID]
    adapter(tmp_path, "mlx5_1", number=1, address="0000:06:00.0")
    twin = f"{GUID}-0000:06:00.0"
    assert [one.id for one in driver.discover().devices] == [GUID, twin]
    (tmp_path / "sys/class/infiniband/mlx5_0").unlink()
    assert [one.id for one in driver.discover().devices] == [twin]


def test_chosen_ports_are_part_of_the_id(tmp_path: Path) -> None:
    """Each port of an adapter can be a resource of its own."""
    real = adapter(tmp_path)
    grow(real, {"ports/2/state": "1: DOWN", "ports/2/phys_state": "2: Polling", "ports/2/link_layer": "InfiniBand"})
    first, second = _only(tmp_path, ports=[1]), _only(tmp_path, ports=[2])
    assert (first.id, second.id) == (f"{GUID}-p1", f"{GUID}-p2")
    assert InfinibandSignals(first, root=tmp_path).check("port-state") == ""
    assert InfinibandSignals(second, root=tmp_path).check("port-state") == 'port 2 is "DOWN", ACTIVE is needed'
    found = InfinibandDriver({"ports": [3]}, root=tmp_path).discover()
    assert found.devices == ()
    assert found.problems == ("mlx5_0 has none of the ports (3,): skipped",)


def test_the_bundle_can_be_smaller(tmp_path: Path) -> None:
    """Management datagrams reach the whole fabric: a resource may leave them out."""
    adapter(tmp_path)
    device = _only(tmp_path, nodes=["uverbs", "rdma_cm"])
    assert [node.path for node in device.nodes] == ["/dev/infiniband/uverbs0", "/dev/infiniband/rdma_cm"]


def test_an_adapter_without_verbs_is_a_problem(tmp_path: Path) -> None:
    """Without the module no container could use it; the operator hears what to load."""
    adapter(tmp_path)
    (tmp_path / "sys/class/infiniband_verbs/uverbs0/ibdev").unlink()
    found = InfinibandDriver({}, root=tmp_path).discover()
    assert found.devices == ()
    assert found.problems == ("mlx5_0 has no uverbs node: is the module ib_uverbs loaded?",)


@pytest.mark.parametrize("match", [{"ports": [0]}, {"ports": [1.5]}, {"nodes": ["issm"]}, {"guid": "x"}])
def test_a_wrong_selection_is_refused(match: dict[str, object]) -> None:
    """What makes no sense is an error, not everything."""
    with pytest.raises(SpecError):
        InfinibandDriver(match)


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_in_every_attribute_breaks_nothing(tmp_path: Path, garbage: bytes) -> None:
    """Whatever the files hold, a scan ends, ids are clean and every check answers in plain text."""
    adapter(tmp_path, layer="Ethernet")
    device = _only(tmp_path)
    signals = InfinibandSignals(device, root=tmp_path)
    for path in (tmp_path / "sys").rglob("*"):
        if path.is_file() and path.name not in ("dev", "ibdev"):
            path.write_bytes(garbage)
    for one in _discover(tmp_path):
        assert len(one.id) <= 56
        assert one.id.isascii()
    assert signals.check("port-state") != ""
    for name in signals.offered:
        assert signals.check(name).isprintable()


# ---- signals ----------------------------------------------------------------------------------------------------


def test_a_healthy_infiniband_port_passes_all(tmp_path: Path) -> None:
    """Everything but what Ethernet and devlink have is offered, and well."""
    adapter(tmp_path)
    signals = _signals(tmp_path)
    assert set(signals.offered) == {one.name for one in SIGNALS} - {"carrier", "firmware", "firmware-errors"}
    assert _bad(signals) == {}


def test_a_healthy_ethernet_port_passes_all(tmp_path: Path) -> None:
    """No subnet manager is looked for; the interface's carrier is."""
    adapter(tmp_path, layer="Ethernet")
    signals = _signals(tmp_path)
    assert "carrier" in signals.offered
    assert "subnet-manager" not in signals.offered
    assert _bad(signals) == {}


@pytest.mark.parametrize(("state", "word"), [("2: INIT", "INIT"), ("3: ARMED", "ARMED")])
def test_a_missing_subnet_manager_is_no_fault_of_the_port(tmp_path: Path, state: str, word: str) -> None:
    """INIT makes its own signal bad and the port's not."""
    adapter(tmp_path, port={"state": state})
    reason = f"port 1 is {word}: no subnet manager has brought it to ACTIVE, the device itself is well"
    assert _bad(_signals(tmp_path)) == {"subnet-manager": reason}


def test_a_port_that_is_down_is_bad_with_its_link(tmp_path: Path) -> None:
    """DOWN and Polling: the port and the cable are both told."""
    adapter(tmp_path, port={"state": "1: DOWN", "phys_state": "2: Polling"})
    assert _bad(_signals(tmp_path)) == {
        "port-state": 'port 1 is "DOWN", ACTIVE is needed',
        "link": 'port 1 has its link in "Polling", LinkUp is needed',
    }


@pytest.mark.parametrize("state", ["", "banana", "9: NEW", "4 ACTIVE"])
def test_a_state_that_makes_no_sense_is_not_well(tmp_path: Path, state: str) -> None:
    """Unknown is not healthy."""
    adapter(tmp_path, port={"state": state})
    assert "ACTIVE is needed" in _signals(tmp_path).check("port-state")


@pytest.mark.parametrize(
    ("name", "attribute", "grown"),
    [
        ("symbol-errors", "symbol_error", 11),
        ("recoveries", "link_error_recovery", 11),
        ("receive-errors", "port_rcv_errors", 11),
        ("integrity", "local_link_integrity_errors", 11),
        ("overruns", "excessive_buffer_overrun_errors", 11),
        ("discards", "port_xmit_discards", 101),
        ("flaps", "link_downed", 3),
    ],
)
def test_each_counter_is_judged_by_its_growth(tmp_path: Path, name: str, attribute: str, grown: int) -> None:
    """One less than the limit is well, one more is not, and no other signal minds; a new worker goes on from there."""
    real = adapter(tmp_path)
    first = _signals(tmp_path)
    assert _bad(first) == {}
    grow(real, {f"ports/1/counters/{attribute}": str(grown - 1)})
    assert _bad(first) == {}
    grow(real, {f"ports/1/counters/{attribute}": str(grown)})
    second = InfinibandSignals(_only(tmp_path), root=tmp_path, baseline=first.baseline)
    (bad,) = _bad(second).items()
    assert bad[0] == name
    assert bad[1].startswith(f"port 1 {attribute} grew by {grown} (0 -> {grown}), allowed are ")
    second.cured()
    assert _bad(second) == {}


def test_a_saturated_counter_says_so(tmp_path: Path) -> None:
    """A 4-bit counter at 15 is a note when it stood there, and part of the reason when it got there."""
    real = adapter(tmp_path, port={"counters/local_link_integrity_errors": "15"})
    signals = _signals(tmp_path)
    assert signals.check("integrity") == ""
    assert list(signals.notes) == ["port 1 local_link_integrity_errors"]
    grow(real, {"ports/1/counters/local_link_integrity_errors": "0"})
    assert signals.check("integrity") == ""
    grow(real, {"ports/1/counters/local_link_integrity_errors": "15"})
    assert signals.check("integrity").endswith(
        "grew by at least 15 (0 -> 15), allowed are 10 in 3600 s; the counter is saturated"
    )


def test_counters_without_performance_management_are_not_offered(tmp_path: Path) -> None:
    """A text like "N/A (no PMA)" and a missing file are no signals, and no faults."""
    real = adapter(tmp_path, port={"counters/symbol_error": "N/A (no PMA)"})
    (real / "ports/1/counters/port_rcv_errors").unlink()
    signals = _signals(tmp_path)
    assert {"symbol-errors", "receive-errors"}.isdisjoint(signals.offered)
    assert signals.check("symbol-errors") == ""


def test_an_ethernet_port_flaps_by_the_kernels_count(tmp_path: Path) -> None:
    """The interface's own count of lost carriers is judged as well."""
    adapter(tmp_path, layer="Ethernet")
    signals = _signals(tmp_path)
    assert signals.check("flaps") == ""
    grow(tmp_path, {f"sys/devices/pci0000:00/{PCI}/net/eth0/carrier_down_count": "6"})
    assert signals.check("flaps") == "port 1 carrier_down_count grew by 3 (3 -> 6), allowed are 2 in 600 s"


def test_a_lost_carrier_is_bad(tmp_path: Path) -> None:
    """Carrier 0 is told with the interface's name."""
    adapter(tmp_path, layer="Ethernet")
    signals = _signals(tmp_path)
    grow(tmp_path, {f"sys/devices/pci0000:00/{PCI}/net/eth0/carrier": "0"})
    assert signals.check("carrier") == "port 1 has no carrier on eth0"


def test_an_interface_in_a_pod_is_no_fault(tmp_path: Path) -> None:
    """The interface has left this network namespace with its pod: no signal, no fault."""
    adapter(tmp_path, layer="Ethernet")
    signals = _signals(tmp_path)
    (tmp_path / "sys/class/net/eth0").unlink()
    assert "carrier" not in signals.offered
    assert signals.check("carrier") == ""


def test_a_device_that_is_gone_says_where_it_may_be(tmp_path: Path) -> None:
    """Gone is one signal; the others don't pile up."""
    adapter(tmp_path)
    signals = _signals(tmp_path)
    (tmp_path / "sys/class/infiniband/mlx5_0").unlink()
    assert signals.check("present").startswith("mlx5_0 is gone from /sys/class/infiniband")
    assert [signals.check(one.name) for one in SIGNALS if one.name != "present"] == [""] * (len(SIGNALS) - 1)


def test_another_adapter_under_the_same_name_is_noticed(tmp_path: Path) -> None:
    """The kernel gives names anew; the GUID is the device."""
    real = adapter(tmp_path)
    signals = _signals(tmp_path)
    grow(real, {"node_guid": "0002:c903:0000:0001"})
    assert signals.check("identity") == f'mlx5_0 has the GUID "0002:c903:0000:0001" now, had {GUID}'


def test_a_missing_node_is_noticed(tmp_path: Path) -> None:
    """Each node of the bundle must be there."""
    adapter(tmp_path)
    signals = _signals(tmp_path)
    (tmp_path / "dev/infiniband/umad0").unlink()
    assert signals.check("node").startswith("stat /dev/infiniband/umad0: ENOENT")


# ---- devlink ----------------------------------------------------------------------------------------------------


@pytest.fixture
def tool(tmp_path: Path) -> Callable[[str], str]:
    """Return a maker of programs that stand where devlink would: they run a line of shell."""

    def make(line: str) -> str:
        path = tmp_path / "devlink"
        path.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n{line}\n')
        path.chmod(0o755)
        return str(path)

    return make


_ANSWER = 'printf \'{{"health":{{"pci/0000:05:00.0":[{{"reporter":"%s","state":"{}","error":{}}}]}}}}\' "$6"'


def _asking(root: Path, program: str, baseline: InfinibandSignals | None = None) -> InfinibandSignals:
    stored = baseline.baseline if baseline is not None else None
    return InfinibandSignals(_only(root), root=root, runner=CommandRunner(), devlink=program, baseline=stored)


def test_a_firmware_that_is_well_passes(tmp_path: Path, tool: Callable[[str], str]) -> None:
    """Both reporters are asked for by name, of this PCI function."""
    adapter(tmp_path)
    signals = _asking(tmp_path, tool(_ANSWER.format("healthy", 0)))
    assert {"firmware", "firmware-errors"} <= set(signals.offered)
    assert _bad(signals) == {}
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[:2] == [f"-j health show pci/{PCI} reporter {name}" for name in ("fw", "fw_fatal")]


def test_a_firmware_in_error_is_bad(tmp_path: Path, tool: Callable[[str], str]) -> None:
    """The reporter's state is the reason; errors that were recovered from are told by their own signal."""
    adapter(tmp_path)
    first = _asking(tmp_path, tool(_ANSWER.format("healthy", 1)))
    assert first.check("firmware-errors") == ""
    second = _asking(tmp_path, tool(_ANSWER.format("error", 2)), first)
    assert second.check("firmware").startswith('devlink reporter fw says "error"')
    assert second.check("firmware-errors").startswith("devlink reporter fw grew by 1 (1 -> 2)")


@pytest.mark.parametrize(
    "line",
    ["echo 'kernel answers: Operation not supported' >&2; exit 1", "echo no JSON", "echo '{}'", "echo '[[[['", "true"],
)
def test_a_devlink_without_an_answer_is_no_signal(tmp_path: Path, tool: Callable[[str], str], line: str) -> None:
    """No such reporter, no right, or nonsense: not offered, and a note says why."""
    adapter(tmp_path)
    signals = _asking(tmp_path, tool(line))
    assert {"firmware", "firmware-errors"}.isdisjoint(signals.offered)
    assert signals.check("firmware") == ""
    assert signals.notes["fw"].startswith("not offered: ")


def test_a_missing_devlink_is_no_signal(tmp_path: Path) -> None:
    """Without the program there is a note."""
    adapter(tmp_path)
    signals = _asking(tmp_path, str(tmp_path / "nothing"))
    assert "firmware" not in signals.offered
    assert "does not start: ENOENT" in signals.notes["fw"]


@pytest.mark.parametrize(
    "answer", ['{"health":{"x":[{"name":"fw","state":"healthy","error":true}]}}', '{"health":{"x":[5]}}']
)
def test_devlinks_older_and_odder_answers_are_read(answer: str) -> None:
    """Older tools call a reporter's name "name"; what is no number is no count; what is no list is no reporter."""
    try:
        found = devlink.parse(answer, "fw")
    except devlink.NoDevlinkError:
        assert "name" not in answer
    else:
        assert (found.state, found.errors) == ("healthy", None)


# ---- resets -----------------------------------------------------------------------------------------------------


def test_a_free_function_is_reset(tmp_path: Path) -> None:
    """The kernel is asked to reset the function alone."""
    adapter(tmp_path)
    reset = FunctionReset(_only(tmp_path), root=tmp_path)
    assert reset.blast_radius() == ("mlx5_0",)
    reset.run(_call())
    assert (tmp_path / f"sys/devices/pci0000:00/{PCI}/reset").read_text() == "1"


def test_a_reset_that_would_take_neighbours_along_is_refused(tmp_path: Path) -> None:
    """A bus reset, and one whose way the kernel does not tell, are not this driver's."""
    adapter(tmp_path)
    reset = FunctionReset(_only(tmp_path), root=tmp_path)
    pci = tmp_path / f"sys/devices/pci0000:00/{PCI}"
    (pci / "reset_method").write_text("bus\n")
    with pytest.raises(ResetError, match=f"refused: the kernel would reset {PCI} by bus"):
        reset.run(_call())
    (pci / "reset_method").unlink()
    with pytest.raises(ResetError, match="in a way it does not tell"):
        reset.run(_call())
    assert (pci / "reset").read_text() == "\n"


def test_everyone_in_the_way_is_named(tmp_path: Path) -> None:
    """Virtual functions, the host's network and open verbs of the same function's other device all stop a reset."""
    adapter(tmp_path, layer="Ethernet")
    adapter(tmp_path, "mlx5_bond", number=1, layer="Ethernet")
    pci = f"sys/devices/pci0000:00/{PCI}"
    grow(
        tmp_path,
        {
            f"{pci}/sriov_numvfs": "1",
            f"{pci}/virtfn0": "-> ../0000:05:00.2",
            f"{pci}/net/eth0/upper_vlan7": None,
            f"{pci}/net/eth0/master": "-> ../../bond0",
            "proc/net/route": "Iface\tDestination\neth0\t00000000\neth0\t0000000A",
            "proc/77/comm": "ib_write_bw",
            "proc/77/fd/9": "-> /dev/infiniband/uverbs1",
        },
    )
    reset = FunctionReset(_only(tmp_path, name="mlx5_0"), root=tmp_path)
    assert reset.blast_radius() == ("mlx5_0", "mlx5_bond", "eth0", "eth1", "0000:05:00.2")
    with pytest.raises(ResetError) as caught:
        reset.run(_call())
    assert str(caught.value) == (
        "refused, mlx5_0, mlx5_bond, eth0, eth1, 0000:05:00.2 would be reset: "
        "mlx5_0 has the virtual function 0000:05:00.2, eth0 is part of bond0, eth0 carries vlan7, "
        "eth0 carries 2 of the host's routes, pid 77 (ib_write_bw) has /dev/infiniband/uverbs1 open"
    )


def test_devlink_resets_run_the_tool_and_tell_its_refusal(tmp_path: Path, tool: Callable[[str], str]) -> None:
    """Recover and reload name the function; a tool that fails is quoted."""
    adapter(tmp_path)
    device, program = _only(tmp_path), tool("exit 0")
    RecoverReset(device, CommandRunner(), root=tmp_path, devlink=program).run(_call())
    ReloadReset(device, CommandRunner(), root=tmp_path, devlink=program).run(_call())
    assert (tmp_path / "asked").read_text().splitlines() == [
        f"health recover pci/{PCI} reporter fw",
        f"dev reload pci/{PCI} action driver_reinit",
    ]
    with pytest.raises(ResetError, match="exit code 1: kernel answers: no"):
        ReloadReset(device, CommandRunner(), root=tmp_path, devlink=tool("echo kernel answers: no; exit 1")).run(
            _call()
        )


def test_an_infiniband_port_has_no_link_to_set_down(tmp_path: Path) -> None:
    """Its interface is not its link: refused instead of done in vain."""
    adapter(tmp_path)
    with pytest.raises(ResetError, match="mlx5_0 has no Ethernet port"):
        LinkReset(_only(tmp_path), root=tmp_path).run(_call())


BEHIND_THE_FILTER = (
    "from devd.ipc.messages import Device\nfrom devd.workers import linux\n"
    "from devd.workers.drivers.infiniband import allowed_link\nfrom devd.workers.hw.allowance import needs_of\n"
    "from devd.workers.sandbox import seccomp\n"
    "needs = needs_of(allowed_link(Device('x')))\nlinux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)\n"
    "seccomp.restrict(needs.groups, needs.requests)\n"
)


@pytest.mark.parametrize("sandbox", ["", BEHIND_THE_FILTER], ids=["free", "behind-the-filter"])
def test_a_real_interface_is_set_down_and_up(sandbox: str) -> None:
    """In a network namespace of its own the loopback interface is up afterwards; a foreign name is refused.

    So is an interface with another hardware address: one of another namespace that happens to have the name.
    """
    code = (
        "from devd.workers.hw import links, rtnetlink\n"
        f"{sandbox}"
        "with rtnetlink.Route() as route: assert not route.link('lo').flags & 1\n"
        "try:\n    links.down_and_up('lo', '02:00:00:00:00:01')\nexcept OSError as error:\n    print(error)\n"
        "with rtnetlink.Route() as route: assert not route.link('lo').flags & 1\n"
        "links.down_and_up('lo', '00:00:00:00:00:00')\n"
        "with rtnetlink.Route() as route: assert route.link('lo').flags & 1\n"
        "try:\n    links.down_and_up('nothing0')\nexcept OSError as error:\n    print(error.errno)\n"
    )
    command = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-W", "ignore", "-c", code]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except FileNotFoundError:
        pytest.skip("unshare(1) is not installed")
    if done.stderr.startswith("unshare:"):
        pytest.skip(f"no network namespace here: {done.stderr.strip()}")
    assert (done.returncode, done.stdout.splitlines()) == (
        0,
        ["[Errno 19] the lo of this network namespace is 00:00:00:00:00:00, not 02:00:00:00:00:01", "19"],
    ), done.stderr


def _lend(root: Path) -> None:
    """Move the adapter's interface to a pod, and have another card's interface take its name here."""
    adapter(root, layer="Ethernet", address="0000:05:00.2")
    for path in (root / "sys/devices/pci0000:00/0000:05:00.2/net").iterdir():
        shutil.rmtree(path)
    (root / "sys/class/net/eth0").unlink()
    other = "sys/devices/pci0000:00/0000:01:00.0/net/eth0"
    grow(root, {f"{other}/carrier": "0", f"{other}/carrier_down_count": "9", f"{other}/address": "02:00:00:00:00:09"})
    link(root, "sys/class/net/eth0", other)


def test_an_interface_of_the_same_name_elsewhere_is_not_the_ports(tmp_path: Path) -> None:
    """The kernel tells an interface's name in its pod's namespace: the host's one of that name is not judged."""
    _lend(tmp_path)
    device = _only(tmp_path)
    assert "netdev" not in device.properties
    assert "/sys/class/net/eth0" not in allowed(device).read
    signals = InfinibandSignals(device, root=tmp_path)
    assert "carrier" not in signals.offered
    assert signals.check("carrier") == signals.check("flaps") == ""


def test_a_function_that_lent_its_interface_is_not_reset(tmp_path: Path, tool: Callable[[str], str]) -> None:
    """A pod may have it: whatever takes the function along is refused, and the host's interface is left alone."""
    _lend(tmp_path)
    device, program = _only(tmp_path), tool("exit 0")
    resets: list[FunctionReset | RecoverReset | ReloadReset] = [
        FunctionReset(device, root=tmp_path),
        RecoverReset(device, CommandRunner(), root=tmp_path, devlink=program),
        ReloadReset(device, CommandRunner(), root=tmp_path, devlink=program),
    ]
    for reset in resets:
        with pytest.raises(ResetError, match="port 1 has no network interface here: it may be in a pod"):
            reset.run(_call())
    assert not (tmp_path / "asked").exists()
    assert (tmp_path / "sys/devices/pci0000:00/0000:05:00.2/reset").read_text() == "\n"
    link_reset = LinkReset(device, root=tmp_path)
    assert link_reset.blast_radius() == ("mlx5_0",)
    with pytest.raises(ResetError, match="nothing to set down"):
        link_reset.run(_call())


def test_a_bond_upon_the_ports_interface_is_judged_and_not_set_down(tmp_path: Path) -> None:
    """A port that is part of a bond shows the bond: its carrier counts, and setting it down would hit the others."""
    real = adapter(tmp_path, layer="Ethernet")
    grow(real, {"ports/1/gid_attrs/ndevs/0": "vlan7"})
    grow(tmp_path, {"sys/class/net/vlan7/carrier": "0", "sys/class/net/vlan7/lower_bond0": None})
    grow(tmp_path, {"sys/class/net/bond0/lower_eth0": None, "sys/class/net/bond0/lower_eth7": None})
    device = _only(tmp_path)
    assert device.properties["netdev"] == "vlan7,eth0"
    assert InfinibandSignals(device, root=tmp_path).check("carrier") == "port 1 has no carrier on vlan7"
    with pytest.raises(ResetError, match="nothing to set down"):
        LinkReset(device, root=tmp_path).run(_call())


def test_a_sub_function_is_known_by_its_function_and_its_own_handle(tmp_path: Path, tool: Callable[[str], str]) -> None:
    """An auxiliary device stands between: the address is the PCI function's, devlink's handle the device's own."""
    adapter(tmp_path, part="mlx5_core.sf.4", guid="0000:0000:0000:0000")
    device = _only(tmp_path)
    assert (device.id, device.properties["address"]) == (f"{PCI}-mlx5_core.sf.4", PCI)
    assert device.numa_node == 0
    program = tool(_ANSWER.format("healthy", 0))
    assert "firmware" in InfinibandSignals(device, root=tmp_path, runner=CommandRunner(), devlink=program).offered
    ReloadReset(device, CommandRunner(), root=tmp_path, devlink=program).run(_call())
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[0] == "-j health show auxiliary/mlx5_core.sf.4 reporter fw"
    assert asked[-1] == "dev reload auxiliary/mlx5_core.sf.4 action driver_reinit"
    with pytest.raises(ResetError, match=f"mlx5_0 is not a PCI function of its own but a part of {PCI}"):
        FunctionReset(device, root=tmp_path).run(_call())
    assert (tmp_path / f"sys/devices/pci0000:00/{PCI}/reset").read_text() == "\n"


def test_a_reset_by_power_state_takes_nobody_along(tmp_path: Path) -> None:
    """The method ``pm`` resets one function, for this driver as for pci."""
    adapter(tmp_path)
    pci = tmp_path / f"sys/devices/pci0000:00/{PCI}"
    (pci / "reset_method").write_text("pm bus\n")
    FunctionReset(_only(tmp_path), root=tmp_path).run(_call())
    assert (pci / "reset").read_text() == "1"


def test_the_sandbox_is_told_what_a_probe_needs(tmp_path: Path) -> None:
    """The directories, and devlink with its socket."""
    adapter(tmp_path, layer="Ethernet")
    needs = allowed(_only(tmp_path))
    assert {"/sys/class/net/eth0", f"/sys/bus/pci/devices/{PCI}"} <= set(needs.read)
    assert (needs.execute, needs.sockets) == (("devlink",), ("AF_NETLINK",))


def test_this_machines_own_devices_are_listed() -> None:
    """Whatever is in the real /sys, a scan ends with clean ids, and twice the same."""
    first, second = InfinibandDriver({}).discover(), InfinibandDriver({}).discover()
    assert [one.id for one in first.devices] == [one.id for one in second.devices]
    for device in first.devices:
        assert len(device.id) <= 56
        assert device.nodes
