"""The checked-in gRPC code is what the pinned generator makes of the .proto files."""

from pathlib import Path

import pytest

from devd.proto import gen
from devd.proto.generate import FILES, generate

CHECKED_IN = Path(gen.__file__).parent
SUFFIXES = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")


def test_checked_in_code_is_what_the_generator_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Generated anew, without the virtual environment on PATH, every file is the same, none is missing or too many."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    generate(tmp_path)
    made = {one.name: one.read_bytes() for one in (tmp_path / "devd" / "proto" / "gen").iterdir()}
    assert set(made) == {name + suffix for name in FILES for suffix in SUFFIXES}
    ours = {one.name: one.read_bytes() for one in CHECKED_IN.iterdir() if one.is_file() and one.name != "__init__.py"}
    assert set(ours) == set(made)
    different = sorted(name for name in made if made[name] != ours[name])
    assert different == [], "run `make proto`"


def test_every_proto_file_is_generated() -> None:
    """No .proto file is forgotten in the generator's list."""
    assert {one.stem for one in CHECKED_IN.parent.glob("*.proto")} == set(FILES)
