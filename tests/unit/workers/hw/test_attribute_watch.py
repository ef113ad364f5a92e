"""Attributes that the kernel tells changes of, by one of its own that a test can change."""

import select
from pathlib import Path

from devd.workers.hw.attribute_watch import AttributeWatch
from tests.support import notified
from tests.support.forkbench import WAIT_S


def _readable(fd: int | None, within_s: float) -> bool:
    assert fd is not None
    return bool(select.select([fd], [], [], within_s)[0])


def test_each_change_is_heard_once() -> None:
    """Nothing at first though the file is readable; after a change once, and again after the next one."""
    watch = AttributeWatch()
    with notified.attribute() as one:
        watch.follow(one.attribute)
        watch.follow(one.attribute)
        assert not _readable(watch.fd, 0)
        assert not watch.heard()
        with one.member():
            assert _readable(watch.fd, WAIT_S)
            assert watch.heard()
            assert not _readable(watch.fd, 0)
        assert _readable(watch.fd, WAIT_S), "the member has left"
        assert watch.heard()
    watch.close()
    assert watch.fd is None
    watch.close()


def test_a_device_that_came_back_is_watched_anew() -> None:
    """The attribute of a device that was removed tells nothing any more: the one that stands there now is watched."""
    watch = AttributeWatch()
    with notified.attribute() as one:
        watch.follow(one.attribute)
    watch.follow(one.attribute)
    assert watch.fd is None, "nothing is there to be watched"
    with notified.attribute() as other:
        assert other.attribute == one.attribute
        watch.follow(other.attribute)
        with other.member():
            assert _readable(watch.fd, WAIT_S)
            assert watch.heard()
        watch.close()


def test_what_cannot_be_waited_for_is_left_to_the_period(tmp_path: Path) -> None:
    """A plain file and a missing one: no descriptor, no error, and nothing stays open."""
    watch = AttributeWatch()
    (tmp_path / "plain").write_text("5")
    for name in ("plain", "missing"):
        watch.follow(tmp_path / name)
        assert watch.fd is None
        assert not watch.heard()
    watch.close()
