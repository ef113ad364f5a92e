"""A good configuration: defaults, what workers are told, and files with many problems at once."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from devd.daemon.config import Config, ConfigError, load_text
from devd.daemon.config.match import NodeMatch, SimMatch
from devd.daemon.config.probes import AnyProbe, UnknownProbe
from devd.daemon.config.resets import AnyReset, UnknownReset
from devd.daemon.config.section import UNKNOWN
from devd.daemon.config.shape import keys_of, members

NODE = "resources:\n  - {name: a.io/x, driver: node, match: {path: /dev/x}"


def config_of(more: str = "") -> Config:
    """Return the configuration of one resource with more keys."""
    return load_text(f"{NODE}{more}}}\n")


def test_defaults() -> None:
    """The shortest configuration has the documented defaults."""
    config = config_of()
    (resource,) = config.resources
    assert config.kubelet.dir == Path("/var/lib/kubelet/device-plugins")
    assert config.kubelet.registration == "socket"
    assert config.kubelet.registry_dir == Path("/var/lib/kubelet/plugins_registry")
    assert (resource.access, resource.replicas, resource.share, resource.reset) == ("rw", 1, "pack", None)
    assert (resource.env, resource.annotations, resource.mounts, resource.container_path) == ({}, {}, (), None)
    probe, found, restart = resource.probe, resource.discovery, resource.restart
    assert probe.as_spec() == {"kind": "exists"}
    assert (probe.period_s, probe.timeout_s, probe.failures, probe.successes) == (5, 2, 1, 1)
    assert (found.period_s, found.timeout_s, found.linger_s) == (10, 10, 60)
    assert (restart.intensity, restart.period_s, restart.retry_s) == (5, 60, 300)
    assert (restart.backoff_s, restart.backoff_max_s) == (0.2, 30)
    assert resource.match == {"path": ["/dev/x"], "type": "device", "exclude": []}


def test_defaults_of_driver_sim() -> None:
    """Simulated devices are probed by their scripts without a word about it."""
    (resource,) = load_text("resources: [{name: a.io/x, driver: sim, match: {count: 3}}]").resources
    assert resource.probe.as_spec() == {"kind": "sim"}
    assert resource.match == {"count": 3, "prefix": "sim"}


@pytest.mark.parametrize(
    ("written", "spec"),
    [
        ("{kind: exists}", {"kind": "exists"}),
        ("{kind: open}", {"kind": "open", "mode": "r"}),
        ("{kind: read, offset: 7}", {"kind": "read", "bytes": 1, "offset": 7}),
        ("{kind: sysfs, attribute: a, equals: b}", {"kind": "sysfs", "attribute": "a", "equals": "b"}),
        ('{kind: sysfs, attribute: a, equals: ""}', {"kind": "sysfs", "attribute": "a", "equals": ""}),
        ("{kind: sysfs, attribute: a, matches: b.*}", {"kind": "sysfs", "attribute": "a", "matches": "b.*"}),
        ("{kind: sysfs, attribute: a, range: [-1, 2.5]}", {"kind": "sysfs", "attribute": "a", "range": [-1.0, 2.5]}),
        ('{kind: exec, command: [/x, "{id}"]}', {"kind": "exec", "command": ["/x", "{id}"], "ok_codes": [0]}),
    ],
)
def test_probe_specs(written: str, spec: dict[str, object]) -> None:
    """A worker is told the kind and its own keys as plain values, and nothing of period and thresholds."""
    (resource,) = config_of(f", probe: {written}").resources
    assert resource.probe.as_spec() == spec
    assert json.loads(json.dumps(resource.probe.as_spec())) == spec


@pytest.mark.parametrize(
    ("written", "spec"),
    [
        ("{kind: exec, command: [/x]}", {"kind": "exec", "command": ["/x"]}),
        ('{kind: sysfs, attribute: a, value: "1"}', {"kind": "sysfs", "attribute": "a", "value": "1"}),
        ("{kind: sim, takes: 250ms}", {"kind": "sim", "takes": 0.25, "result": "ok"}),
    ],
)
def test_reset_specs(written: str, spec: dict[str, object]) -> None:
    """A worker is told a reset's kind and its own keys, durations in seconds."""
    (resource,) = config_of(f", reset: {written}").resources
    assert resource.reset is not None
    assert resource.reset.as_spec() == spec
    assert resource.reset.timeout_s == 20


def test_scripts_come_out_in_seconds() -> None:
    """A script's durations are seconds, and keys that are absent stay absent."""
    text = (
        "resources:\n"
        "  - name: a.io/x\n"
        "    driver: sim\n"
        "    match:\n"
        "      devices: [{name: a, path: /dev/null, script: [{for: 1.5m}, {do: slow, takes: 10ms}]}, {name: b}]\n"
        "    probe: {kind: sim, script: [{do: fail, reason: why}]}\n"
    )
    (resource,) = load_text(text).resources
    script = [{"for": 90.0, "do": "pass", "reason": ""}, {"do": "slow", "reason": "", "takes": 0.01}]
    assert resource.match == {
        "prefix": "sim",
        "devices": [{"name": "a", "script": script, "path": "/dev/null"}, {"name": "b"}],
    }
    assert resource.probe.as_spec() == {"kind": "sim", "script": [{"do": "fail", "reason": "why"}]}


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("50ms", 0.05), ("0.05s", 0.05), ("1.5s", 1.5), ("90s", 90), ("2m", 120), ("1h", 3600), ("60m", 3600)],
)
def test_durations(written: str, seconds: float) -> None:
    """Every unit counts, and the bounds belong to what is allowed."""
    (resource,) = config_of(f", probe: {{kind: exists, period: {written}}}").resources
    assert resource.probe.period_s == pytest.approx(seconds)


