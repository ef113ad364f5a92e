"""Each rule of the configuration, broken once: the exact line, the exact key, and what the message says."""

import pytest

from devd.daemon.config import ConfigError, Problem, load_text

BAD_LINE = 5


def problems(text: str) -> tuple[Problem, ...]:
    """Return what is wrong with a text; fails when nothing is."""
    with pytest.raises(ConfigError) as caught:
        load_text(text, "t.yaml")
    return caught.value.problems


def only(text: str) -> Problem:
    """Return the one thing that is wrong with a text."""
    found = problems(text)
    assert len(found) == 1, [one.render("t.yaml") for one in found]
    return found[0]


def node(line: str) -> str:
    """Return a configuration whose fifth line is ``line``, in a resource of driver node."""
    return f"resources:\n  - name: a.io/x\n    driver: node\n    match: {{path: /dev/x}}\n    {line}\n"


def sim(line: str) -> str:
    """Return a configuration whose fifth line is ``line``, in a resource of driver sim without a match."""
    return f"resources:\n  - name: a.io/x\n    driver: sim\n    replicas: 2\n    {line}\n"


@pytest.mark.parametrize(
    ("line", "key", "part"),
    [
        ("acess: rw", "acess", "unknown key, did you mean access?"),
        ("access: rr", "access", "not a device permission (found rr; allowed r, w and m in any mix, each once)"),
        ("access: rx", "access", "not a device permission"),
        ('access: ""', "access", "not a device permission"),
        ("replicas: 0", "replicas", "too small (found 0; allowed 1 to 9999)"),
        ("replicas: 10000", "replicas", "too large (found 10000; allowed 1 to 9999)"),
        ("replicas: 1.5", "replicas", "a whole number is needed"),
        ("replicas: true", "replicas", "a whole number is needed"),
        ('replicas: "3"', "replicas", 'a whole number is needed (found "3"'),
        ("share: packed", "share", "did you mean pack? (found packed; allowed pack, spread)"),
        ("share: yes", "share", "YAML reads this as true or false: put it in quotes to have text (found yes"),
        ("env: [A]", "env", "a map is needed (found a list of 1 entry"),
        ('env: {1A: "x"}', "env.1A", "the key is not a valid name (found '1A'"),
        ('env: {A-B: "x"}', "env.A-B", "the key is not a valid name"),
        ("env: {A: 1}", "env.A", "YAML reads this as a number"),
        ("env: {A: }", "env.A", "a value is missing (found nothing"),
        ('env: {A: "{pth}"}', "env.A", "{pth} is no placeholder and no property of driver node, did you mean path?"),
        ('env: {A: "{"}', "env.A", "a lone {: write {{ for a brace that stays"),
        ('env: {A: "{major}"}', "env.A", "allowed {id}, {ids}, {path}, {paths}, {name}, {names}, {index}, {resource}"),
        ('annotations: {"a b": "x"}', "annotations.'a b'", "the key is not a valid name"),
        ('annotations: {a: "{x}"}', "annotations.a", "{x} is no placeholder"),
        ("mounts: {host: /a}", "mounts", "a list of maps is needed (found a map (host)"),
        ("mounts: [{host: /a}]", "mounts[0].container", "this key is needed"),
        ("mounts: [{host: a, container: /b}]", "mounts[0].host", "the path must be absolute"),
        ("mounts: [{host: /a, container: /b/../c}]", "mounts[0].container", "without .."),
        ("mounts: [{host: /a, container: /b, read_only: 1}]", "mounts[0].read_only", "true or false is needed"),
        ('container_path: "dev/{name}"', "container_path", "the path must be absolute"),
        ('container_path: "/dev/{nam}"', "container_path", "{nam} is no placeholder"),
        ("discovery: {period: 10}", "discovery.period", "a duration needs a unit: ms, s, m or h (found 10"),
        ("discovery: {linger: 25h}", "discovery.linger", "too long"),
        ("discovery: {timeout: 1ms}", "discovery.timeout", "too short"),
        ("restart: {intensity: -1}", "restart.intensity", "too small"),
        ("restart: {backoff: 1m}", "restart.backoff", "longer than the longest one (found 1m; allowed backoff (1m)"),
        ("restart: {backoff: 2s, backoff_max: 1s}", "restart.backoff_max", "the first pause is longer"),
        ("restart: 5", "restart", "a map is needed (found 5; allowed a map)"),
        ("probe: fast", "probe", "a map is needed"),
        ("probe:", "probe", "a map is needed (found nothing"),
        ("probe: {period: 1s}", "probe.kind", "this key is needed"),
        (
            "probe: {kind: opne}",
            "probe.kind",
            "did you mean open? (found opne; allowed exists, open, read, ioctl, sysfs, exec)",
        ),
        ("probe: {kind: sim}", "probe.kind", "probe kind sim goes with driver sim only"),
        ("probe: {kind: exists, period: 5}", "probe.period", "a duration needs a unit"),
        ('probe: {kind: exists, period: "5"}', "probe.period", "a duration needs a unit"),
        ("probe: {kind: exists, period: 5 s}", "probe.period", "not a duration (found 5 s; allowed 50ms to 1h, as in"),
        ("probe: {kind: exists, period: 5S}", "probe.period", "not a duration"),
        ("probe: {kind: exists, period: 1:30}", "probe.period", "a duration needs a unit"),
        ("probe: {kind: exists, period: 49ms}", "probe.period", "too short"),
        ("probe: {kind: exists, period: 61m}", "probe.period", "too long"),
        ("probe: {kind: exists, timeout: 9ms}", "probe.timeout", "too short"),
        ("probe: {kind: exists, timeout: 11m}", "probe.timeout", "too long"),
        ("probe: {kind: exists, failures: 0}", "probe.failures", "too small"),
        ("probe: {kind: exists, successes: 101}", "probe.successes", "too large"),
        ("probe: {kind: exists, mode: r}", "probe.mode", "unknown key"),
        ("probe: {kind: open, mode: wr}", "probe.mode", "found wr; allowed r, w, rw"),
        ("probe: {kind: read, bytes: 0}", "probe.bytes", "too small"),
        ("probe: {kind: read, offset: -1}", "probe.offset", "too small"),
        ("probe: {kind: sysfs, equals: a}", "probe.attribute", "this key is needed"),
        ("probe: {kind: sysfs, attribute: /etc/passwd, equals: a}", "probe.attribute", "not a sysfs attribute"),
        ('probe: {kind: sysfs, attribute: "{id}", equals: a}', "probe.attribute", "{name}, {major}, {minor}"),
        ("probe: {kind: sysfs, attribute: a}", "probe", "exactly one of equals, matches, range is needed"),
        ("probe: {kind: sysfs, attribute: a, equals: b, matches: c}", "probe", "found equals, matches"),
        ("probe: {kind: sysfs, attribute: a, equals: on}", "probe.equals", "put it in quotes to have text (found on"),
        ("probe: {kind: sysfs, attribute: a, equals: 1}", "probe.equals", "YAML reads this as a number"),
        ('probe: {kind: sysfs, attribute: a, matches: "("}', "probe.matches", "not a regular expression: missing )"),
        ("probe: {kind: sysfs, attribute: a, range: [2, 1]}", "probe.range", "the larger number comes first"),
        ("probe: {kind: sysfs, attribute: a, range: [1]}", "probe.range", "two numbers are needed"),
        ("probe: {kind: sysfs, attribute: a, range: [1, .nan]}", "probe.range", "two numbers are needed"),
        ("probe: {kind: exec}", "probe.command", "this key is needed (found nothing; allowed a list of texts)"),
        ("probe: {kind: exec, command: []}", "probe.command", "the list is empty"),
        ("probe: {kind: exec, command: /bin/true}", "probe.command", "a list of texts is needed (found /bin/true"),
        ("probe: {kind: exec, command: [true]}", "probe.command[0]", "YAML reads this as true or false"),
        ('probe: {kind: exec, command: ["true"]}', "probe.command[0]", "the program must be an absolute path"),
        ("probe: {kind: exec, command: [/bin/x, 1]}", "probe.command[1]", "put it in quotes"),
        (
            'probe: {kind: exec, command: [/bin/x, "{index}"]}',
            "probe.command[1]",
            "allowed {id}, {path}, {paths}, {name}",
        ),
        ("probe: {kind: exec, command: [/bin/x], ok_codes: [256]}", "probe.ok_codes[0]", "too large"),
        ("probe: {kind: exec, command: [/bin/x], ok_codes: []}", "probe.ok_codes", "the list is empty"),
        ("reset: {timeout: 1s}", "reset.kind", "this key is needed"),
        ("reset: {kind: reboot}", "reset.kind", "found reboot; allowed driver, exec, sysfs, sim"),
        ("reset: {kind: exec, command: [/bin/x], timeout: 25s}", "reset.timeout", "too long"),
        ("reset: {kind: exec, command: [bin/x]}", "reset.command[0]", "the program must be an absolute path"),
        ("reset: {kind: sysfs, attribute: reset}", "reset.value", "this key is needed"),
        ("reset: {kind: sysfs, attribute: reset, value: 1}", "reset.value", "YAML reads this as a number"),
        ("reset: {kind: sim, takes: 2}", "reset.takes", "a duration needs a unit"),
        ("reset: {kind: sim, result: bad}", "reset.result", "allowed ok, fail, hang, crash"),
    ],
)
def test_value_of_a_node_resource(line: str, key: str, part: str) -> None:
    """A wrong value under driver node is one problem, at its line and key, told with what is allowed."""
    problem = only(node(line))
    assert (problem.line, problem.key) == (BAD_LINE, f"resources[0].{key}")
    assert part in problem.render("t.yaml")


