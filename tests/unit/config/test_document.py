"""The file as YAML: what is refused before any rule, where it stands, and that no file costs much."""

import time
from pathlib import Path

import pytest

from devd.daemon.config import ConfigError, Problem, load, load_text
from devd.daemon.config.document import MAX_BYTES, MAX_DEPTH, MAX_VALUES, parse

GOOD = "resources:\n  - {name: a.io/x, driver: sim, match: {count: 1}}\n"


def problems(text: str) -> tuple[Problem, ...]:
    """Return what is wrong with a text; fails when nothing is."""
    with pytest.raises(ConfigError) as caught:
        load_text(text, "t.yaml")
    return caught.value.problems


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("", 1, "the file is empty"),
        ("# nothing\n", 1, "the file is empty"),
        ("a: [1,\nb: 2\n", 3, "while parsing a flow sequence that begins on line 1"),
        ("a: 1\n\tb: 2\n", 2, "not YAML"),
        ("a: 'open\nmore\n", 3, "not YAML"),
        ("a: *nowhere\n", 1, "not YAML: found undefined alias"),
        ("a: 1\n---\nb: 2\n", 2, "expected a single document"),
        ("a: 1\nb: \x07\n", 2, "not YAML: character #x0007 is not allowed"),
        ('a: 1\nb: "\\Uffffffff"\n', 2, "not YAML"),
        ("a: " + "[" * 1000, 1, f"nested deeper than {MAX_DEPTH}"),
        ("a: [" + "0, " * MAX_VALUES + "0]", 1, f"more than {MAX_VALUES} values"),
        ("a: &a [*a]\n", 1, f"nested deeper than {MAX_DEPTH}, aliases followed"),
        ("a: &a\n  <<: *a\n", 1, f"nested deeper than {MAX_DEPTH}, aliases followed"),
    ],
)
def test_a_file_that_cannot_be_read_as_yaml(text: str, line: int, part: str) -> None:
    """What is not YAML within bounds is one problem with its line, and no rule is tried on it."""
    (problem,) = problems(text)
    assert problem.line == line
    assert part in problem.message


@pytest.mark.parametrize(
    ("text", "line", "key", "part"),
    [
        ("kubelet: {}\nkubelet: {}\n" + GOOD, 2, "kubelet", "given twice, first on line 1"),
        ("kubelet: {dir: /a,\n  dir: /b}\n" + GOOD, 2, "kubelet.dir", "given twice, first on line 1"),
        ("? [a]\n: 1\n" + GOOD, 1, "", "a map's key must be text (found a list"),
        ("kubelet: !mine {}\n" + GOOD, 1, "kubelet", "this tag is not known here (found !mine"),
        ("kubelet: {dir: !!python/name:os.system /a}\n" + GOOD, 1, "kubelet.dir", "this tag is not known here"),
        ("kubelet: {dir: !!binary L2E=}\n" + GOOD, 1, "kubelet.dir", "this tag is not known here"),
        ("kubelet: !!set {dir}\n" + GOOD, 1, "kubelet", "this tag is not known here"),
        ("kubelet: {<<: 3}\n" + GOOD, 1, "kubelet.<<", "only maps can be merged (found 3"),
        ('kubelet: {dir: "/a\\0b"}\n' + GOOD, 1, "kubelet.dir", "holds a NUL"),
        ('kubelet: {dir: "/a\\ud800"}\n' + GOOD, 1, "kubelet.dir", "half a surrogate pair"),
    ],
)
def test_yaml_that_has_no_place_here(text: str, line: int, key: str, part: str) -> None:
    """Keys given twice, foreign tags and text that no path can hold are told with line and key."""
    found = [one for one in problems(text) if part in one.render("t.yaml").replace("'<<'", "<<")]
    assert [(one.line, one.key.replace("'<<'", "<<")) for one in found] == [(line, key)]


def test_explicit_tag_that_does_not_fit() -> None:
    """A value under a tag it has not the form of is a problem, not a crash of the YAML library."""
    for tag, value in (("int", '""'), ("float", "x"), ("bool", "maybe"), ("int", "0x")):
        text = f"kubelet: {{dir: /a,\n  registration: !!{tag} {value}}}\n{GOOD}"
        assert any("does not fit the value" in one.message and one.line == 2 for one in problems(text)), tag


