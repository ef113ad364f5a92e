"""What a worker may send: a burst and a rate, and no debts."""

from devd.daemon.health_feed import BURST, RATE_PER_S, Budget


def spent(now_s: float, messages: int) -> Budget:
    """Return a budget after so many messages of the first incarnation at once."""
    budget = Budget(now_s)
    assert sum(budget.allows(now_s, 1) for _ in range(messages)) == min(messages, BURST)
    return budget


def test_flood_leaves_no_debt() -> None:
    """However much was refused, what is sent within the rate from then on is taken."""
    budget = spent(10.0, int(100 * BURST))
    assert not budget.allows(10.0, 1)
    assert budget.allows(10.0 + 2 / RATE_PER_S, 1)


def test_new_worker_owes_nothing_for_the_last_one() -> None:
    """The first word of the next incarnation is taken at once, and it has a whole burst."""
    budget = spent(10.0, int(2 * BURST))
    assert sum(budget.allows(10.0, 2) for _ in range(int(BURST))) == BURST
    assert not budget.allows(10.0, 2)


def test_nobody_gets_another_burst_by_what_is_no_new_incarnation() -> None:
    """Garbage, which names none, and an old incarnation's words are on the present one's account."""
    budget = spent(10.0, int(BURST))
    assert budget.allows(10.0, 3)
    assert sum(budget.allows(10.0, one) for one in (0, 1, 2, 3) for _ in range(int(BURST))) == BURST - 1
