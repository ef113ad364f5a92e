"""The names the configuration knows for the sandbox are those the workers know."""

from devd.daemon.config.sandbox import CAPABILITIES, SYSCALLS
from devd.daemon.uids import FIRST_UID, Uids
from devd.workers.sandbox import identity
from devd.workers.sandbox.capabilities import CAPABILITIES as KNOWN
from devd.workers.sandbox.syscalls import GROUPS


def test_names_are_those_of_the_workers() -> None:
    """Every capability and every group of system calls can be written, and none that a worker does not know."""
    assert set(CAPABILITIES) == set(KNOWN)
    assert set(SYSCALLS) == set(GROUPS)


def test_each_device_has_a_uid_of_its_own() -> None:
    """No two devices share a uid; one that left gives its own back; the range is the workers' own."""
    uids = Uids()
    first = [uids.of(f"d{number}") for number in range(300)]
    assert len(set(first)) == 300
    assert uids.of("d7") == first[7]
    uids.release("d7")
    assert uids.of("new") == first[7]
    assert FIRST_UID == identity.FIRST_UID