def test_problems_behind_a_broken_key_are_told_too() -> None:
    """A key given twice does not hide what else is wrong."""
    found = problems("kubelet: {dir: a}\nkubelet: {}\nresources: []\n")
    assert [(one.line, one.key) for one in found] == [(1, "kubelet.dir"), (2, "kubelet"), (3, "resources")]


def test_nested_aliases_stop_at_the_bound() -> None:
    """A few lines that stand for a billion values are refused quickly."""
    text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    text += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10))
    began_s = time.monotonic()
    (problem,) = problems(text)
    assert time.monotonic() - began_s < 10
    assert f"more than {MAX_VALUES} values, aliases followed" in problem.message


def test_nested_merges_stop_at_the_bound() -> None:
    """The same by merge keys."""
    text = "a0: &a0 {x: 1}\n"
    text += "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 10))
    (problem,) = problems(text)
    assert f"more than {MAX_VALUES} values, aliases followed" in problem.message


def test_a_large_file_is_refused_unread() -> None:
    """One byte over the limit is refused for the size alone."""
    assert parse("#" * MAX_BYTES).problems[0].message == "the file is empty: resources are needed"
    (problem,) = problems("#" * (MAX_BYTES + 1))
    assert problem.line == 0
    assert problem.render("t.yaml") == f"t.yaml: the file is larger than {MAX_BYTES} bytes"


def test_a_long_number_costs_nothing() -> None:
    """A base-60 number of a hundred thousand places, quadratic to convert, is taken for text."""
    began_s = time.monotonic()
    found = problems(GOOD + "  - {name: a.io/y, driver: sim, match: {count: 1" + ":00" * 100_000 + "}}\n")
    assert time.monotonic() - began_s < 10
    assert [(one.line, one.key) for one in found] == [(3, "resources[1].match.count")]


def test_aliases_and_merges_work() -> None:
    """Anchors share values; a merged map's own keys win, and earlier merges go before later ones."""
    text = (
        "resources:\n"
        "  - &first\n"
        "    name: a.io/x\n"
        "    driver: node\n"
        "    match: {path: /dev/x}\n"
        "    probe: &probe {kind: open, period: 7s, mode: w}\n"
        "  - <<: [{replicas: 3}, *first]\n"
        "    name: a.io/y\n"
        "    probe: {<<: *probe, mode: rw}\n"
    )
    first, second = load_text(text).resources
    assert (first.name, second.name, first.replicas, second.replicas) == ("a.io/x", "a.io/y", 1, 3)
    assert first.probe.as_spec() == {"kind": "open", "mode": "w"}
    assert second.probe.as_spec() == {"kind": "open", "mode": "rw"}
    assert second.probe.period_s == 7
    assert second.match == first.match


def test_a_problem_in_an_aliased_value_has_the_line_it_is_written_on() -> None:
    """The line is the one to correct, the key each place that uses it."""
    text = (
        "resources:\n"
        "  - {name: a.io/x, driver: sim, match: {count: 1}, restart: &r {intensity: no}}\n"
        "  - {name: a.io/y, driver: sim, match: {count: 1, prefix: y}, restart: *r}\n"
    )
    assert [(one.line, one.key) for one in problems(text)] == [
        (2, "resources[0].restart.intensity"),
        (2, "resources[1].restart.intensity"),
    ]


def test_load_reads_a_file(tmp_path: Path) -> None:
    """A file with a byte order mark is read, and its path stands in front of each problem."""
    path = tmp_path / "devd.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert load(path).resources[0].name == "a.io/x"
    path.write_text(GOOD + "more: 1\n")
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert caught.value.render() == f"{path}:3: more: unknown key (allowed kubelet, metrics, resources)"
    assert str(caught.value) == caught.value.render()


def test_load_tells_why_a_file_cannot_be_read(tmp_path: Path) -> None:
    """A missing file, a directory and bytes that are not UTF-8 are configuration errors with their reason."""
    for path, part in ((tmp_path / "none", "ENOENT"), (tmp_path, "EISDIR")):
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert caught.value.render().startswith(f"{path}: cannot be read: {part} (")
    path = tmp_path / "latin1.yaml"
    path.write_bytes(b"a: 1\nb: \xe4\n")
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert caught.value.render() == f"{path}:2: not UTF-8 text (found byte 0xe4; allowed UTF-8)"
