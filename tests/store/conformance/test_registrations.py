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
    End,
    NotYoursError,
    OperatorsRowError,
    Outcome,
    Register,
    Remove,
)
from edgeproxy.core.backends.rows import parse_node
from edgeproxy.errors import StoreError
from edgeproxy.store.edits import LEASE_ENDED, RefusedError
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


def end(table: Kind, home: str = "here", at: int = 1000) -> Outcome:
    (outcome,) = apply(table, End("a", at), home=home)
    return outcome


def known(table: Kind, home: str = "here") -> set[str]:
    """Return the backends with a live lease there."""
    return set(table.registrations(home).ownership().here)


def withheld(table: Kind) -> dict[str, int]:
    return dict(table.registrations("nobody").ownership().withheld)


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
    assert end(table) is False


def test_the_nodes_of_a_table_that_is_made_anew_are_the_operators(table: Kind) -> None:
    put(table)
    table.execute(
        "CREATE TABLE restored AS SELECT * FROM backends; DROP TABLE backends; "
        "ALTER TABLE restored RENAME TO backends;"
    )
    assert known(table) == set()
    assert end(table) is False
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


def test_one_that_registers_with_two_pops_has_two_leases_and_each_ends_its_own(table: Kind) -> None:
    put(table, home="one")
    assert put(table, home="two") is False
    assert (known(table, "one"), known(table, "two")) == ({"a"}, {"a"})
    for home in ("one", "two"):
        assert table.registrations(home).ownership().elsewhere == {"a"}
    assert end(table, "one") is False
    assert (known(table, "one"), known(table, "two")) == (set(), {"a"})
    assert table.registrations("one").ownership().elsewhere == {"a"}
    assert table.registrations("two").ownership().elsewhere == set()
    assert end(table, "three") is False
    assert stored(table) == (A,)
    assert end(table, "two") is True
    assert stored(table) == ()
    assert (known(table, "one"), known(table, "two")) == (set(), set())
    assert len(table.rows()) == 1


def test_one_whose_leases_have_all_ended_is_left_out_and_its_row_stays(table: Kind) -> None:
    table.insert("op")
    store = table.store()
    put(table)
    assert {each.id for each in store.read().backends} == {"a", "op"}
    assert withheld(table) == {}
    assert end(table, at=1234) is True
    assert store.changed()
    snapshot = store.read()
    assert [each.id for each in snapshot.backends] == ["op"]
    assert snapshot.skipped == ()
    assert not store.changed()
    assert withheld(table) == {"a": 1234}
    assert [row[0] for row in table.rows()] == ["a", "op"]
    assert end(table) is False


def test_a_faulty_row_that_is_withheld_is_not_named_either(table: Kind) -> None:
    put(table)
    table.execute("UPDATE backends SET port = 0")
    assert len(table.store().read().skipped) == 1
    assert end(table) is True
    assert table.store().read().skipped == ()


@pytest.mark.parametrize("home", ["here", "there"])
def test_one_that_is_withheld_comes_back_as_a_new_one_at_any_pop(table: Kind, home: str) -> None:
    put(table)
    table.execute("UPDATE backends SET healthy = 0")
    end(table)
    assert put(table, home=home) is True
    assert stored(table) == (dataclasses.replace(A, healthy=False),)
    assert (known(table, home), withheld(table)) == ({"a"}, {})
    assert put(table, home=home) is False


def test_one_that_comes_back_from_another_address_is_told_by_its_caller(table: Kind) -> None:
    put(table)
    other = dataclasses.replace(A, wg_ip="10.0.0.2")
    (refused,) = apply(table, Register(other, 9, caller="10.0.0.2"))
    assert isinstance(refused, NotYoursError)
    end(table)
    assert apply(table, Register(other, 9, caller="10.0.0.2")) == [True]
    assert stored(table) == (other,)


def test_those_that_are_withheld_do_not_count_for_the_limit(table: Kind) -> None:
    put(table, most=1)
    b = dataclasses.replace(A, id="b")
    assert isinstance(put(table, b, most=1), CrowdedError)
    end(table)
    assert put(table, b, most=1) is True
    assert isinstance(put(table, most=1), CrowdedError)
    assert put(table, most=2, home="there") is True
    assert put(table, most=2) is False
    assert isinstance(put(table, dataclasses.replace(A, id="c"), most=2), CrowdedError)


def test_the_row_of_one_that_is_withheld_is_deleted_by_any_pop_unless_it_is_back(
    table: Kind,
) -> None:
    put(table)
    assert apply(table, Remove("a", 10_000), home="there") == [False]
    end(table, at=1000)
    assert apply(table, Remove("a", 999), home="there") == [False]
    put(table, home="two")
    assert apply(table, Remove("a", 1000), home="there") == [False]
    end(table, "two", at=2000)
    assert apply(table, Remove("a", 1000), home="there") == [False]
    assert len(table.rows()) == 1
    assert apply(table, Remove("a", 2000), home="there") == [True]
    assert (table.rows(), withheld(table)) == ([], {})
    table.insert("a")
    assert len(stored(table)) == 1


