"""The JSON Schema accepts what the loader accepts, and refuses what is wrong with a file's structure."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from devd.daemon.config import ConfigError, json_schema, load_text

NODE = "resources:\n  - {name: a.io/x, driver: node, match: {path: /dev/x}"
SIM = "resources:\n  - {name: a.io/x, driver: sim"


def accepts(text: str) -> bool:
    """Return whether the schema takes a file."""
    return bool(Draft202012Validator(json_schema()).is_valid(yaml.safe_load(text)))


def properties(schema: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every key of every section of the schema."""
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield from schema.get("properties", {}).items()
        for one in schema.values():
            yield from properties(one)
    elif isinstance(schema, list):
        for one in schema:
            yield from properties(one)


def test_it_is_a_schema_of_the_named_draft() -> None:
    """The schema itself is valid under draft 2020-12, and says that it is one."""
    Draft202012Validator.check_schema(json_schema())
    assert json_schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_every_key_is_described() -> None:
    """Editors show a description for each key; durations have their unit's pattern, bounds and default as text."""
    found = list(properties(json_schema()))
    assert len(found) > 60
    assert [key for key, one in found if not one.get("description")] == []
    durations = [one for _, one in found if "(ms|s|m|h)" in one.get("pattern", "")]
    assert len(durations) > 10
    assert all("Allowed: " in one["description"] for one in durations)
    assert all(isinstance(one.get("default", ""), str) for one in durations)


def test_nothing_of_our_insides_shows() -> None:
    """Neither the stand-ins for unknown kinds nor the names of attributes are in the schema."""
    text = str(json_schema())
    assert not any(word in text for word in ("Unknown", "_s'", "selector", "file_type", "byte_count", "$comment"))


@pytest.mark.parametrize(
    "text",
    [
        f"{NODE}}}",
        f"{NODE}, reset: null, container_path: null}}",
        f"{NODE}, probe: {{kind: sysfs, attribute: a, range: [1, 2.5]}}}}",
        f"{NODE}, probe: {{kind: exec, command: [/x, '{{path}}', '{{{{'], ok_codes: [0, 3]}}}}",
        f"{NODE}, reset: {{kind: sim, takes: 1.5s, result: hang}}}}",
        f"{NODE}, env: {{A: '{{ids}}'}}, mounts: [{{host: '{{path}}', container: '/x/{{index}}'}}]}}",
        "resources: [{name: a.io/x, driver: pci, match: {class: ['0302', '0x03', '03??00', '0302*', '[!0-2]*']}}]",
        "resources: [{name: a.io/x, driver: usb, match: {class: '09'}}]",
        "resources: [{name: a.io/x, driver: infiniband, match: {ports: 1}}]",
        f"{SIM}, match: {{count: 2}}}}",
        f"{SIM}, match: {{devices: [{{name: a, script: [{{}}]}}]}}, probe: {{period: 1s}}}}",
    ],
)
def test_both_accept(text: str) -> None:
    """What the loader takes, the schema takes."""
    load_text(text)
    assert accepts(text)


@pytest.mark.parametrize(
    "text",
    [
        "kubelet: {}",
        "resources: []",
        "resources: [{driver: node, match: {path: /dev/x}}]",
        "resources: [{name: a.io/x, driver: usb, match: {path: /dev/x}}]",
        "resources: [{name: a.io/x, driver: node, match: {path: dev/x}}]",
        "resources: [{name: a.io/x, driver: pci, match: {class: '03000'}}]",
        "resources: [{name: a.io/x, driver: pci, match: {class: '03??'}}]",
        "resources: [{name: a.io/x, driver: usb, match: {class: '9'}}]",
        "resources: [{name: a.io/x, driver: node, match: {path: []}}]",
        "resources: [{name: a.kubernetes.io/x, driver: sim, match: {count: 1}}]",
        "resources: [{name: requests.a.io/x, driver: sim, match: {count: 1}}]",
        f"resources: [{{name: a.io/{'x' * 64}, driver: sim, match: {{count: 1}}}}]",
        f"resources: [{{name: {'a' * 245}/x, driver: sim, match: {{count: 1}}}}]",
        f"more: 1\n{NODE}}}",
        f"kubelet: {{registration: both}}\n{NODE}}}",
        f"{NODE}, acess: rw}}",
        f"{NODE}, access: rr}}",
        f"{NODE}, replicas: 0}}",
        f"{NODE}, replicas: '3'}}",
        f"{NODE}, env: {{1A: x}}}}",
        f"{NODE}, env: {{A: 1}}}}",
        f"{NODE}, env: {{A: '{{p th}}'}}}}",
        f"{NODE}, env: {{A: '{{'}}}}",
        f"{NODE}, container_path: 'dev/{{name}}'}}",
        f"{NODE}, mounts: [{{host: /a}}]}}",
        f"{NODE}, restart: {{backoff: 5}}}}",
        f"{NODE}, probe: null}}",
        f"{NODE}, probe: {{period: 1s}}}}",
        f"{NODE}, probe: {{kind: sim}}}}",
        f"{NODE}, probe: {{kind: exists, period: 5}}}}",
        f"{NODE}, probe: {{kind: exists, mode: r}}}}",
        f"{NODE}, probe: {{kind: sysfs, attribute: a}}}}",
        f"{NODE}, probe: {{kind: sysfs, attribute: a, equals: a, matches: b}}}}",
        f"{NODE}, probe: {{kind: sysfs, attribute: a, equals: null}}}}",
        f"{NODE}, probe: {{kind: exec, command: [true]}}}}",
        f"{NODE}, probe: {{kind: exec, command: [bin/x]}}}}",
        f"{NODE}, reset: {{kind: reboot}}}}",
        f"{SIM}, match: {{}}}}",
        f"{SIM}, match: {{count: 1, devices: [{{name: a}}]}}}}",
        f"{SIM}, match: {{count: 1}}, probe: {{kind: open}}}}",
        f"{SIM}, match: {{devices: [{{name: 'a::1'}}]}}}}",
    ],
)
def test_both_refuse(text: str) -> None:
    """What is wrong in structure is refused by the loader and by the schema."""
    with pytest.raises(ConfigError):
        load_text(text)
    assert not accepts(text)
