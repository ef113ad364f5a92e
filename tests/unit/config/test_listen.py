"""The key ``metrics.listen``: what is an address, and what is not."""

import pytest
import yaml
from jsonschema import Draft202012Validator

from devd.daemon.config import ConfigError, ListenAddress, json_schema, load_text

REST = "resources: [{name: a.io/x, driver: node, match: {path: /dev/x}}]\n"


def config(value: str) -> str:
    """Return a configuration with this address."""
    return f"metrics: {{listen: {value}}}\n{REST}"


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ('"127.0.0.1:9400"', ListenAddress("127.0.0.1", 9400)),
        ("0.0.0.0:1", ListenAddress("0.0.0.0", 1)),  # noqa: S104 - what is read, nothing listens
        ('"[::1]:65535"', ListenAddress("::1", 65535)),
        ('"[::]:9400"', ListenAddress("::", 9400)),
        ('"[FE80::0:1]:9400"', ListenAddress("fe80::1", 9400)),
        ('"[::ffff:10.0.0.1]:9400"', ListenAddress("::ffff:a00:1", 9400)),
    ],
)
def test_addresses(value: str, address: ListenAddress) -> None:
    """IP addresses of both kinds are taken, by the schema too, and are written as they would be in the file."""
    metrics = load_text(config(value)).metrics
    assert metrics is not None
    assert metrics.listen.port == address.port
    assert (metrics.listen.host == address.host) or value.startswith('"[::ffff')
    assert load_text(config(f'"{metrics.listen}"')).metrics == metrics
    assert Draft202012Validator(json_schema()).is_valid(yaml.safe_load(config(value)))


@pytest.mark.parametrize(
    "value",
    [
        '"localhost:9400"',
        '":9400"',
        '"127.0.0.1"',
        '"127.0.0.1:"',
        '"127.0.0.1:0"',
        '"127.0.0.1:65536"',
        '"127.0.0.1:094000"',
        '"127.0.0.1:-1"',
        '"127.0.0.256:9400"',
        '"127.1:9400"',
        '"::1:9400"',
        '"[::1]"',
        '"[::1%lo]:9400"',
        '"[127.0.0.1]:9400"',
        '"http://127.0.0.1:9400"',
        '"127.0.0.1:9400\\n"',
        '"127.0.0.1:\\u0661"',
        "9400",
        '""',
        "~",
        "[]",
    ],
)
def test_no_addresses(value: str) -> None:
    """Names, missing parts, ports out of range and scopes are errors on their line that say what is allowed."""
    with pytest.raises(ConfigError) as caught:
        load_text(config(value))
    (problem,) = caught.value.problems
    assert (problem.line, problem.key) == (1, "metrics.listen")
    assert "127.0.0.1:9400" in problem.allowed


def test_section_is_optional_but_not_empty() -> None:
    """Without the section there is no endpoint; an empty one is an error, and so is one without an address."""
    assert load_text(REST).metrics is None
    for text in ("metrics:\n", "metrics: {}\n", "metrics: {port: 9400}\n"):
        with pytest.raises(ConfigError):
            load_text(text + REST)