@pytest.mark.parametrize(
    ("line", "key", "part"),
    [
        ("match: {}", "match", "exactly one of count, devices is needed (found none of them"),
        ("match: {count: 1, devices: [{name: a}]}", "match", "found count, devices"),
        ("match: {path: /dev/x, count: 1}", "match.path", "unknown key"),
        ("match: {count: 0}", "match.count", "too small (found 0; allowed 1 to 4096)"),
        ("match: {count: 2, prefix: a b}", "match.prefix", "not a valid device id"),
        ("match: {devices: [{name: a}], prefix: b}", "match.prefix", "this key goes with count only"),
        ("match: {devices: []}", "match.devices", "the list is empty"),
        ("match: {devices: [{path: /dev/x}]}", "match.devices[0].name", "this key is needed"),
        ('match: {devices: [{name: "a::0"}]}', "match.devices[0].name", "without ::"),
        ("match: {devices: [{name: " + "a" * 57 + "}]}", "match.devices[0].name", "longer than 56 characters"),
        ("match: {devices: [{name: a}, {name: a}]}", "match.devices[1].name", "a is given twice, first on line 5"),
        ("match: {devices: [{name: a, path: x}]}", "match.devices[0].path", "the path must be absolute"),
        ("match: {devices: [{name: a, script: {do: pass}}]}", "match.devices[0].script", "a list of maps is needed"),
        ("match: {devices: [{name: a, script: [{do: pas}]}]}", "match.devices[0].script[0].do", "did you mean pass?"),
        ("match: {devices: [{name: a, script: [{for: 0s}]}]}", "match.devices[0].script[0].for", "too short"),
        (
            "match: {devices: [{name: a, script: [{do: hang}, {do: pass}]}]}",
            "match.devices[0].script[0]",
            "a step without for lasts for ever",
        ),
    ],
)
def test_match_of_a_simulated_resource(line: str, key: str, part: str) -> None:
    """A wrong selector under driver sim is one problem, at its line and key."""
    problem = only(sim(line))
    assert (problem.line, problem.key) == (BAD_LINE, f"resources[0].{key}")
    assert part in problem.render("t.yaml")