def test_one_that_leaves_takes_its_leases_with_all_pops_along(table: Kind) -> None:
    put(table, home="one")
    put(table, home="two")
    assert apply(table, Deregister("a"), Register(A, 9), home="three") == [True, True]
    assert [known(table, home) for home in ("one", "two", "three")] == [set(), set(), {"a"}]
    assert apply(table, Deregister("a"), home="one") == [True]
    assert table.rows() == []
    assert put(table, home="two") is True
    assert (known(table, "one"), known(table, "three")) == (set(), set())


def test_one_that_is_withheld_has_left(table: Kind) -> None:
    put(table)
    end(table)
    assert apply(table, Deregister("a")) == [False]


def test_a_node_that_an_operator_adds_replaces_one_that_is_withheld(table: Kind) -> None:
    put(table, home="one")
    put(table, home="two")
    node = parse_node({**ROW, "id": "a"})
    nodes = table.nodes()
    end(table, "one")
    with pytest.raises(StoreError, match="exists already"):
        nodes.add(node)
    end(table, "two")
    (before,) = nodes.read()
    assert (before.values["wg_ip"], before.fault) == (A.wg_ip, LEASE_ENDED)
    assert nodes.get("a").fault == LEASE_ENDED
    assert nodes.add(node).fault is None
    assert stored(table) == (node,)
    assert nodes.read()[0].fault is None
    assert withheld(table) == {}
    assert isinstance(put(table), OperatorsRowError)


def test_an_operator_edits_one_that_is_withheld_and_it_stays_so(table: Kind) -> None:
    put(table)
    end(table)
    assert table.nodes().disable("a").fault == LEASE_ENDED
    assert stored(table) == ()
    put(table)
    assert stored(table) == (dataclasses.replace(A, healthy=False),)
    end(table)
    table.nodes().delete("a")
    assert withheld(table) == {}


def test_where_the_tables_are_made_anew_nothing_is_withheld(table: Kind) -> None:
    put(table)
    end(table)
    store = table.store()
    assert store.read().backends == ()
    table.execute(
        "CREATE TABLE restored AS SELECT * FROM backends; DROP TABLE backends; "
        "ALTER TABLE restored RENAME TO backends;"
    )
    assert store.changed()
    assert store.read().backends == (A,)
    assert withheld(table) == {}
    assert table.nodes().read()[0].fault is None
    assert isinstance(put(table), OperatorsRowError)


def make_old(table: Kind, *homes: str) -> None:
    """Make the side table as earlier versions had it: one home for each backend."""
    country = "" if table.has_country else ", country TEXT"
    table.execute(
        f"DROP TABLE edgeproxy_leases; CREATE TABLE edgeproxy_leases "
        f"(id TEXT PRIMARY KEY, home TEXT NOT NULL{country});"
    )
    for number, home in enumerate(homes):
        table.execute(f"INSERT INTO edgeproxy_leases (id, home) VALUES ('{number}', '{home}');")


def test_the_side_table_of_an_earlier_version_is_read_and_changed_by_the_first_write(
    table: Kind,
) -> None:
    zero, one = (dataclasses.replace(A, id=each) for each in "01")
    apply(table, Register(zero, 9), Register(one, 9))
    make_old(table, "here", "there")
    assert stored(table) == (zero, one)
    assert (known(table), known(table, "there"), withheld(table)) == ({"0"}, {"1"}, {})
    assert [node.fault for node in table.nodes().read()] == [None, None]
    assert apply(table, End("1", 1000), Register(one, 9)) == [False, False]
    assert (known(table), known(table, "there")) == ({"0", "1"}, {"1"})
    assert apply(table, End("0", 1000)) == [True]
    assert stored(table) == (one,)
    table.execute("DELETE FROM backends")
    assert (known(table), known(table, "there")) == (set(), set())


@pytest.mark.parametrize(
    "columns",
    [
        "id TEXT PRIMARY KEY, home TEXT NOT NULL, country TEXT, ended_at BIGINT",
        "id TEXT NOT NULL, home TEXT NOT NULL, country TEXT, PRIMARY KEY (id, home)",
        "id TEXT, home TEXT, country TEXT",
    ],
)
def test_a_side_table_that_is_changed_half_is_changed_whole(table: Kind, columns: str) -> None:
    put(table)
    table.execute(
        f"DROP TABLE edgeproxy_leases; CREATE TABLE edgeproxy_leases ({columns});"
        "INSERT INTO edgeproxy_leases (id, home) VALUES ('a', 'here');"
    )
    assert put(table, home="there") is False
    assert end(table) is False
    assert end(table, "there") is True
    assert withheld(table) == {"a": 1000}


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
