"""Templates: what is filled in, what stays, what is refused."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devd.daemon.templates import (
    PLACEHOLDERS,
    TemplateError,
    check_template,
    differs,
    placeholders,
    properties,
    render,
)

VALUES = {name: f"<{name}>" for name in PLACEHOLDERS}


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("", ""),
        ("plain", "plain"),
        ("{id}:{ids}", "<id>:<ids>"),
        ("{{id}}", "{id}"),
        ("{{{id}}}", "{<id>}"),
        ("a}}b{{c", "a}b{c"),
        ("two\nlines {path}", "two\nlines <path>"),
    ],
)
def test_placeholders_are_filled_and_doubled_braces_are_braces(text: str, filled: str) -> None:
    """Each placeholder gets its value once, and doubled braces come out single."""
    assert check_template(text) is None
    assert render(text, VALUES) == filled


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{1st}", "unknown placeholder {1st}; allowed: {id}, {ids}"),
        ("{}", "unknown placeholder {}"),
        ("{id!r}", "unknown placeholder {id!r}"),
        ("{id:>9}", "unknown placeholder {id:>9}"),
        ("{ id }", "unknown placeholder { id }"),
        ("ab{", "single '{' at character 3; a brace itself is written {{"),
        ("a}b", "single '}' at character 2; a brace itself is written }}"),
        ("{id}}", "single '}' at character 5"),
    ],
)
def test_anything_else_in_braces_is_refused(text: str, told: str) -> None:
    """A typo, a format of Python's or a lone brace is an error that says where, and what is allowed."""
    problem = check_template(text)
    assert problem is not None
    assert told in problem
    with pytest.raises(TemplateError):
        render(text, VALUES)


def test_a_value_is_never_a_template() -> None:
    """Braces in a device's path are not looked at again."""
    assert render("{path}", {"path": "/dev/{id}"}) == "/dev/{id}"


def test_a_placeholder_without_a_value_is_an_error() -> None:
    """A known placeholder that has no value here is refused with those that have one."""
    with pytest.raises(TemplateError, match=r"\{ids\} has no value here; these have: \{id\}"):
        render("{ids}", {"id": "a"})


def test_the_placeholders_of_a_text_are_told() -> None:
    """Escaped braces do not count as placeholders."""
    assert placeholders("{id} {index} {{name}} {id}") == {"id", "index"}


def test_what_is_no_placeholder_is_a_property() -> None:
    """Such a text is made for each device where it is a path."""
    assert properties("{id} {serial} {{model}} {ID_PATH}") == {"serial", "ID_PATH"}
    assert [differs(text) for text in ("{ids}", "{id}", "{serial}", "{{id}}")] == [False, True, True, False]


@given(st.text(alphabet="{}ab id" + string.ascii_lowercase[:4]))
def test_check_and_render_agree(text: str) -> None:
    """Every text is either sound and renders, or is told to be wrong and does not."""
    if check_template(text) is None:
        assert isinstance(render(text, VALUES | dict.fromkeys(properties(text), "value")), str)
    else:
        with pytest.raises(TemplateError):
            render(text, VALUES)


@given(st.text())
def test_any_text_can_be_escaped(text: str) -> None:
    """Doubling its braces makes any text a template of itself."""
    assert render(text.replace("{", "{{").replace("}", "}}"), {}) == text
