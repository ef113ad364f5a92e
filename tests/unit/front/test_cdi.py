"""CDI's names and specifications: valid by its rules, and never one for two."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devd.daemon import cdi
from devd.daemon.cdi_shelf import Shelf
from devd.daemon.config import Resource, load_text
from devd.daemon.resource import ContainerGrant, DeviceNodeGrant, MountGrant
from devd.daemon.scout_feed import DEVICE_ID
from devd.ipc.messages import Device, Node, SpecFile
from devd.workers.cdi_files import OWN_NAME
from tests.support import cdi_rules

DOMAINS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,5}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,5}[a-z0-9])?){0,2}", fullmatch=True)
NAMES = st.from_regex(r"(x-)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,6}[A-Za-z0-9])?", fullmatch=True)
RESOURCES = st.builds("{}/{}".format, DOMAINS, NAMES)
IDS = st.from_regex(DEVICE_ID, fullmatch=True) | st.builds(
    "x:{}:x".format, st.from_regex(r"[-:.a]{1,3}", fullmatch=True)
)
NODE = Node("/dev/a", "char", 4, 64)


def resource(more: str = "", *, name: str = "a.io/x") -> Resource:
    """Return one resource of driver node."""
    text = f"resources: [{{name: {name}, driver: node, match: {{path: '/dev/x*'}}, cdi: auto, {more}}}]"
    return load_text(text, "t.yaml").resources[0]


@given(st.sets(RESOURCES, min_size=2, max_size=2))
def test_no_two_resources_have_one_kind_or_file(names: set[str]) -> None:
    """Kinds and files are valid, the scribe's to write, and different for different resources."""
    for name in names:
        assert cdi_rules.KIND.fullmatch(cdi.kind(name))
        assert OWN_NAME.fullmatch(cdi.file_name(name))
    assert len({cdi.kind(name) for name in names}) == len({cdi.file_name(name) for name in names}) == 2


@given(st.sets(IDS, min_size=2, max_size=2))
def test_no_two_devices_have_one_name(ids: set[str]) -> None:
    """Whatever id the kubelet takes has a valid name in CDI, and no other id has it."""
    names = {cdi.device_name(one) for one in ids}
    assert len(names) == 2
    assert all(cdi_rules.DEVICE.fullmatch(name) for name in names)
    assert all(cdi.QUALIFIED.fullmatch(cdi.qualified("a.io/x", one)) for one in ids)


def test_the_longest_names_have_a_file() -> None:
    """A name of 253 characters in front of the slash and 63 behind it fits where file names have 255."""
    longest = f"{'a' * 200}.{'b' * 52}/{'c' * 63}"
    assert OWN_NAME.fullmatch(cdi.file_name(longest))
    assert cdi.file_name(longest) != cdi.file_name(longest[:-1] + "d")


@pytest.mark.parametrize(
    ("name", "device", "container_path", "version"),
    [
        ("a.io/x", "tty", "{path}", "0.3.0"),
        ("a.io/x", "0000:01:00.0", "{path}", "0.5.0"),
        ("a.io/x", "tty", "/dev/serial/{name}", "0.5.0"),
        ("a.io/x.y", "tty", "{path}", "0.6.0"),
    ],
)
def test_the_version_is_the_lowest_that_will_do(name: str, device: str, container_path: str, version: str) -> None:
    """Runtimes refuse versions that are newer than they are."""
    rules = resource(f"container_path: '{container_path}'", name=name)
    text = cdi.specification(name, {device: cdi.edits(rules, Device(device, (NODE,)))})
    assert f'"cdiVersion": "{version}"' in text
    assert set(cdi_rules.devices(text)) == {device}


def test_what_brings_nothing_is_left_out() -> None:
    """CDI refuses a device without edits and a file without devices."""
    assert cdi.specification("a.io/x", {"a": cdi.Edits()}) == ""


def test_too_many_devices_are_refused() -> None:
    """A specification that no message could carry is told, not cut."""
    one = cdi.edits(resource(), Device("a", (NODE,)))
    with pytest.raises(cdi.CdiError, match="split the resource in two"):
        cdi.specification("a.io/x", {f"device-{number}": one for number in range(10_000)})


