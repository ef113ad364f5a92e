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
    """A gone device's nodes are free at once, its id when it is forgotten."""
    claims = Claims()
    assert claims.claim("a.io/one", Device("dev", (NULL,))) is None
    claims.release_nodes("dev")
    assert claims.claim("a.io/two", Device("other", (NULL,))) is None
    assert claims.claim("a.io/two", Device("dev", (ZERO,))) is not None
    claims.release("dev")
    assert claims.claim("a.io/two", Device("dev", (ZERO,))) is None
