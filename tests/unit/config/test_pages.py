"""What the project ships about its configuration is true: the reference page, the examples, the README's file."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from devd.daemon.config import json_schema, load, load_text
from devd.daemon.config.model import PLUGIN, Config
from devd.daemon.config.reference import page
from devd.daemon.config.section import UNKNOWN
from devd.daemon.config.shape import hint_of, item_of, key_of, members, model_of

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
PAGE = ROOT / "docs" / "configuration.md"


def test_page_is_up_to_date() -> None:
    """The checked-in page is the one the models draw now."""
    assert PAGE.read_text(encoding="utf-8") == page(), "run 'make docs'"


def test_links_within_the_page_lead_somewhere() -> None:
    """Every link to a heading has its heading, every link to a file its file."""
    text = page()
    anchors = {re.sub(r"[^a-z0-9 -]", "", one.lower()).replace(" ", "-") for one in re.findall(r"(?m)^#+ (.*)$", text)}
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert any(link.startswith("#") for link in links)
    missing = [link for link in links if link.startswith("#") and link[1:] not in anchors]
    missing += [link for link in links if not link.startswith("#") and not (PAGE.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("name", ["configuration.md", "../README.md"])
def test_configurations_in_the_documents_are_right(name: str) -> None:
    """A whole file shown to readers loads as it stands there."""
    blocks = re.findall(r"```yaml\n(.*?)```", (PAGE.parent / name).read_text(encoding="utf-8"), re.DOTALL)
    whole = [block for block in blocks if "resources:" in block]
    assert whole
    for block in whole:
        assert load_text(block).resources


def test_the_examples_are_there() -> None:
    """No example was lost: the tests below go through what is found."""
    assert {"everything.yaml", "kvm-tun-fuse.yaml", "serial.yaml", "simulated.yaml"} <= {one.name for one in EXAMPLES}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda one: one.name)
def test_examples_are_right(path: Path) -> None:
    """Each example loads, and the schema takes it."""
    assert load(path).resources
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert [one.message for one in Draft202012Validator(json_schema()).iter_errors(data)] == []


def test_everything_has_every_key() -> None:
    """The example that claims to have every key of every kind has them."""
    data = yaml.safe_load((ROOT / "examples" / "everything.yaml").read_text(encoding="utf-8"))
    assert set(keys_of_models(Config)) - set(keys_of_data(data, Config)) == set()


def keys_of_models(hint: Any) -> Iterator[tuple[str, str]]:
    """Yield section and key of everything below a section's annotation."""
    hint = item_of(hint) or hint
    for tag, member in members(hint).items():
        if tag not in {UNKNOWN, PLUGIN}:  # no example has a driver that is not installed
            yield from keys_of_models(member)
    model = model_of(hint)
    for name, field in model.model_fields.items() if model else ():
        yield (model.__name__ if model and name in model.__annotations__ else "common", key_of(name, field))
        yield from keys_of_models(hint_of(field))


def keys_of_data(value: Any, hint: Any) -> Iterator[tuple[str, str]]:
    """Yield section and key of everything a file has, named in the same way."""
    if isinstance(value, list):
        for one in value:
            yield from keys_of_data(one, item_of(hint))
        return
    kinds = members(hint)
    if kinds:
        hint = kinds[value.get("kind") or value.get("driver")]
    model = model_of(hint)
    for name, field in model.model_fields.items() if model else ():
        key = key_of(name, field)
        if key in value:
            yield (model.__name__ if model and name in model.__annotations__ else "common", key)
            yield from keys_of_data(value[key], hint_of(field))
