"""What a container gets for its devices, and which devices it should get: the examples people think of."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from devd.daemon.allocation import Offer, Share, preferred
from devd.daemon.errors import AllocationRefusedError
from devd.daemon.grants import GrantedDevice, grant
from devd.daemon.links import joined
from devd.daemon.natural import natural_key
from devd.daemon.resource import DeviceNodeGrant, MountGrant


@dataclass(frozen=True)
class Mount:
    """A configured mount."""

    host: str
    container: str
    read_only: bool = True


@dataclass(frozen=True)
class Rules:
    """A configured resource."""

    name: str = "devd.io/serial"
    driver: str = "node"
    access: str = "rw"
    container_path: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    mounts: Sequence[Mount] = ()


def serial(number: int) -> GrantedDevice:
    """Return a serial port."""
    return GrantedDevice(f"ttyUSB{number}", f"ttyUSB{number}", (f"/dev/ttyUSB{number}",))


CARD = GrantedDevice("card", "card0", ("/dev/dri/card0", "/dev/dri/renderD128"))


# ---- grant ----


def test_devices_come_in_natural_order_whatever_the_order_asked() -> None:
    """ttyUSB2 stands before ttyUSB10 in nodes and variables, for any order of the ids."""
    devices = [serial(number) for number in (10, 2, 1)]
    rules = Rules(env={"PORTS": "{paths}", "IDS": "{ids}", "NAMES": "{names}"}, annotations={"first": "{id} {path}"})
    expected = grant(rules, devices)
    assert [node.host_path for node in expected.nodes] == ["/dev/ttyUSB1", "/dev/ttyUSB2", "/dev/ttyUSB10"]
    assert expected.envs["PORTS"] == "/dev/ttyUSB1,/dev/ttyUSB2,/dev/ttyUSB10"
    assert expected.envs["IDS"] == expected.envs["NAMES"] == "ttyUSB1,ttyUSB2,ttyUSB10"
    assert expected.annotations == {"first": "ttyUSB1 /dev/ttyUSB1"}
    for _ in range(5):
        random.shuffle(devices)
        assert grant(rules, devices) == expected


def test_replicas_of_one_device_give_its_nodes_once() -> None:
    """A device asked for several times is one device to the container."""
    granted = grant(Rules(access="r", env={"N": "{ids}"}), [serial(1), serial(1)])
    assert granted.nodes == (DeviceNodeGrant("/dev/ttyUSB1", "/dev/ttyUSB1", "r"),)
    assert granted.envs == {"N": "ttyUSB1", "DEVD_DEVD_IO_SERIAL_DEVICES": "ttyUSB1"}


def test_a_container_path_is_made_for_each_node() -> None:
    """The index counts devices in natural order, the name is each node's own, and env has the container's paths."""
    rules = Rules(container_path="/dev/modem{index}", env={"P": "{paths}"}, annotations={"host": "{paths}"})
    granted = grant(rules, [serial(10), serial(2)])
    assert [(one.host_path, one.container_path) for one in granted.nodes] == [
        ("/dev/ttyUSB2", "/dev/modem0"),
        ("/dev/ttyUSB10", "/dev/modem1"),
    ]
    assert granted.envs["P"] == "/dev/modem0,/dev/modem1"
    assert granted.annotations["host"] == "/dev/ttyUSB2,/dev/ttyUSB10"
    card = grant(Rules(container_path="/gpu/{name}"), [CARD])
    assert [one.container_path for one in card.nodes] == ["/gpu/card0", "/gpu/renderD128"]


@pytest.mark.parametrize("path", ["/dev/modem", "//dev/./modem", "/dev/{resource}/../modem/x/.."])
def test_two_devices_on_one_path_are_refused_with_the_remedy(path: str) -> None:
    """A container path that two devices share, however it is spelled, names both and says what to write."""
    with pytest.raises(AllocationRefusedError) as refused:
        grant(Rules(container_path=path), [serial(2), serial(1)])
    text = str(refused.value)
    assert "/dev/ttyUSB1 of device ttyUSB1" in text
    assert "/dev/ttyUSB2 of device ttyUSB2" in text
    assert "{index}" in text
    assert "\n" not in text


def test_two_nodes_of_one_device_on_one_path_are_refused() -> None:
    """The index does not tell the nodes of one device apart."""
    with pytest.raises(
        AllocationRefusedError, match=r"card0 of device card and .*renderD128 of device card .*\{name\}"
    ):
        grant(Rules(container_path="/gpu{index}"), [CARD])


def test_a_mount_that_names_a_device_is_made_for_each() -> None:
    """Other mounts are made once, and both come in order."""
    mounts = (Mount("/sys/class/tty/{name}", "/tty/{index}"), Mount("/opt/driver", "/opt/driver", read_only=False))
    granted = grant(Rules(mounts=mounts), [serial(3), serial(1)])
    assert granted.mounts == (
        MountGrant("/sys/class/tty/ttyUSB1", "/tty/0", read_only=True),
        MountGrant("/sys/class/tty/ttyUSB3", "/tty/1", read_only=True),
        MountGrant("/opt/driver", "/opt/driver", read_only=False),
    )


def test_mounts_that_land_on_each_other_or_on_a_node_are_refused() -> None:
    """No two things may lie on one path of the container."""
    with pytest.raises(AllocationRefusedError, match=r"the mount of /a/1 and the mount of /a/2 would both be /b"):
        grant(Rules(mounts=(Mount("/a/{name}", "/b"),)), [GrantedDevice("x", "1", ()), GrantedDevice("y", "2", ())])
    with pytest.raises(AllocationRefusedError, match="/dev/ttyUSB1 of device ttyUSB1 and the mount of /x would both"):
        grant(Rules(mounts=(Mount("/x", "/dev/ttyUSB1"),)), [serial(1)])


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        (Rules(container_path="dev/{name}"), "not absolute"),
        (Rules(container_path="/dev/{nme}"), "container_path: device ttyUSB1 has no property nme; it has: none"),
        (Rules(env={"A": "{"}), "env A: single"),
        (Rules(annotations={"a/b": "{x y}"}), r"annotation a/b: unknown placeholder \{x y\}"),
        (Rules(mounts=(Mount("/{x-y}", "/y"),)), "mount /y: unknown placeholder"),
    ],
)
def test_rules_that_cannot_be_followed_refuse_in_one_line(rules: Rules, told: str) -> None:
    """Should a wrong template get past the configuration's checks, the pod's status says which one it is."""
    with pytest.raises(AllocationRefusedError, match=told) as refused:
        grant(rules, [serial(1)])
    assert str(refused.value).startswith("devd.io/serial: ")


def test_nothing_is_granted_for_no_device() -> None:
    """An empty request is refused."""
    with pytest.raises(AllocationRefusedError, match="no device"):
        grant(Rules(), [])


def test_a_device_without_nodes_grants_its_variables() -> None:
    """A simulated device has no node, and its id is still told."""
    granted = grant(Rules(env={"D": "{id}|{path}|{paths}"}), [GrantedDevice("sim-0", "sim-0", ())])
    assert (granted.nodes, granted.envs["D"]) == ((), "sim-0||")


def adapter(number: int, **properties: str) -> GrantedDevice:
    """Return a serial adapter that says something of itself."""
    return GrantedDevice(f"a{number}", f"ttyUSB{number}", (f"/dev/ttyUSB{number}",), properties)


def test_properties_are_joined_in_texts_and_each_devices_own_in_paths() -> None:
    """Natural order everywhere; placeholders go before properties of their name."""
    rules = Rules(
        env={"S": "{serial}", "N": "{name}"},
        container_path="/dev/by-serial/{serial}",
        mounts=(Mount("{sysfs}", "/sysfs/{serial}"),),
    )
    devices = [adapter(10, serial="B", sysfs="/sys/b", name="x"), adapter(2, serial="A", sysfs="/sys/a", name="y")]
    granted = grant(rules, devices)
    assert (granted.envs["S"], granted.envs["N"]) == ("A,B", "ttyUSB2")
    assert [(one.host_path, one.container_path) for one in granted.nodes] == [
        ("/dev/ttyUSB2", "/dev/by-serial/A"),
        ("/dev/ttyUSB10", "/dev/by-serial/B"),
    ]
    assert [(one.host_path, one.container_path) for one in granted.mounts] == [
        ("/sys/a", "/sysfs/A"),
        ("/sys/b", "/sysfs/B"),
    ]


def test_a_device_without_the_property_is_refused() -> None:
    """The text says which one, and what it has instead."""
    told = r"env S: device a2 has no property serial; it has: port, vendor"
    with pytest.raises(AllocationRefusedError, match=told):
        grant(Rules(env={"S": "{serial}"}), [adapter(1, serial="A"), adapter(2, vendor="v", port="p")])


@pytest.mark.parametrize("serial", ["../../etc", "..", ".", "a/b"])
def test_what_a_device_says_of_itself_leads_nowhere(serial: str) -> None:
    """A serial number that would lead out of its place in a path is refused; in a variable it is text like any."""
    rules = (Rules(mounts=(Mount("/var/lib/x/{serial}", "/x"),)), Rules(container_path="/dev/{serial}"))
    for rule in rules:
        with pytest.raises(AllocationRefusedError, match=r"property serial of a1 is .*: no part of a path"):
            grant(rule, [adapter(1, serial=serial)])
    assert grant(Rules(env={"S": "{serial}"}), [adapter(1, serial=serial)]).envs["S"] == serial


def test_every_resource_has_a_variable_of_its_own() -> None:
    """It is named after the resource, and the operator's word goes before."""
    assert grant(Rules(name="a-b.io/X.y"), [serial(2), serial(1)]).envs == {
        "DEVD_A_B_IO_X_Y_DEVICES": "ttyUSB1,ttyUSB2"
    }
    own = Rules(env={"DEVD_DEVD_IO_SERIAL_DEVICES": "mine"})
    assert grant(own, [serial(1)]).envs == {"DEVD_DEVD_IO_SERIAL_DEVICES": "mine"}


