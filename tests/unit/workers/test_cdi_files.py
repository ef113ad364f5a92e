"""CDI specifications as files: whole or not at all, one's own alone, and those of others searched."""

import os
from pathlib import Path

import pytest

from devd.workers.cdi_files import SpecFiles, digest, known

NAME = "devd.a.io_x.json"


def test_a_text_is_put_in_place_and_taken_away(tmp_path: Path) -> None:
    """What stands is known by its digest, also when somebody else wrote it; nothing else is left."""
    files = SpecFiles(str(tmp_path))
    assert files.standing(NAME) == ""
    (tmp_path / f".{NAME}.tmp").write_text("left by a writer that was killed")
    files.write(NAME, "one")
    assert files.standing(NAME) == digest("one")
    assert [one.name for one in tmp_path.iterdir()] == [NAME]
    (tmp_path / NAME).write_text("another's words")
    assert files.standing(NAME) == digest("another's words")
    files.write(NAME, "two")
    assert (tmp_path / NAME).read_text() == "two"
    files.remove(NAME)
    files.remove(NAME)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["nvidia.yaml", "devd.json", "devd.a/b.json", "../devd.a.json", "devd.a.yaml", ""])
def test_files_of_others_are_out_of_reach(tmp_path: Path, name: str) -> None:
    """A name that is not one of devd's is refused before anything is touched."""
    files = SpecFiles(str(tmp_path))
    for touch in (files.standing, files.remove, lambda one: files.write(one, "x")):
        with pytest.raises(ValueError, match="no file of devd's"):
            touch(name)


def test_what_cannot_be_written_leaves_what_stood(tmp_path: Path) -> None:
    """A directory in the way of the name: the error has the path, and no half file stays behind."""
    files = SpecFiles(str(tmp_path))
    (tmp_path / NAME / "below").mkdir(parents=True)
    with pytest.raises(OSError, match=NAME):
        files.write(NAME, "one")
    assert os.listdir(tmp_path) == [NAME]  # noqa: PTH208 - names alone


@pytest.mark.parametrize(
    "text",
    [
        "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n- name: GPU-1\n  containerEdits: {}\n",
        'cdiVersion: "0.5.0"\nkind: "nvidia.com/gpu"\ndevices:\n    - name: "GPU-1"\n',
        '{"cdiVersion":"0.5.0","kind":"nvidia.com/gpu","devices":[{"name":"GPU-1","containerEdits":{}}]}',
        '{\n  "kind": "nvidia.com/gpu",\n  "devices": [\n    {\n      "name": "GPU-1"\n    }\n  ]\n}\n',
    ],
)
def test_names_of_others_are_found(tmp_path: Path, text: str) -> None:
    """In YAML and in JSON, in whatever layout; not those of another kind or another device, nor in other files."""
    (tmp_path / "nvidia.yaml").write_text(text)
    (tmp_path / "notes.txt").write_text(text.replace("GPU-1", "GPU-2"))
    names = ("nvidia.com/gpu=GPU-1", "nvidia.com/gpu=GPU-2", "amd.com/gpu=GPU-1", "nvidia.com/gpu=GPU")
    assert known((str(tmp_path / "none"), str(tmp_path)), names) == ("nvidia.com/gpu=GPU-1",)


def test_ones_own_files_are_no_word_of_others(tmp_path: Path) -> None:
    """A specification of devd's does not confirm a vendor's name; what is no regular file is passed over."""
    (tmp_path / NAME).write_text('{"kind": "a.io/x", "devices": [{"name": "a"}]}')
    os.mkfifo(tmp_path / "pipe.json")
    assert known((str(tmp_path),), ("a.io/x=a",)) == ()
