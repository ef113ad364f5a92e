"""The names the configuration knows for the sandbox are those the workers know."""

from devd.daemon.cdi_desk import SCRIBE_UID
from devd.daemon.config.sandbox import CAPABILITIES, SYSCALLS
from devd.daemon.uids import FIRST_UID, RANGE, Uids, first_uid
from devd.workers.sandbox import identity
from devd.workers.sandbox.capabilities import CAPABILITIES as KNOWN
from devd.workers.sandbox.syscalls import GROUPS


def test_names_are_those_of_the_workers() -> None:
    """Every capability and every group of system calls can be written, and none that a worker does not know."""
    assert set(CAPABILITIES) == set(KNOWN)
    assert set(SYSCALLS) == set(GROUPS)


def test_each_device_has_a_uid_of_its_own() -> None:
    """No two devices share a uid; one that left gives its own back; the range is the workers' own."""
    uids = Uids("/run/devd")
    first = [uids.of(f"d{number}") for number in range(300)]
    assert len(set(first)) == 300
    assert uids.of("d7") == first[7]
    uids.release("d7")
    assert uids.of("new") == first[7]
    assert FIRST_UID == identity.FIRST_UID


def test_two_devd_on_one_node_share_no_uid() -> None:
    """Each runtime directory has a range of its own, apart from the scribe's id and below those of others."""
    places = ["/run/devd", "/run/devd-2", "/tmp/devd-x/run", ""]
    firsts = [first_uid(place) for place in places]
    assert len(set(firsts)) == len(places)
    assert all(abs(one - other) >= RANGE for one in firsts for other in firsts if one != other)
    assert all(SCRIBE_UID < one < 0x7FFE0000 - RANGE for one in firsts)
