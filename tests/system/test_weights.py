"""Nodes of one place share new clients by their weights."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.system.clients import rush
from tests.system.pop import Pop
from tests.waiting import wait_until

pytestmark = pytest.mark.system

CLIENTS = 40


@pytest.fixture
def weighted(pop: Pop) -> Pop:
    pop.backend("heavy", weight=3)
    pop.backend("light", weight=1)
    pop.serve()
    return pop


def is_three_to_one(reached: Counter[str]) -> bool:
    return reached.total() == CLIENTS and abs(reached["heavy"] - 30) <= 2


def test_weights_hold_for_clients_one_after_the_other(weighted: Pop) -> None:
    reached = Counter(weighted.reached() for _ in range(CLIENTS))
    assert is_three_to_one(reached), reached


def test_weights_hold_for_clients_that_hang_up_as_soon_as_they_are_answered(weighted: Pop) -> None:
    reached = Counter[str]()
    for _ in range(CLIENTS):
        client, name = weighted.holder()
        client.close()  # and the next one comes before the proxy can have carried that on
        reached[name] += 1
    assert is_three_to_one(reached), reached


def test_weights_hold_for_clients_that_stay(weighted: Pop) -> None:
    reached = Counter(weighted.holder()[1] for _ in range(CLIENTS))
    assert is_three_to_one(reached), reached


def test_weights_hold_for_clients_of_the_same_moment(weighted: Pop) -> None:
    sources = [weighted.new_address() for _ in range(CLIENTS)]
    reached = Counter(rush(weighted.proxy.address, sources))
    assert is_three_to_one(reached), reached


def test_a_changed_weight_counts_from_the_next_table_on(weighted: Pop) -> None:
    assert {weighted.reached() for _ in range(4)} == {"heavy", "light"}
    weighted.proxy.edit("UPDATE backends SET weight = 4 - weight")
    reached = Counter(weighted.reached() for _ in range(CLIENTS))
    assert abs(reached["light"] - 30) <= 2, reached


def test_a_weight_of_zero_takes_no_new_clients_but_keeps_those_that_are_bound(
    weighted: Pop,
) -> None:
    bound = weighted.new_address()
    while weighted.reached(bound) != "heavy":
        bound = weighted.new_address()
    weighted.proxy.edit("UPDATE backends SET weight = 0 WHERE id = 'heavy'")

    assert {weighted.reached() for _ in range(10)} == {"light"}
    assert weighted.reached(bound) == "heavy"


def test_equal_nodes_take_turns(pop: Pop) -> None:
    for name in ("a", "b", "c"):
        pop.backend(name)
    log = pop.folder / "access.log"
    pop.serve(EDGEPROXY_ACCESS_LOG=str(log))
    reached: Counter[str] = Counter()
    for number in range(1, 31):
        reached[pop.reached()] += 1
        # One that has not ended yet counts as load, which decides before the turns do.
        wait_until(lambda n=number: len(log.read_text().splitlines()) == n, "its end")  # type: ignore[misc]

    assert set(reached) == {"a", "b", "c"}
    assert max(reached.values()) - min(reached.values()) <= 2, reached
