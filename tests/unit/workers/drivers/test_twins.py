"""Devices that name themselves: what becomes of equal names."""

from devd.workers.drivers import twins


def test_twins_both_get_their_port_and_others_keep_their_name() -> None:
    """Two equal names are told apart the same way whatever their order; a nameless device is known by its port."""
    names = [("s1", "0000:01:00.0"), ("s2", "0000:02:00.0"), ("s1", "0000:03:00.0"), ("", "0000:04:00.0")]
    found, problems = twins.ids(names)
    turned, _problems = twins.ids(names[::-1])
    assert turned[::-1] == found
    assert found == ["s1-0000:01:00.0", "s2", "s1-0000:03:00.0", "0000:04:00.0"]
    assert problems == ["2 devices say they are s1: told apart by their ports"]