def test_machines_find_their_functions() -> None:
    """Names in capitals with dots and the slash replaced, the addresses of all groups separated by commas."""
    rules = Rules(name="nvidia.com/TU104GL-T4", driver="vfio")
    envs = grant(rules, [adapter(1, addresses="0000:03:00.0,0000:03:00.1"), adapter(2, addresses="0000:04:00.0")]).envs
    listed = "0000:03:00.0,0000:03:00.1,0000:04:00.0"
    assert envs == {
        "DEVD_NVIDIA_COM_TU104GL_T4_DEVICES": "a1,a2",
        "PCI_RESOURCE_NVIDIA_COM_TU104GL-T4": listed,
        "PCIDEVICE_NVIDIA_COM_TU104GL-T4": listed,
    }


def test_nodes_that_devices_share_are_told_once() -> None:
    """A node that several devices bring along stands once in the list of paths."""
    cards = [GrantedDevice(f"g{n}", f"nvidia{n}", (f"/dev/nvidia{n}", "/dev/nvidiactl")) for n in (0, 1)]
    granted = grant(Rules(env={"P": "{paths}"}), cards)
    assert granted.envs["P"] == "/dev/nvidia0,/dev/nvidiactl,/dev/nvidia1"
    assert len(granted.nodes) == 3