@pytest.mark.parametrize(
    ("line", "key", "part"),
    [
        (
            "probe: {kind: open}",
            "probe.kind",
            "driver sim has no hardware to probe: it takes kind sim only (found open",
        ),
        ("probe: {script: [{takes: 2}]}", "probe.script[0].takes", "a duration needs a unit"),
        ("probe: {script: [{}, {for: 1s}]}", "probe.script[0]", "a step without for lasts for ever"),
        ("reset: {kind: sysfs, attribute: a, value: b}", "reset.attribute", "have no directory in sysfs"),
        ('reset: {kind: sysfs, attribute: "/sys/{major}", value: b}', "reset.attribute", "have no directory in sysfs"),
    ],
)
def test_other_values_of_a_simulated_resource(line: str, key: str, part: str) -> None:
    """Probes and resets that need hardware are refused where there is none."""
    text = f"resources:\n  - name: a.io/x\n    driver: sim\n    match: {{count: 2}}\n    {line}\n"
    found = [one for one in problems(text) if one.key == f"resources[0].{key}"]
    assert [one.line for one in found] == [BAD_LINE]
    assert part in found[0].render("t.yaml")


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("serial", "exactly one slash"),
        ("a.io/b/c", "exactly one slash"),
        ("kubernetes.io/x", "kept for Kubernetes"),
        ("device.kubernetes.io/x", "kept for Kubernetes"),
        ("requests.a.io/x", "kept for quotas"),
        ("A.io/x", "a DNS name in lower case"),
        ("a..io/x", "a DNS name in lower case"),
        ("-a.io/x", "a DNS name in lower case"),
        ("/x", "a DNS name in lower case"),
        ("a.io/", "behind the slash"),
        ("a.io/x-", "behind the slash"),
        ("a.io/x y", "behind the slash"),
        ("a.io/" + "x" * 64, "more than 63 characters behind the slash"),
        ("a" * 245 + "/x", "more than 244 characters before the slash"),
    ],
)
def test_resource_name(name: str, part: str) -> None:
    """A name the kubelet would refuse is refused here, with the rule it breaks."""
    problem = only(f"resources:\n  - driver: sim\n    match: {{count: 1}}\n    name: {name}\n")
    assert (problem.line, problem.key) == (4, "resources[0].name")
    assert part in problem.message


