"""No id and no node is offered by two resources."""

from devd.daemon.claims import Claims
from devd.ipc.messages import Device, Node

NULL = Node("/dev/null", "char", 1, 3)
ZERO = Node("/dev/zero", "char", 1, 5)


def test_second_resource_with_the_same_id_is_told_both_names() -> None:
    """An id that another resource holds is refused, naming both."""
    claims = Claims()
    assert claims.claim("a.io/one", Device("null", (NULL,))) is None
    conflict = claims.claim("a.io/two", Device("null", (ZERO,)))
    assert conflict is not None
    assert "a.io/one" in conflict
    assert "a.io/two" in conflict


def test_same_node_by_another_path_is_the_same_device() -> None:
    """Nodes are compared by numbers: a link to a node that is offered already is refused."""
    claims = Claims()
    assert claims.claim("a.io/one", Device("null", (NULL,))) is None
    conflict = claims.claim("a.io/two", Device("link", (Node("/dev/by-id/x", "char", 1, 3),)))
    assert conflict is not None
    assert "/dev/by-id/x is the same device as null of a.io/one" in conflict
    assert claims.claim("a.io/two", Device("blocky", (Node("/dev/b", "block", 1, 3),))) is None


def test_claiming_again_moves_the_nodes() -> None:
    """A device that stands on other nodes now holds those and no others."""
    claims = Claims()
    assert claims.claim("a.io/one", Device("dev", (NULL,))) is None
    assert claims.claim("a.io/one", Device("dev", (ZERO,))) is None
    assert claims.claim("a.io/two", Device("other", (NULL,))) is None
    assert claims.claim("a.io/two", Device("third", (ZERO,))) is not None


def test_what_is_released_can_be_claimed() -> None:
    """A device that is gone keeps its nodes and its id as long as it is listed: a pod may have it; then all is free."""
    claims = Claims()
    assert claims.claim("a.io/one", Device("dev", (NULL,))) is None
    claims.leaving("dev", vanished=True)
    conflict = claims.claim("a.io/one", Device("other", (NULL,)))
    assert conflict == (
        "/dev/null is the same device as dev of a.io/one, which is leaving the list: offered once that has left"
    )
    assert claims.claim("a.io/two", Device("other", (NULL,))) == conflict
    assert claims.claim("a.io/two", Device("dev", (ZERO,))) is not None
    assert not claims.take_freed()
    claims.release("dev")
    assert (claims.take_freed(), claims.take_freed()) == (True, False)
    assert claims.claim("a.io/two", Device("dev", (ZERO,))) is None
    assert claims.claim("a.io/two", Device("other", (NULL,))) is None


def test_path_that_leads_elsewhere_now_is_still_given() -> None:
    """A path stands in a pod's grant for its life: another device behind it is not offered by it."""
    claims = Claims()
    assert claims.claim("a.io/one", Device("dev", (Node("/dev/by-id/x", "char", 188, 0),))) is None
    conflict = claims.claim("a.io/two", Device("other", (Node("/dev/by-id/x", "char", 188, 1),)))
    assert conflict is not None
    assert "/dev/by-id/x is where dev of a.io/one is reached" in conflict


def test_number_of_a_file_that_is_gone_says_nothing() -> None:
    """The file system gives an inode's number to the next file; a device node's number is its driver's."""
    claims = Claims()
    assert claims.claim("a.io/one", Device("file", (Node("/tmp/a", "other", 7, 12),))) is None
    again = Device("next", (Node("/tmp/b", "other", 7, 12),))
    assert claims.claim("a.io/one", again) is not None
    claims.leaving("file", vanished=False)
    assert claims.claim("a.io/one", again) is not None
    claims.leaving("file", vanished=True)
    assert claims.claim("a.io/one", again) is None
    assert claims.claim("a.io/one", Device("third", (Node("/tmp/a", "other", 7, 13),))) is not None


def test_devices_that_changed_places_are_no_obstacle_to_each_other() -> None:
    """Both were seen together on each other's nodes: each gets the other's, and a third still gets neither."""
    claims = Claims()
    assert claims.claim_all("a.io/one", [Device("a", (NULL,)), Device("b", (ZERO,))]) == [None, None]
    assert claims.claim_all("a.io/one", [Device("a", (ZERO,)), Device("b", (NULL,))]) == [None, None]
    for node, holder in ((ZERO, "a"), (NULL, "b")):
        assert f"the same device as {holder} of a.io/one" in str(claims.claim("a.io/two", Device("c", (node,))))


def test_whose_claim_is_refused_holds_on_to_what_it_held() -> None:
    """One that may not move stays in the way of those who would move to where it was, and of those behind them."""
    full = Node("/dev/full", "char", 1, 7)
    claims = Claims()
    assert claims.claim("a.io/two", Device("x", (full,))) is None
    assert claims.claim("a.io/one", Device("a", (ZERO,))) is None
    assert claims.claim("a.io/one", Device("b", (NULL,))) is None
    moved = [Device("c", (NULL,)), Device("b", (ZERO,)), Device("a", (full,)), Device("d", ())]
    answers = claims.claim_all("a.io/one", moved)
    assert [str(one).partition(":")[0] for one in answers] == [
        "/dev/null is the same device as b of a.io/one",
        "/dev/zero is the same device as a of a.io/one",
        "/dev/full is the same device as x of a.io/two",
        "None",
    ]
    assert not claims.take_freed()
    claims.release("x")
    assert claims.claim_all("a.io/one", moved[1:]) == [None, None, None]


def test_two_of_one_list_do_not_share_a_node() -> None:
    """The first of a list has it, also where both had nodes of their own before."""
    claims = Claims()
    assert claims.claim_all("a.io/one", [Device("a", (NULL,)), Device("b", (ZERO,))]) == [None, None]
    first, second = claims.claim_all("a.io/one", [Device("a", (NULL,)), Device("b", (NULL,))])
    assert first is None
    assert "/dev/null is the same device as a of a.io/one" in str(second)
    assert "/dev/zero is the same device as b" in str(claims.claim("a.io/two", Device("c", (ZERO,))))


def test_what_all_may_bring_along_is_nobodys() -> None:
    """A shared node is no conflict, by number or by path."""
    claims = Claims()
    shared = Node("/dev/vfio/vfio", "char", 10, 196, shared=True)
    assert claims.claim("a.io/one", Device("a", (NULL, shared))) is None
    assert claims.claim("a.io/two", Device("b", (ZERO, shared))) is None