# ---- preferred ----


def offers(**devices: tuple[int, int | None]) -> list[Offer]:
    """Return offers: device=(replicas, NUMA node)."""
    return [
        Offer(device, tuple(f"{device}::{number}" for number in range(replicas)), node)
        for device, (replicas, node) in devices.items()
    ]


def gpus(text: str) -> list[Offer]:
    """Return devices from words like ``a@s0-bc``: its name, its switch, whom it is joined to."""
    found = []
    for word in text.split():
        place, _dash, links = word.partition("-")
        name, _at, switch = place.partition("@")
        found.append(Offer(name, (name,), None, switch, frozenset(links)))
    return found


def choose(offered: Sequence[Offer], size: int, share: Share, taken: Sequence[str] = (), must: str = "") -> str:
    """Return the preferred ids in one text, with some taken by others."""
    available = [replica for one in offered for replica in one.replicas if replica not in taken]
    return " ".join(preferred(offered, available, must.split(), size, share))


@pytest.mark.parametrize(
    ("share", "size", "chosen"),
    [
        ("pack", 3, "a::0 a::1 a::2"),
        ("pack", 4, "a::0 a::1 a::2 b::0"),
        ("spread", 2, "a::0 b::0"),
        ("spread", 5, "a::0 a::1 b::0 b::1 c::0"),
        ("pack", 0, ""),
        ("spread", 0, ""),
    ],
)
def test_pack_uses_few_devices_and_spread_many(share: Share, size: int, chosen: str) -> None:
    """Packing fills a device before the next; spreading takes one of each, then evenly more."""
    assert choose(offers(a=(3, None), b=(3, None), c=(3, None)), size, share) == chosen


def test_one_replica_goes_where_the_policy_says() -> None:
    """With others' containers on a device already, packing joins them and spreading goes elsewhere."""
    offered = offers(a=(3, 0), b=(3, 0), c=(3, 0))
    assert choose(offered, 1, "pack", taken=["b::0"]) == "b::1"
    assert choose(offered, 1, "spread", taken=["a::0", "b::0"]) == "c::0"


def test_what_is_needed_draws_the_rest_to_it() -> None:
    """Packing fills the device that must be used, spreading leaves it at what is needed."""
    offered = offers(a=(3, None), b=(3, None))
    assert choose(offered, 3, "pack", must="b::1") == "b::0 b::1 b::2"
    assert choose(offered, 2, "spread", must="b::1") == "a::0 b::1"


