"""What containers are given, across keys and resources: properties in templates, variables under one name."""

from pathlib import Path

import pytest

from devd.daemon.cli.configuration import check
from devd.daemon.config import ConfigError, collisions, load_text
from devd.daemon.config.properties import CDI, PROPERTIES
from devd.workers.drivers import DRIVERS, KINDS

USB = "resources: [{name: a.io/x, driver: usb, match: {vendor: '0403'}, "
NODE = "{driver: node, match: {path: /dev/x}"
OTHER = "{driver: node, match: {path: /dev/y}"


def told(text: str) -> str:
    """Return what is wrong with a file."""
    with pytest.raises(ConfigError) as caught:
        load_text(text, "t.yaml")
    return caught.value.render()


@pytest.mark.parametrize(
    "more",
    [
        "env: {A: '{serial} {port} {id}'}",
        "annotations: {a: '{speed}'}",
        "mounts: [{host: '{sysfs}', container: '/x/{serial}'}]",
        "container_path: '/dev/usb-{serial}'",
        "env: {A: '{cdi}'}",
    ],
)
def test_properties_of_the_driver_may_stand_in_templates(more: str) -> None:
    """Each of the texts a container is given may name them."""
    load_text(f"{USB}{more}}}]")


@pytest.mark.parametrize(
    ("more", "where"),
    [
        (
            "env: {A: '{sreial}'}",
            "env.A: {sreial} is no placeholder and no property of driver usb, did you mean serial?",
        ),
        ("annotations: {a: '{uuid}'}", "annotations.a: {uuid} is no placeholder and no property of driver usb"),
        ("mounts: [{host: '/{x}', container: /y}]", "mounts[0].host: {x} is no placeholder and no property"),
        ("container_path: '/dev/{address}'", "container_path: {address} is no placeholder and no property"),
    ],
)
def test_properties_nobody_has_are_refused(more: str, where: str) -> None:
    """The place, what stands there, and all that may."""
    text = told(f"{USB}{more}}}]")
    assert where in text
    assert "{product_name}" in text


def test_a_selectors_own_properties_are_known() -> None:
    """What simulated devices are given by the file may be named in it."""
    devices = "{devices: [{name: a, properties: {lot: x}}]}"
    sim = f"resources: [{{name: a.io/x, driver: sim, match: {devices}, env: {{A: '{{%s}}'}}}}]"
    load_text(sim % "lot")
    assert "no property of driver sim" in told(sim % "other")


def test_all_drivers_are_described() -> None:
    """A driver of devd's own is checked; a third party's is left to Allocate."""
    assert set(PROPERTIES) == {*DRIVERS, *KINDS}
    assert all(name not in names for names in PROPERTIES.values() for name in CDI)


def test_names_that_make_one_variable_are_refused() -> None:
    """The variable named after a resource is its own."""
    text = told(f"resources:\n- {NODE}, name: a.io/b-c}}\n- {NODE}, name: a.io/b.c}}\n")
    assert (
        "resources[1].name: its containers get the variable DEVD_A_IO_B_C_DEVICES, as those of a.io/b-c (line" in text
    )


def test_one_variable_of_two_resources_is_warned_of() -> None:
    """Texts that are the same for every device do no harm, all others are told with both names."""

    def warnings(one: str, two: str) -> list[str]:
        return collisions(load_text(f"resources: [{NODE}, name: a.io/x, {one}}}, {OTHER}, name: a.io/y, {two}}}]"))

    (warning,) = warnings("env: {A: '{paths}'}", "env: {A: '{paths}'}")
    assert "variable A comes from a.io/x and from a.io/y" in warning
    (warning,) = warnings("annotations: {A: x}", "annotations: {A: y}")
    assert "annotation A comes from a.io/x and from a.io/y" in warning
    (warning,) = warnings("env: {A: x}", "env: {DEVD_A_IO_X_DEVICES: x}")
    assert "variable DEVD_A_IO_X_DEVICES" in warning
    assert warnings("env: {A: x}", "env: {A: x}") == []
    assert warnings("env: {A: x}", "env: {B: x}") == []


def both(one: str, two: str) -> list[str]:
    """Return what is said of two resources of driver node with these keys."""
    return collisions(
        load_text(f"resources: [{{driver: node, name: a.io/x, {one}}}, {{driver: node, name: a.io/y, {two}}}]")
    )


