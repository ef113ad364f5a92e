"""Small kernel files: missing ones, garbage, and what a reason may show of them."""

import re
from pathlib import Path

import pytest

from devd.workers.errors import SpecError
from devd.workers.hw import attributes, selection

GARBAGE = (b"", b"\n", b"banana", b"-1", b"\xff\xfe\x00\x01", b"9" * 4000, b"1e5", b"0x12", "²".encode(), b"1_0")


def test_a_missing_attribute_is_none(tmp_path: Path) -> None:
    """Neither a missing file nor a file where a directory should be is an error."""
    (tmp_path / "file").write_text("5\n")
    for path in (tmp_path / "nothing", tmp_path / "file/nothing"):
        assert attributes.text(path) is None
        assert attributes.whole(path) is None
        assert attributes.names(path) == []
        assert attributes.content(path) is None
        assert attributes.target(path) == ""
    assert attributes.whole(tmp_path / "file") == 5


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_is_no_number(tmp_path: Path, garbage: bytes) -> None:
    """Whatever is not a plain whole number of 64 bits at most is none."""
    (tmp_path / "counter").write_bytes(garbage)
    (tmp_path / "dev").write_bytes(garbage)
    assert attributes.whole(tmp_path / "counter") is None
    assert attributes.device_number(tmp_path) is None
    shown = attributes.shown(attributes.text(tmp_path / "counter") or "")
    assert len(shown) <= 65
    assert shown.isprintable()


def test_an_error_of_the_driver_is_raised_with_its_path(tmp_path: Path) -> None:
    """What is not "not offered" is the caller's to judge, and the error names the file."""
    with pytest.raises(IsADirectoryError) as caught:
        attributes.text(tmp_path)
    assert caught.value.filename == str(tmp_path)


def test_entries_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """nvme10 comes after nvme2, and names that do not fit are left out."""
    for name in ("nvme10", "nvme2", "nvme2n1", "fabrics"):
        (tmp_path / name).mkdir()
    assert attributes.numbered(tmp_path, re.compile("nvme[0-9]+")) == ["nvme2", "nvme10"]


def test_numa_nodes_of_minus_one_are_left_out(tmp_path: Path) -> None:
    """The kernel's -1 means that there is none."""
    for found, wanted in (("-1", None), ("0", 0), ("1", 1)):
        (tmp_path / "numa_node").write_text(found + "\n")
        assert attributes.numa_node(tmp_path) == wanted


def test_a_selection_includes_and_excludes() -> None:
    """Every key must fit, one excluded key is enough to be left out, a missing property fits only a star."""
    chosen = selection.select({"model": ["A*", "B"], "exclude": {"serial": "bad*"}}, ("model", "serial"))
    assert chosen.takes({"model": "A1", "serial": "good"})
    assert not chosen.takes({"model": "A1", "serial": "bad1"})
    assert not chosen.takes({"model": "C", "serial": "good"})
    assert not chosen.takes({})


@pytest.mark.parametrize("match", [{"modell": "A"}, {"exclude": {"modell": "A"}}, {"exclude": "A"}, {"model": 5}])
def test_a_misspelt_selection_is_refused(match: dict[str, object]) -> None:
    """A key nobody knows must not take every device there is."""
    with pytest.raises(SpecError, match="match"):
        selection.select(match, ("model",))