def test_one_numa_node_is_kept_where_it_can_be() -> None:
    """A node that holds the request wins over lower names; the needed device's node over both; None is near all."""
    offered = offers(a=(1, 0), b=(1, 1), c=(1, 1), d=(1, None))
    assert choose(offers(a=(1, 0), b=(1, 1), c=(1, 1)), 2, "pack") == "b::0 c::0"
    assert choose(offered, 2, "pack", must="a::0") == "a::0 d::0"
    assert choose(offers(a=(2, 0), b=(1, 1), c=(1, 1)), 2, "spread") == "b::0 c::0"


def test_devices_of_one_switch_are_kept_together() -> None:
    """Two of one switch are better than two lower names of two switches; who has no switch is near all."""
    assert choose(gpus("a@s0 b@s1 c@s1"), 2, "pack") == "b c"
    assert choose(gpus("a@s0 b@s1 c"), 2, "pack") == "a c"
    assert choose(gpus("a@s0 b@s1 c@s1 d@s0"), 2, "pack", must="d") == "a d"


def test_linked_devices_are_kept_together() -> None:
    """Devices that are joined go first, whichever end tells of it; most links win."""
    assert choose(gpus("a b-d c d"), 2, "pack") == "b d"
    assert choose(gpus("a-b b c-de d-e e"), 3, "pack") == "c d e"
    assert choose(gpus("a-b b-c c-d d"), 2, "pack", must="d") == "c d"


def test_a_whole_group_is_not_broken_up_for_what_leftovers_can_do() -> None:
    """One device comes from a group that has lost a member already, of links first, then of switches."""
    linked = gpus("a-b b c-d d e-f f")
    assert choose(linked, 1, "pack") == "a"
    assert choose(linked, 1, "pack", taken=["e"]) == "f"
    assert choose(linked, 3, "pack", taken=["e"]) == "a b f"
    switched = gpus("a@s0 b@s0 c@s1 d@s1")
    assert choose(switched, 1, "pack", taken=["d"]) == "c"


def test_links_are_found_by_whatever_names_the_other_end() -> None:
    """A driver names an end by id, address, name or UUID; strangers and the device itself are no ends."""
    found = joined(
        {
            "a": {"address": "0000:01:00.0", "links": "0000:02:00.0, GPU-c,0000:01:00.0,nobody"},
            "b": {"address": "0000:02:00.0", "links": "a"},
            "c": {"uuid": "GPU-c"},
        }
    )
    assert found == {"a": {"b", "c"}, "b": {"a"}, "c": frozenset()}
    assert joined({"a": {}}) == {"a": frozenset()}


def test_unknown_ids_are_passed_over() -> None:
    """An id that has just left the list is not preferred, as long as the others suffice."""
    offered = offers(a=(2, None))
    assert preferred(offered, ["zz", "a::1", "a::0"], [], 2, "pack") == ["a::0", "a::1"]
    with pytest.raises(AllocationRefusedError, match=r"of 3 devices: 2 are available \(and 1 unknown: zz\)"):
        preferred(offered, ["zz", "a::1", "a::0"], [], 3, "pack")


@pytest.mark.parametrize(
    ("available", "must", "size", "told"),
    [
        (["a::0"], [], 2, "of 2 devices: 1 are available"),
        (["a::0"], ["a::1"], 1, "not available: a::1"),
        (["a::0", "a::1"], ["a::0", "a::1"], 1, "2 are needed already"),
        (["a::0", "a::0"], [], 1, "available ids given more than once: a::0"),
        (["a::0", "a::1"], ["a::1", "a::1"], 2, "needed ids given more than once: a::1"),
        (["a::0"], [], -1, "must not be negative"),
        (["zz"], ["zz"], 1, "not available: zz"),
    ],
)
def test_what_cannot_be_met_is_refused_in_one_line(available: list[str], must: list[str], size: int, told: str) -> None:
    """Each wrong request is told by what is wrong with it."""
    for share in ("pack", "spread"):
        with pytest.raises(AllocationRefusedError, match=told) as refused:
            preferred(offers(a=(2, None)), available, must, size, share)
        assert "\n" not in str(refused.value)


def test_natural_order_is_total() -> None:
    """Numbers compare as numbers, and two different texts never compare equal."""
    names = ["a10", "a2", "a02", "a", "b1", "10", "2", "a2b"]
    assert sorted(names, key=natural_key) == ["2", "10", "a", "a02", "a2", "a2b", "a10", "b1"]
    assert natural_key("a01") != natural_key("a1")