@pytest.mark.parametrize("name", ["a/x", "a.io/X_y.z-1", "a" * 244 + "/" + "x" * 63])
def test_allowed_resource_names(name: str) -> None:
    """Names at the limits of the kubelet's rule are taken."""
    config = load_text(f"resources:\n  - driver: sim\n    match: {{count: 1}}\n    name: {name}\n")
    assert config.resources[0].name == name


@pytest.mark.parametrize(
    ("match", "line", "key", "part"),
    [
        ("match: dev", 4, "match", "a map is needed"),
        ("match: {path: dev/x}", 4, "match.path", "the path must be absolute"),
        ("match: {path: /}", 4, "match.path", "the root directory"),
        ("match: {path: []}", 4, "match.path", "the list is empty"),
        ("match: {path: 5}", 4, "match.path", "a glob or a list of globs is needed"),
        ("match:\n      path:\n        - /dev/a\n        - b", 7, "match.path[1]", "the path must be absolute"),
        ("match:\n      path: /dev/a\n      type: char", 6, "match.type", "allowed device, any"),
        ("match:\n      path: /dev/a\n      exclude: a", 6, "match.exclude", "the path must be absolute"),
        ("match: {type: any}", 4, "match", "exactly one of path, groups is needed"),
        ("match: {groups: [{name: a, path: b}]}", 4, "match.groups[0].path", "the path must be absolute"),
        ("match: {groups: [{name: a, path: []}]}", 4, "match.groups[0].path", "the list is empty"),
        ("match: {path: /dev/a, properties: {../x: b}}", 4, "match.properties.'../x'", "the key is not a valid name"),
        ("match: {path: /dev/a, properties: {x: 1}}", 4, "match.properties.x", "a text or a list of texts is needed"),
        ("match: {count: 3, path: /dev/a}", 4, "match.count", "unknown key"),
        ("replicas: 1", 2, "match", "this key is needed"),
    ],
)
def test_match_of_a_node_resource(match: str, line: int, key: str, part: str) -> None:
    """A wrong selector under driver node is one problem, at its line and key."""
    problem = only(f"resources:\n  - name: a.io/x\n    driver: node\n    {match}\n")
    assert (problem.line, problem.key) == (line, f"resources[0].{key}")
    assert part in problem.render("t.yaml")


