"""The workers' cgroups: what is divided, named, removed, and said where nothing was delegated.

Directories stand for the hierarchy; the lab has a real one.
"""

import os
from pathlib import Path

import pytest

from devd.daemon.cgroups import Cgroups


@pytest.fixture
def service(tmp_path: Path) -> Path:
    """Return a cgroup that was delegated to this process."""
    own = tmp_path / "system.slice/devd.service"
    own.mkdir(parents=True)
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids\n")
    (own / "cgroup.controllers").write_text("memory pids\n")
    (tmp_path / "membership").write_text("1:name=systemd:/x\n0::/system.slice/devd.service\n")
    return own


def here(service: Path) -> Cgroups:
    """Take it over."""
    root = service.parents[1]
    return Cgroups.here(root, root / "membership")


def test_front_leaves_for_a_leaf_and_children_are_bounded(service: Path) -> None:
    """The process moves itself into a leaf, and both controllers are on for its children."""
    assert here(service).problem == ""
    assert (service / "front/cgroup.procs").read_text() == str(os.getpid())
    assert (service / "cgroup.subtree_control").read_text() == "+memory +pids"


def test_each_device_has_a_directory_that_goes_with_it(service: Path) -> None:
    """Two devices have two, whatever they are called; the same one comes again; they are gone when they are let go."""
    cgroups = here(service)
    told = [cgroups.options(device) for device in ("a/b", "c", "a/b")]
    assert told[0] == told[2] != told[1]
    folders = [Path(str(one["cgroup"])) for one in told]
    assert all(one.is_dir() and one.parent == service for one in folders)
    cgroups.remove("c")
    assert not folders[1].exists()
    cgroups.remove("never seen")
    cgroups.close()
    assert sorted(one.name for one in service.iterdir() if one.is_dir()) == ["front"]


def test_one_that_was_moved_before_finds_its_own_again(service: Path) -> None:
    """A front that was started from the leaf of an earlier one does not nest."""
    (service.parents[1] / "membership").write_text("0::/system.slice/devd.service/front\n")
    cgroups = here(service)
    assert Path(str(cgroups.options("a")["cgroup"])).parent == service


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda own: (own / "cgroup.controllers").write_text("cpu\n"), "memory and pids are not delegated"),
        (lambda own: (own.parents[1] / "cgroup.controllers").unlink(), "no cgroup hierarchy of version 2"),
        (lambda own: (own.parents[1] / "membership").write_text("4:memory:/x\n"), "no cgroup hierarchy of version 2"),
        (lambda own: (own / "front").write_text("in the way"), "front: File exists"),
    ],
    ids=["controllers", "not mounted", "version 1", "refused"],
)
def test_what_was_not_delegated_is_every_workers_missing_layer(service: Path, spoil: object, words: str) -> None:
    """Each worker is told why it has no cgroup; nothing is made."""
    assert callable(spoil)
    spoil(service)
    cgroups = here(service)
    assert words in cgroups.problem
    assert cgroups.options("a") == {"no_cgroup": cgroups.problem}
    cgroups.close()


def test_without_the_option_nobody_is_told_anything() -> None:
    """A devd that was not told to has no cgroups, and no worker lacks one."""
    assert Cgroups(None).options("a") == {}