def test_only_takes_out_what_the_names_bring() -> None:
    """A mount that no specification of devd's has stays in the answer."""
    brought, other = MountGrant("/a", "/b", read_only=True), MountGrant("/c", "/d", read_only=True)
    full = ContainerGrant((DeviceNodeGrant("/dev/a", "/dev/a", "rw"),), (brought, other), {"A": "1"})
    edits = cdi.Edits(mounts=(brought,))
    only = cdi.by_name(full, only=True, names=["v/c=a"], covered=[edits])
    assert only == ContainerGrant((), (other,), {"A": "1"}, cdi=("v/c=a",))
    beside = cdi.by_name(full, only=False, names=["v/c=a"], covered=[edits])
    assert (beside.nodes, beside.mounts, beside.cdi) == (full.nodes, full.mounts, ("v/c=a",))


def stands(shelf: Shelf, digest: str, error: str = "") -> None:
    """Tell a shelf what stands in its file."""
    shelf.take(SpecFile(shelf.file, shelf.digest, digest, error))


def test_a_name_is_true_while_what_stands_says_the_same() -> None:
    """Not before it stands; not for the device whose numbers changed; for the others whatever becomes of the file."""
    shelf, rules = Shelf("a.io/x"), resource()
    one, two = Device("a", (NODE,)), Device("b", (Node("/dev/b", "char", 4, 65),))
    assert shelf.refresh(rules, {"a": one, "b": two})
    assert [shelf.name(device, set().__contains__) for device in "ab"] == ["", ""]
    assert not shelf.settled
    shelf.compose()
    stands(shelf, shelf.digest)
    first = shelf.digest
    names = ["devd.a.io/x=a", "devd.a.io/x=b"]
    assert [shelf.name(device, set().__contains__) for device in "ab"] == names
    moved = Device("b", (Node("/dev/b", "char", 4, 99),))
    assert shelf.refresh(rules, {"a": one, "b": moved})
    assert not shelf.settled
    shelf.compose()
    assert [shelf.name(device, set().__contains__) for device in "ab"] == [names[0], ""]
    stands(shelf, first, "ENOSPC")
    assert [shelf.name(device, set().__contains__) for device in "ab"] == [names[0], ""]
    assert shelf.settled
    stands(shelf, "", "ENOENT")
    assert [shelf.name(device, set().__contains__) for device in "ab"] == ["", ""]
    stands(shelf, shelf.digest)
    assert [shelf.name(device, set().__contains__) for device in "ab"] == names


def test_new_rules_are_another_specification() -> None:
    """Devices that stay the same are described anew; one that is gone is not."""
    shelf = Shelf("a.io/x")
    devices = {"a": Device("a", (NODE,)), "b": Device("b", (NODE,))}
    rules = resource()
    assert shelf.refresh(rules, devices)
    assert not shelf.refresh(rules, dict(devices))
    assert set(cdi_rules.devices(shelf.compose() or "")) == {"a", "b"}
    assert shelf.refresh(resource("access: r"), {"a": devices["a"]})
    found = cdi_rules.devices(shelf.compose() or "")
    assert set(found) == {"a"}
    assert found["a"]["deviceNodes"][0]["permissions"] == "r"


def test_a_vendors_name_that_is_none_is_told() -> None:
    """A driver's property ``cdi`` has to be a fully qualified name."""
    shelf = Shelf("a.io/x")
    shelf.refresh(resource(), {"a": Device("a", (NODE,), {"cdi": "gpu 1"})})
    assert "'gpu 1': no name like vendor/class=device" in shelf.unfit("a")
    assert shelf.compose() == ""


def test_paths_of_the_host_are_as_they_were_found(tmp_path: Path) -> None:
    """The node's numbers stand beside a link's path: nobody has to follow it."""
    path = str(tmp_path / "by-id")
    edits = cdi.edits(resource("container_path: /dev/x"), Device("a", (Node(path, "block", 8, 16),)))
    assert edits.nodes == (cdi.NodeEdit("/dev/x", path, "b", 8, 16, "rw"),)


def test_what_no_file_can_hold_leaves_the_old_one_true(monkeypatch: pytest.MonkeyPatch) -> None:
    """The devices that stood before keep their names; the new one says what is wrong."""
    shelf, rules, known = Shelf("a.io/x"), resource(), set[str]()
    one, two = Device("a", (NODE,)), Device("b", (Node("/dev/b", "char", 4, 65),))
    shelf.refresh(rules, {"a": one})
    shelf.compose()
    stands(shelf, shelf.digest)
    monkeypatch.setattr(cdi, "MAX_SPEC_BYTES", len(shelf.text))
    shelf.refresh(rules, {"a": one, "b": two})
    assert shelf.compose() is None
    assert shelf.settled
    assert [shelf.name(device, known.__contains__) for device in "ab"] == ["devd.a.io/x=a", ""]
    assert "split the resource in two" in shelf.unfit("b")
