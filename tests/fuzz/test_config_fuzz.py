"""Any text is a configuration or a ConfigError, and nothing else comes out of the loader."""

import copy
import random
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from devd.daemon.config import Config, ConfigError, json_schema, load_text

ROOT = Path(__file__).resolve().parents[2]
TEXTS = [one.read_text(encoding="utf-8") for one in sorted((ROOT / "examples").glob("*.yaml"))]
VALUES: list[dict[str, Any]] = [yaml.safe_load(one) for one in TEXTS]
SCHEMA = Draft202012Validator(json_schema())
FUZZ = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])

WORDS = st.sampled_from(
    ["5", "5s", "99999999h", "0x10", "1:30", "on", "~", "{path}", "{", "/dev/null", "sim", "node", "open", "exec", "("]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | WORDS
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
)
PIECES = st.sampled_from(
    ["resources:", "\n", "  ", "- ", "name: a.io/x", "driver: sim", "match: {count: 1}", "&a ", "*a", "<<: ", "? ",
     "{", "}", "[", "]", "|", ">", "'", '"', "!!int ", "!x ", "\\U", "%YAML 9.9\n", "---\n", "\t", "# ", ", ", ": "]
)  # fmt: skip


def loaded(text: str) -> Config | None:
    """Return the configuration, or None for a ConfigError that is fit to be shown; anything else is raised."""
    try:
        return load_text(text, "t.yaml")
    except ConfigError as error:
        refusal = error
    lines = text.count("\n") + 2
    assert refusal.problems
    assert all(0 <= one.line <= lines and one.message for one in refusal.problems)
    assert [one.line for one in refusal.problems] == sorted(one.line for one in refusal.problems)
    assert all(line.isprintable() and line.startswith("t.yaml") for line in refusal.render().split("\n"))
    assert len(refusal.render().split("\n")) == len(refusal.problems)
    return None


@FUZZ
@given(st.text(max_size=200))
@example('a: "\\UFFFFFFFF"')
@example('a: "\\ud800"')
@example("a: !!int ''")
@example("a: !!float ''")
@example("? {a: b}\n: c")
@example("a: 0b_")
@example("a: " + "9" * 5000)
@example("resources: [{replicas: 1e400}]")
@example("\ud800")
@example('resources: [{env: {A: "{a\\nb}"}, name: "x\\u2028"}]')
def test_any_text(text: str) -> None:
    """Random text is refused in order, or is a configuration."""
    loaded(text)


@FUZZ
@given(st.lists(PIECES, max_size=40))
def test_any_heap_of_yaml(pieces: list[str]) -> None:
    """So is text made of what YAML and the configuration are made of."""
    loaded("".join(pieces))


@FUZZ
@given(st.sampled_from(TEXTS), st.data())
def test_damaged_files(text: str, data: st.DataObject) -> None:
    """So is a good file with a piece cut out, doubled or overwritten."""
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 60)))
    loaded(text[:start] + data.draw(st.sampled_from(["", text[start:end] * 2]) | st.text(max_size=5)) + text[end:])


@FUZZ
@given(st.sampled_from(VALUES), TREES, st.integers(0, 2**32), st.booleans())
def test_changed_values(values: dict[str, Any], tree: Any, seed: int, as_key: bool) -> None:  # noqa: FBT001 - drawn
    """A good file with any one value or key replaced is refused or taken, and what is taken the schema takes."""
    changed = copy.deepcopy(values)
    place(changed, random.Random(seed), tree, as_key=as_key)  # noqa: S311 - picks a place, guards nothing
    text = yaml.safe_dump(changed, sort_keys=False, allow_unicode=True)
    if loaded(text) is not None:
        assert [one.message for one in SCHEMA.iter_errors(changed)] == []


def place(values: Any, chance: random.Random, tree: Any, *, as_key: bool) -> None:
    """Put a value somewhere into a tree, instead of a value or under a key of its own."""
    while True:
        key = chance.choice(list(values) if isinstance(values, dict) else list(range(len(values))))
        below = values[key]
        if not isinstance(below, dict | list) or not below or chance.random() < 0.2:
            break
        values = below
    if as_key and isinstance(values, dict):
        values[str(tree)[:20]] = values.pop(key)
    else:
        values[key] = tree