@pytest.mark.parametrize(
    ("one", "two", "path"),
    [
        ("/dev/serial{index}", "/dev/serial{index}", "/dev/serial0"),
        ("/dev/serial{index}", "/dev/serial3", "/dev/serial3"),
        ("/dev/x", "/dev//x/", "/dev/x"),
    ],
)
def test_one_path_of_two_resources_is_warned_of(one: str, two: str, path: str) -> None:
    """A container that takes both would have two nodes under one path."""
    (warning,) = both(
        f"match: {{path: /dev/a}}, container_path: '{one}'", f"match: {{path: /dev/b}}, container_path: '{two}'"
    )
    assert f"path {path} in the container comes from a.io/x and from a.io/y" in warning


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("/dev/{id}", "/dev/{id}"),
        ("/dev/{name}", "/dev/{name}"),
        ("/dev/{resource}/{index}", "/dev/{resource}/{index}"),
        ("/dev/a{index}", "/dev/b{index}"),
        ("/dev/a{index}", "/dev/ax"),
    ],
)
def test_paths_that_are_each_devices_own_are_fine(one: str, two: str) -> None:
    """What stands for the device or the resource keeps them apart."""
    paths = [f"match: {{path: /dev/{name}}}, container_path: '{text}'" for name, text in (("a", one), ("b", two))]
    assert both(*paths) == []


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        ("path: /dev/kvm", "path: /dev/kvm", "/dev/kvm"),
        ("path: /dev/kvm", "path: [/dev/x, '/dev/k*']", "/dev/kvm and /dev/k*"),
        ("path: '/dev/ttyUSB*'", "path: '/dev/tty*'", "/dev/ttyUSB* and /dev/tty*"),
        ("groups: [{name: g, path: [/dev/a, /dev/b]}]", "path: '/dev/b'", "/dev/b"),
    ],
)
def test_one_node_of_two_resources_is_warned_of(one: str, two: str, same: str) -> None:
    """Where the text tells, whichever of the two stands first."""
    for first, second in ((one, two), (two, one)):
        (warning,) = both(f"match: {{{first}}}", f"match: {{{second}}}")
        assert "a.io/x and a.io/y name the same device nodes (" in warning
        assert set(same.split(" and ")) <= set(warning.partition("(")[2].partition(")")[0].split(" and "))


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("path: /dev/kvm", "path: '/dev/x*'"),
        ("path: /dev/kvm", "path: '/dev/k*', exclude: /dev/kvm"),
        ("path: '/dev/k*', exclude: '/dev/kv*'", "path: /dev/kvm"),
        ("path: '/dev/video*', properties: {idVendor: '046d'}", "path: '/dev/video*'"),
        ("path: '/dev/video*'", "path: '/dev/video*', exclude_properties: {idVendor: '046d'}"),
    ],
)
def test_nodes_that_may_be_others_are_no_warning(one: str, two: str) -> None:
    """What one of them leaves out, or chooses by more than the path."""
    assert both(f"match: {{{one}}}", f"match: {{{two}}}") == []


def test_check_shows_warnings_and_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``devd check`` names the file, says what is doubtful, and exits 0."""
    file = tmp_path / "devd.yaml"
    file.write_text(f"resources: [{NODE}, name: a.io/x, env: {{A: x}}}}, {NODE}, name: a.io/y, env: {{A: y}}}}]")
    assert check(file) == 0
    assert f"{file}: warning: variable A" in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["auto", "only"])
@pytest.mark.parametrize(
    ("more", "where"),
    [
        ("container_path: '/dev/x{index}'", "container_path: {index} depends on all devices of a container"),
        ("mounts: [{host: '/a/{ids}', container: /b}]", "mounts[0].host: {ids} depends on all devices"),
        ("mounts: [{host: /a, container: '/b/{names}'}]", "mounts[0].container: {names} depends on all devices"),
    ],
)
def test_paths_that_depend_on_other_devices_cannot_be_specified(mode: str, more: str, where: str) -> None:
    """A CDI specification has each device by itself: it says so before a container gets another device's node."""
    assert where in told(f"{USB}cdi: {mode}, {more}}}]")
    load_text(f"{USB}cdi: off, {more}}}]")


def test_variables_may_tell_of_all_devices() -> None:
    """They are in the answer to the kubelet, never in a specification."""
    load_text(f"{USB}cdi: only, env: {{A: '{{ids}} {{index}}'}}, container_path: '/dev/x-{{serial}}'}}]")


@pytest.mark.parametrize(("text", "mode"), [("off", "off"), ("'off'", "off"), ("false", "off"), ("only", "only")])
def test_off_needs_no_quotes(text: str, mode: str) -> None:
    """YAML reads it as false, and it is meant as it is written."""
    assert load_text(f"{USB}cdi: {text}}}]").resources[0].cdi == mode
    assert "allowed auto, only, off" in told(f"{USB}cdi: on}}]")
