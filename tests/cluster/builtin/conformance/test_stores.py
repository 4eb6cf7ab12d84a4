"""What every store of a node's state does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgeproxy.cluster.builtin.state_file import StateFile
from edgeproxy.core.cluster.cells import ALIVE, DIGESTS, GONE, LIFE, Cell, RowCells, digest_of
from edgeproxy.core.cluster.rows import ROUTES, Key, Value
from edgeproxy.core.cluster.store import Facts, MemoryStore, Store
from edgeproxy.core.cluster.vectors import Head
from tests.core.cluster.samples import BACKEND, ORIGINS, ROUTE

KINDS: dict[str, Callable[[Path], Store]] = {"file": StateFile, "memory": lambda _: MemoryStore()}
ONE, OTHER = ORIGINS[:2]


@pytest.fixture(params=sorted(KINDS))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    kind: str = request.param
    return KINDS[kind](tmp_path / "state.db")


def row_of(
    key: Key, app: Value, stamp: int = 1, origin: bytes = ONE, seq: int = 1
) -> dict[str, Cell]:
    return {
        LIFE: Cell(key, LIFE, stamp, origin, seq, ALIVE),
        "app": Cell(key, "app", stamp, origin, seq, (app,)),
    }


def gone(key: Key, stamp: int = 2, seq: int = 2) -> RowCells:
    return {LIFE: Cell(key, LIFE, stamp, ONE, seq, GONE)}


def named(name: str) -> Key:
    return Key(ROUTES, name)


def put(store: Store, key: Key, row: RowCells) -> None:
    with store.transaction():
        store.set_row(key, store.row(key), row)


def test_a_new_store_knows_nothing(store: Store) -> None:
    assert store.facts() == Facts()
    assert dict(store.vector()) == {}
    assert dict(store.generation()) == {}
    assert store.digest() == store.position() == 0
    for nothing in (store.beyond({}), store.tombstones(), store.changed_after(0)):
        assert list(nothing) == []
    assert list(store.staged()) == []
    assert list(store.unstaged()) == []


def test_facts_and_vectors_are_kept(store: Store) -> None:
    facts = Facts(ONE, (OTHER,), Head(1, b"a" * 8), (1 << 63) - 1, "token", True)
    with store.transaction():
        store.set_facts(facts)
        store.set_vector({ONE: Head(1, b"a" * 8), OTHER: Head(2, b"b" * 8)})
        store.set_heads({ONE: Head(3, b"c" * 8)})
        store.set_generation({ONE: 1})
    assert store.facts() == facts
    assert store.vector() == {ONE: Head(3, b"c" * 8), OTHER: Head(2, b"b" * 8)}
    assert store.generation() == {ONE: 1}
    with store.transaction():
        store.set_vector({OTHER: Head(5, b"d" * 8)})
        store.set_generation({})
    assert store.vector() == {OTHER: Head(5, b"d" * 8)}
    assert store.generation() == {}


def test_a_vector_that_was_returned_does_not_change(store: Store) -> None:
    before = store.vector()
    with store.transaction():
        store.set_heads({ONE: Head(1, b"a" * 8)})
    assert before == {}


def fail_at_the_end(store: Store) -> None:
    with store.transaction():
        store.set_facts(Facts(OTHER))
        store.set_heads({ONE: Head(1, b"a" * 8)})
        store.set_generation({ONE: 1})
        store.set_row(ROUTE, store.row(ROUTE), {})
        store.set_row(named("new"), {}, row_of(named("new"), "y"))
        store.clear_stage()
        raise ZeroDivisionError


def test_a_transaction_that_fails_changes_nothing(store: Store) -> None:
    put(store, ROUTE, row_of(ROUTE, "x"))
    with store.transaction():
        store.set_facts(Facts(ONE, token="before"))
        store.stage([*row_of(named("s"), "s").values()])
    before = (store.facts(), store.digest(), store.position(), store.row(ROUTE))
    with pytest.raises(ZeroDivisionError):
        fail_at_the_end(store)
    assert (store.facts(), store.digest(), store.position(), store.row(ROUTE)) == before
    assert store.row(named("new")) == {}
    assert store.vector() == {}
    assert store.generation() == {}
    assert [changed.key for changed in store.changed_after(0)] == [ROUTE]
    assert len(list(store.staged())) == 1


def test_a_transaction_sees_its_own_changes(store: Store) -> None:
    with store.transaction():
        store.set_row(ROUTE, {}, row_of(ROUTE, "x"))
        store.set_heads({ONE: Head(1, b"a" * 8)})
        assert store.row(ROUTE) == row_of(ROUTE, "x")
        assert store.vector() == {ONE: Head(1, b"a" * 8)}
        assert store.position() == 1


@pytest.mark.parametrize(
    "value",
    [None, 0, -1, (1 << 63) - 1, -(1 << 63), 0.5, 1.0, -0.0, 1e300, "", "é\u2028\0", "x" * 65536],
)
def test_values_come_back_with_their_type(store: Store, value: Value) -> None:
    put(store, ROUTE, row_of(ROUTE, value))
    found = store.row(ROUTE)["app"].values
    assert ascii(found) == ascii((value,))


def test_cells_of_unknown_groups_and_tables_are_kept(store: Store) -> None:
    key = Key("later", "a")
    row = {"new": Cell(key, "new", 1, ONE, 1, (1, "b", None))}
    put(store, key, row)
    assert store.row(key) == row
    assert list(store.beyond({})) == list(row.values())


def test_the_digest_is_the_sum_over_all_cells(store: Store) -> None:
    rows = {named(str(number)): row_of(named(str(number)), number) for number in range(20)}
    for key, row in rows.items():
        put(store, key, row)
    put(store, named("0"), row_of(named("0"), "else", 2))
    rows[named("0")] = row_of(named("0"), "else", 2)
    put(store, named("1"), {})
    del rows[named("1")]
    every = [cell for row in rows.values() for cell in row.values()]
    assert store.digest() == sum(map(digest_of, every)) % DIGESTS


def test_what_a_vector_does_not_cover_is_found(store: Store) -> None:
    put(store, named("a"), row_of(named("a"), 1, 1, ONE, 1))
    put(store, named("b"), row_of(named("b"), 1, 1, ONE, 2))
    put(store, named("c"), row_of(named("c"), 1, 1, OTHER, 1))
    put(store, BACKEND, {LIFE: Cell(BACKEND, LIFE, 1, ORIGINS[2], 1, ALIVE)})

    def found(vector: dict[bytes, Head]) -> list[str]:
        return sorted({cell.key.id for cell in store.beyond(vector)})

    assert found({}) == ["a", "b", "c", BACKEND.id]
    assert found({ONE: Head(1, b"")}) == ["b", "c", BACKEND.id]
    assert found({ONE: Head(2, b""), OTHER: Head(9, b""), b"unknown": Head(1, b"")}) == [BACKEND.id]


def test_tombstones_are_found(store: Store) -> None:
    put(store, ROUTE, row_of(ROUTE, "x"))
    put(store, named("b"), gone(named("b")))
    assert [cell.key.id for cell in store.tombstones()] == ["b"]
    put(store, named("b"), row_of(named("b"), "x", 3))
    assert list(store.tombstones()) == []


def test_a_row_gets_a_position_when_it_shows_something_else(store: Store) -> None:
    put(store, named("a"), row_of(named("a"), "x"))
    put(store, named("b"), row_of(named("b"), "x"))
    assert [row.position for row in store.changed_after(0)] == [1, 2]
    put(store, named("a"), row_of(named("a"), "x", 2))  # the same again
    assert store.position() == 2
    put(store, named("a"), row_of(named("a"), "y", 3))
    assert [(row.key.id, row.values) for row in store.changed_after(2)] == [("a", {"app": "y"})]
    put(store, named("b"), gone(named("b"), 4))
    assert [(row.key.id, row.values) for row in store.changed_after(3)] == [("b", None)]
    put(store, named("b"), {})
    assert store.position() == 4
    assert [row.key.id for row in store.changed_after(0)] == ["a", "b"]


def test_a_row_first_heard_of_as_gone_has_a_position(store: Store) -> None:
    put(store, ROUTE, gone(ROUTE))
    assert [(row.key, row.values) for row in store.changed_after(0)] == [(ROUTE, None)]
    put(store, ROUTE, gone(ROUTE, 2))
    assert store.position() == 1


def test_rows_without_cells_can_be_forgotten(store: Store) -> None:
    for name in "abc":
        put(store, named(name), row_of(named(name), "x"))
    put(store, named("a"), {})
    put(store, named("b"), gone(named("b")))
    put(store, named("c"), {})
    with store.transaction():
        store.forget_gone(5)
    assert [row.key.id for row in store.changed_after(0)] == ["b", "c"]


def test_what_is_laid_aside_is_merged_by_row_and_not_yet_there(store: Store) -> None:
    old, new = row_of(ROUTE, "old", 1), row_of(ROUTE, "new", 2)
    put(store, named("mine"), row_of(named("mine"), "x"))
    with store.transaction():
        store.stage([new["app"], old["app"]])
        store.stage([old[LIFE]])
        store.stage([new[LIFE], *row_of(named("b"), "b").values()])
    assert store.row(ROUTE) == {}
    assert dict(store.staged()) == {ROUTE: new, named("b"): row_of(named("b"), "b")}
    assert list(store.unstaged()) == [named("mine")]
    with store.transaction():
        store.clear_stage()
    assert list(store.staged()) == []
    assert list(store.unstaged()) == [named("mine")]


def test_rows_may_be_set_while_going_over_what_is_laid_aside(store: Store) -> None:
    count = 2_500
    rows = {named(f"{number:05}"): row_of(named(f"{number:05}"), number) for number in range(count)}
    with store.transaction():
        for number in range(count):
            store.set_row(named(f"old{number}"), {}, row_of(named(f"old{number}"), "x"))
        store.stage(cell for row in rows.values() for cell in row.values())
        for key, row in store.staged():
            store.set_row(key, store.row(key), row)
        for key in store.unstaged():
            store.set_row(key, store.row(key), {})
        store.clear_stage()
    shown = {row.key: row.values for row in store.changed_after(0) if row.values is not None}
    assert shown == {key: {"app": row["app"].values[0]} for key, row in rows.items()}