@pytest.mark.parametrize(
    ("text", "line", "key", "part"),
    [
        ("kubelet: {}", 1, "resources", "this key is needed"),
        ("resources: []", 1, "resources", "the list is empty"),
        ("resources: {}", 1, "resources", "a list of maps is needed"),
        ("resources: [7]", 1, "resources[0]", "a map is needed (found 7"),
        (
            "resources:\n  - name: a.io/x\n    match: {path: /dev/x}",
            2,
            "resources[0].driver",
            "allowed node, infiniband",
        ),
        ("resources:\n  - {name: a.io/x, driver: usbb, match: 1}", 2, "resources[0].driver", "found usbb"),
        ("resource: []\nresources:\n  - {name: a.io/x, driver: sim, match: {count: 1}}", 1, "resource", "resources?"),
        ("- a", 1, "", "a map with the keys kubelet and resources is needed (found a list of 1 entry"),
        ("just text", 1, "", "a map with the keys"),
    ],
)
def test_top_of_the_file(text: str, line: int, key: str, part: str) -> None:
    """What is wrong above the values of a resource is told as exactly."""
    problem = only(text)
    assert (problem.line, problem.key) == (line, key)
    assert part in problem.render("t.yaml")


@pytest.mark.parametrize(
    ("line", "key", "part"),
    [
        ("kubelet: {dir: var/lib}", "kubelet.dir", "the path must be absolute (found var/lib"),
        ("kubelet: {registration: sokket}", "kubelet.registration", "did you mean socket?"),
        ("kubelet: {registry: /a}", "kubelet.registry", "unknown key, did you mean registry_dir?"),
        ("kubelet: {registry_dir: 5}", "kubelet.registry_dir", "YAML reads this as a number"),
        ("kubelet:", "kubelet", "a map is needed"),
    ],
)
def test_kubelet_section(line: str, key: str, part: str) -> None:
    """The kubelet's section is checked like the others."""
    problem = only(f"{line}\nresources:\n  - {{name: a.io/x, driver: sim, match: {{count: 1}}}}\n")
    assert (problem.line, problem.key) == (1, key)
    assert part in problem.render("t.yaml")


def hardware(driver: str, line: str) -> str:
    """Return a configuration whose fifth line is ``line``, in a resource of a driver of its own."""
    return f"resources:\n  - name: a.io/x\n    driver: {driver}\n    replicas: 2\n    {line}\n"


QUOTES = "a text or a list of texts is needed: YAML reads this as a number: put it in quotes to have text"
PCI_CLASS = (
    "not a valid PCI class code (found {}; allowed six hexadecimal digits (030000), the first two or four of them"
)
WAYS = "allowed device_specific, acpi, flr, af_flr, pm, bus, cxl_bus"


