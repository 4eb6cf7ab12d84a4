"""Registered backends are rows like any other, and it is known which ones they are, and whose."""

from __future__ import annotations

import dataclasses
import threading

import pytest

from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.registration import (
    CrowdedError,
    Deregister,
    Edit,
    OperatorsRowError,
    Outcome,
    Register,
)
from edgeproxy.core.backends.rows import parse_node
from edgeproxy.errors import StoreError
from edgeproxy.store.edits import RefusedError
from tests.store.conformance.kinds import ROW, Kind

A = Backend("a", "myapp", "eu", "10.0.0.1", 80, weight=2, hard_limit=150)


@pytest.fixture
def table(empty: Kind) -> Kind:
    """A routing database without nodes."""
    empty.store().ensure()
    return empty


def apply(table: Kind, *edits: Edit, home: str = "here") -> list[Outcome]:
    return table.registrations(home).apply(edits)


def put(table: Kind, backend: Backend = A, most: int = 10, home: str = "here") -> Outcome:
    (outcome,) = apply(table, Register(backend, most), home=home)
    return outcome


def known(table: Kind, home: str = "here") -> set[str]:
    return table.registrations(home).known()


def stored(table: Kind) -> tuple[Backend, ...]:
    return table.store().read().backends


def test_a_registered_backend_is_a_row(table: Kind) -> None:
    assert known(table) == set()
    assert put(table) is True
    assert stored(table) == (A,)
    assert known(table) == {"a"}
    changed = dataclasses.replace(A, port=81, weight=5)
    assert put(table, changed) is False
    assert stored(table) == (changed,)
    assert apply(table, Deregister("a"), Deregister("a")) == [True, False]
    assert (stored(table), known(table)) == ((), set())


def test_a_country_is_kept_and_taken_back(table: Kind) -> None:
    put(table, dataclasses.replace(A, country="AR"))
    assert [each.country for each in stored(table)] == ["AR"]
    put(table)
    assert stored(table) == (A,)


def test_a_row_that_is_deleted_by_any_tool_is_registered_no_more(table: Kind) -> None:
    put(table)
    table.execute("DELETE FROM backends")
    table.insert("a")
    assert known(table) == set()
    assert apply(table, Deregister("a")) == [False]
    assert len(stored(table)) == 1


def test_a_node_that_an_operator_deletes_and_adds_is_the_operators(table: Kind) -> None:
    put(table)
    nodes = table.nodes()
    nodes.delete("a")
    nodes.add(parse_node({**ROW, "id": "a"}))
    assert known(table) == set()
    assert apply(table, Deregister("a", is_expired=True)) == [False]


def test_the_nodes_of_a_table_that_is_made_anew_are_the_operators(table: Kind) -> None:
    put(table)
    table.execute(
        "CREATE TABLE restored AS SELECT * FROM backends; DROP TABLE backends; "
        "ALTER TABLE restored RENAME TO backends;"
    )
    assert known(table) == set()
    assert apply(table, Deregister("a", is_expired=True)) == [False]
    assert known(table) == set()
    assert put(table, dataclasses.replace(A, id="b"), most=1) is True
    table.execute("DELETE FROM backends")
    assert put(table, most=1) is True


def test_without_the_side_table_all_nodes_are_the_operators(table: Kind) -> None:
    put(table)
    table.execute("DROP TABLE edgeproxy_leases")
    assert known(table) == set()
    assert apply(table, Deregister("a")) == [False]
    assert isinstance(put(table), OperatorsRowError)
    table.nodes().delete("a")
    assert put(table) is True
    assert known(table) == {"a"}


def test_what_operators_say_stays(table: Kind) -> None:
    put(table)
    table.execute("UPDATE backends SET healthy = 0, deleted = 1")
    put(table, dataclasses.replace(A, weight=9))
    assert stored(table) == (dataclasses.replace(A, weight=9, healthy=False, deleted=True),)