def test_null_means_absent_for_what_may_be_absent() -> None:
    """A template engine may render an unset reset or container_path as null."""
    (resource,) = config_of(", reset: null, container_path: ~").resources
    assert (resource.reset, resource.container_path) == (None, None)


def test_texts_that_look_like_something_else_in_quotes() -> None:
    """In quotes, or as a date, a value stays the text it is; a key is text in any case."""
    (resource,) = config_of(', env: {A: "1", B: "on", C: 2024-01-01, ON: "{{x}}"}').resources
    assert resource.env == {"A": "1", "B": "on", "C": "2024-01-01", "ON": "{{x}}"}


def test_the_configuration_cannot_be_changed() -> None:
    """What the parts of the daemon share stays what was checked."""
    config = config_of()
    with pytest.raises(ValidationError, match="frozen"):
        config.resources[0].replicas = 2  # type: ignore[misc]  # refused by the checker and at run time


def test_all_problems_at_once_in_the_order_of_the_file() -> None:
    """Wrong kinds and drivers, keys, values and combinations are told together, each once."""
    text = (
        "kubelet: {dir: a, regdir: b}\n"  # 1
        "resources:\n"
        "  - name: a.io/x\n"
        "    driver: nod\n"  # 4
        "    match: {path: /dev/x}\n"
        "    probe: {kind: opn, period: 5, perod: 1s}\n"  # 6
        "    reset: {kind: exc, timeout: 30s, comand: []}\n"  # 7
        "  - name: a.io/x\n"  # 8
        "    driver: sim\n"
        "    match: {count: 2}\n"
        "    probe: {script: [{do: hang}, {do: pass}]}\n"  # 11
        "  - driver: sim\n"  # 12
        "    match: {devices: [{name: sim1}]}\n"  # 13
        "    restart: {backoff: 2m, foo: 1}\n"  # 14
    )
    with pytest.raises(ConfigError) as caught:
        load_text(text, "t.yaml")
    found = [(one.line, one.key) for one in caught.value.problems]
    assert [line for line, _ in found] == sorted(line for line, _ in found)
    assert sorted(found) == [
        (1, "kubelet.dir"),
        (1, "kubelet.regdir"),
        (4, "resources[0].driver"),
        (6, "resources[0].probe.kind"),
        (6, "resources[0].probe.period"),
        (6, "resources[0].probe.perod"),
        (7, "resources[0].reset.comand"),
        (7, "resources[0].reset.kind"),
        (7, "resources[0].reset.timeout"),
        (8, "resources[1].name"),
        (11, "resources[1].probe.script[0]"),
        (12, "resources[2].name"),
        (13, "resources[2].match.devices[0].name"),
        (14, "resources[2].restart.backoff"),
        (14, "resources[2].restart.foo"),
    ]
    assert len(caught.value.render().splitlines()) == len(found)


def test_device_ids_are_unique_across_resources() -> None:
    """Two counted resources under one prefix would offer one id twice: the kubelet finds pods by the id alone."""
    text = (
        "resources:\n"
        "  - {name: a.io/x, driver: sim, match: {count: 3}}\n"
        "  - {name: a.io/y, driver: sim, match: {count: 1, prefix: sim}}\n"
        "  - {name: a.io/z, driver: sim, match: {count: 1, prefix: sim1}}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_text(text)
    assert [(one.line, one.key) for one in caught.value.problems] == [(3, "resources[1].match.prefix")]
    assert "device id sim0 is given twice, first on line 2" in caught.value.problems[0].message


def test_reset_by_sysfs_of_simulated_devices_with_nodes() -> None:
    """A relative attribute is allowed where each simulated device has a real node behind it."""
    text = (
        "resources:\n"
        "  - name: a.io/x\n"
        "    driver: sim\n"
        "    match: {devices: [{name: a, path: /dev/null}]}\n"
        '    reset: {kind: sysfs, attribute: uevent, value: "change"}\n'
    )
    assert load_text(text).resources[0].reset is not None


@pytest.mark.parametrize(("kinds", "stand_in"), [(AnyProbe, UnknownProbe), (AnyReset, UnknownReset)])
def test_stand_ins_know_the_keys_of_all_kinds(kinds: object, stand_in: type) -> None:
    """Under a misspelt kind a key is unknown only if no kind has it."""
    known = {key for tag, kind in members(kinds).items() if tag != UNKNOWN for key in keys_of(kind)}
    assert set(keys_of(stand_in)) == known


def test_selectors_are_not_confused() -> None:
    """The two drivers' selectors share no key, so that a message about one never fits the other."""
    assert not set(keys_of(NodeMatch)) & set(keys_of(SimMatch))


def test_a_problem_is_one_line_whatever_the_file_says() -> None:
    """Line breaks and control characters of a value reach no terminal or log."""
    with pytest.raises(ConfigError) as caught:
        config_of(r', env: {A: "{a\nb}", "B\e": "x"}')
    assert [line.isprintable() for line in caught.value.render().split("\n")] == [True, True]


def test_too_many_resources() -> None:
    """A list over its limit is one problem, at its key."""
    entries = "".join(f"  - {{name: a.io/x{n}, driver: node, match: {{path: /dev/x}}}}\n" for n in range(257))
    with pytest.raises(ConfigError) as caught:
        load_text(f"resources:\n{entries}", "t.yaml")
    assert caught.value.render() == (
        "t.yaml:1: resources: the list is too long (found a list of 257 entries; allowed at most 256)"
    )