@pytest.mark.parametrize(
    ("driver", "line", "key", "part"),
    [
        ("usb", "match: {vendor: 0403}", "match.vendor", f"{QUOTES} (found 0403; allowed"),
        ("usb", "match: {vendor: [0403]}", "match.vendor[0]", "put it in quotes to have text (found 0403"),
        ("usb", "match: {vendor: '*', exclude: {serial: 12}}", "match.exclude.serial", QUOTES),
        ("pci", "match: {vendor: 10.5}", "match.vendor", QUOTES),
        ("nvme", "match: {model: yes}", "match.model", "YAML reads this as true or false: put it in quotes"),
        ("infiniband", "match: {ports: '1'}", "match.ports", "a list of whole numbers is needed (found"),
        ("infiniband", "match: {ports: true}", "match.ports", "a list of whole numbers is needed (found true"),
        ("infiniband", "match: {ports: 255}", "match.ports", "too large (found 255; allowed 1 to 254)"),
        ("pci", "match: {class: '03000'}", "match.class", PCI_CLASS.format('"03000"')),
        ("pci", "match: {class: ['03', '030']}", "match.class[1]", PCI_CLASS.format('"030"')),
        ("pci", "match: {class: '0300000'}", "match.class", PCI_CLASS.format('"0300000"')),
        ("pci", "match: {class: '03??'}", "match.class", PCI_CLASS.format('"03??"')),
        ("pci", "match: {class: display}", "match.class", PCI_CLASS.format("display")),
        ("vfio", "match: {exclude: {class: 0x3}}", "match.exclude.class", "put it in quotes"),
        ("vfio", "match: {exclude: {class: '0x3'}}", "match.exclude.class", PCI_CLASS.format('"0x3"')),
        ("usb", "match: {class: '9'}", "match.class", 'not a valid USB class code (found "9"; allowed two hexadecimal'),
        ("usb", "match: {class: hub}", "match.class", "not a valid USB class code (found hub"),
    ],
)
def test_match_of_a_hardware_resource(driver: str, line: str, key: str, part: str) -> None:
    """A selector that no device can fit, or that YAML reads as something else, is one problem at its line and key."""
    problem = only(hardware(driver, line))
    assert (problem.line, problem.key) == (BAD_LINE, f"resources[0].{key}")
    assert part in problem.render("t.yaml")


@pytest.mark.parametrize(
    ("driver", "reset", "part"),
    [
        ("pci", "method: function, by: flrr", f"no way to reset of driver pci, did you mean flr? (found flrr; {WAYS})"),
        ("vfio", "method: function, by: slot", f"no way to reset of driver vfio (found slot; {WAYS})"),
        ("pci", "method: rebind, by: flr", "this key goes with method function of pci and vfio only (found flr"),
        ("infiniband", "method: function, by: flr", "this key goes with method function of pci and vfio only"),
        ("usb", "method: port, by: flr", "this key goes with method function of pci and vfio only"),
    ],
)
def test_way_of_a_reset(driver: str, reset: str, part: str) -> None:
    """A way that the kernel does not have, or that goes with another method, is refused with the list."""
    select = "vendor: '*'" if driver in ("pci", "usb") else ""
    problem = only(
        f"resources:\n  - name: a.io/x\n    driver: {driver}\n    match: {{{select}}}\n"
        f"    reset: {{kind: driver, {reset}}}\n"
    )
    assert (problem.line, problem.key) == (BAD_LINE, "resources[0].reset.by")
    assert part in problem.render("t.yaml")


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("'03'", ["03*"]),
        ("'0302'", ["0302*"]),
        ("'0x0C03'", ["0x0C03*"]),
        ("'030200'", ["030200"]),
        ("['0302*', '*', '03??00', '030[0-2]00', '[!0]*']", ["0302*", "*", "03??00", "030[0-2]00", "[!0]*"]),
    ],
)
def test_beginning_of_a_pci_class_stands_for_all_of_it(written: str, wanted: list[str]) -> None:
    """The tool lspci shows four digits of six: they mean what begins with them; whole codes and globs stay."""
    for driver in ("pci", "vfio"):
        (resource,) = load_text(hardware(driver, f"match: {{class: {written}}}")).resources
        assert resource.match["class"] == wanted


def test_a_single_number_counts_as_a_list_of_one() -> None:
    """As a single text does; so does JSON Schema have it."""
    (resource,) = load_text(hardware("infiniband", "match: {ports: 2}")).resources
    assert resource.match["ports"] == [2]


@pytest.mark.parametrize("way", ["device_specific", "acpi", "flr", "af_flr", "pm", "bus", "cxl_bus"])
def test_every_way_of_the_kernel_is_taken(way: str) -> None:
    """Each of pci_reset_fn_methods."""
    file = hardware("pci", "match: {vendor: '*'}") + f"    reset: {{kind: driver, method: function, by: {way}}}\n"
    (resource,) = load_text(file).resources
    assert resource.reset is not None
    assert resource.reset.as_spec()["by"] == way