@pytest.mark.parametrize("columns", [{}, {"healthy": 0, "deleted": 1}, {"wg_ip": "nowhere"}])
def test_a_node_of_an_operator_cannot_be_registered_by_anybody(
    table: Kind, columns: dict[str, object]
) -> None:
    table.insert("a", **columns)
    before = table.rows()
    refused, other = apply(table, Register(A, 10), Register(dataclasses.replace(A, id="b"), 10))
    assert isinstance(refused, OperatorsRowError)
    assert other is True
    assert apply(table, Deregister("a")) == [False]
    assert [each for each in table.rows() if each[0] == "a"] == before
    assert known(table) == {"b"}


def test_one_that_registers_with_another_pop_moves_there(table: Kind) -> None:
    put(table, home="one")
    assert put(table, home="two") is False
    assert (known(table, "one"), known(table, "two")) == (set(), {"a"})
    assert apply(table, Deregister("a", is_expired=True), home="one") == [False]
    assert stored(table) == (A,)
    assert apply(table, Deregister("a", is_expired=True), home="two") == [True]
    assert stored(table) == ()


def test_one_may_leave_at_a_pop_that_is_not_its_home(table: Kind) -> None:
    put(table, home="one")
    assert apply(table, Deregister("a"), home="two") == [True]
    assert (stored(table), known(table, "one")) == ((), set())


def test_one_that_is_refused_leaves_the_others_alone(table: Kind) -> None:
    table.execute("CREATE UNIQUE INDEX one_port ON backends (port)")
    more = [dataclasses.replace(A, id=each, port=port) for each, port in (("b", 80), ("c", 82))]
    first, second, third = apply(table, *(Register(each, 10) for each in (A, *more)))
    assert (first, third) == (True, True)
    assert isinstance(second, RefusedError)
    assert known(table) == {"a", "c"}
    assert isinstance(put(table, more[0]), RefusedError)


def test_no_more_than_allowed_are_registered(table: Kind) -> None:
    others = [dataclasses.replace(A, id=each) for each in "bcd"]
    outcomes = apply(
        table,
        *(Register(each, 2) for each in (A, *others)),
        Deregister("a"),
        Register(others[2], 2),
    )
    assert outcomes[:2] == [True, True]
    assert isinstance(outcomes[2], CrowdedError)
    assert isinstance(outcomes[3], CrowdedError)
    assert outcomes[4:] == [True, True]
    assert put(table, dataclasses.replace(others[0], weight=3), most=2) is False
    assert known(table) == {"b", "d"}


@pytest.mark.parametrize("name", ["", "a'; DROP TABLE backends; --", "nul\x00", "\udc80", "ß" * 9])
def test_whatever_leaves_that_is_not_there_harms_nobody(table: Kind, name: str) -> None:
    assert apply(table, Register(A, 10), Deregister(name)) == [True, False]
    assert known(table) == {"a"}


def test_a_database_without_the_table_is_an_error(table: Kind) -> None:
    table.execute("DROP TABLE backends")
    with pytest.raises(StoreError, match="has no table"):
        put(table)


def test_many_who_register_at_once_at_two_pops_all_do(table: Kind) -> None:
    each_has = 20
    outcomes: list[Outcome] = []

    def register(home: str) -> None:
        rows = table.registrations(home)
        for number in range(each_has):
            backend = dataclasses.replace(A, id=f"{home}-{number}")
            for _ in range(100):  # a file that is locked says so, and is tried again
                try:
                    outcomes.extend(rows.apply([Register(backend, 30)]))
                except StoreError:
                    continue
                break

    threads = [threading.Thread(target=register, args=(home,)) for home in ("one", "two")]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert outcomes.count(True) == 30
    assert len(known(table, "one")) + len(known(table, "two")) == 30
    assert sum(isinstance(each, CrowdedError) for each in outcomes) == 2 * each_has - 30
