"""Registered backends are rows like any other, and it is known which ones they are."""

from __future__ import annotations

import dataclasses
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.core.model import Backend
from edgeproxy.errors import StoreError
from edgeproxy.store.registrations import (
    CrowdedError,
    Leave,
    Outcome,
    Put,
    RefusedError,
    Registrations,
)
from edgeproxy.store.sqlite import SqliteStore
from tests.store.editing import DOCUMENTED_TABLE, execute

A = Backend("a", "myapp", "eu", "10.0.0.1", 80, weight=2, hard_limit=150)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    execute(tmp_path / "routing.db", DOCUMENTED_TABLE)
    return tmp_path / "routing.db"


def apply(path: Path, *edits: Put | Leave) -> list[Outcome]:
    return Registrations(path, 0.1).apply(edits)


def put(path: Path, backend: Backend = A, most: int = 10) -> Outcome:
    (outcome,) = apply(path, Put(backend, most))
    return outcome


def rows(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def known(path: Path) -> set[str]:
    return Registrations(path, 0.1).known()


def stored(path: Path) -> tuple[Backend, ...]:
    store = SqliteStore(path)
    with closing(store):
        return store.read().backends


def test_a_registered_backend_is_a_row(path: Path) -> None:
    assert known(path) == set()
    assert put(path) is True
    assert stored(path) == (A,)
    assert known(path) == {"a"}
    changed = dataclasses.replace(A, port=81, weight=5)
    assert put(path, changed) is False
    assert stored(path) == (changed,)
    assert apply(path, Leave("a"), Leave("a")) == [True, False]
    assert (stored(path), known(path)) == ((), set())


def test_the_documented_table_stays_as_it_is(path: Path) -> None:
    before = rows(path, "SELECT * FROM pragma_table_info('backends')")
    put(path, dataclasses.replace(A, country="AR"))
    assert rows(path, "SELECT * FROM pragma_table_info('backends')") == before
    execute(path, "INSERT INTO backends VALUES ('b','myapp','sa','10.0.0.2',80,1,1,100,200,0)")
    assert [(each.id, each.country) for each in stored(path)] == [("a", "AR"), ("b", None)]


def test_a_column_for_the_country_is_used_where_there_is_one(path: Path) -> None:
    execute(path, "ALTER TABLE backends ADD COLUMN country TEXT")
    put(path, dataclasses.replace(A, country="AR"))
    assert rows(path, "SELECT country FROM backends") == [("AR",)]
    put(path)
    assert stored(path) == (A,)


def test_what_is_the_same_again_writes_nothing(path: Path) -> None:
    put(path, dataclasses.replace(A, country="AR"))
    with closing(sqlite3.connect(path)) as connection:
        before = connection.execute("PRAGMA data_version").fetchone()
        put(path, dataclasses.replace(A, country="AR"))
        assert connection.execute("PRAGMA data_version").fetchone() == before
        put(path, dataclasses.replace(A, country="BR"))
        assert connection.execute("PRAGMA data_version").fetchone() != before


def test_a_row_that_is_deleted_by_any_tool_is_registered_no_more(path: Path) -> None:
    put(path)
    execute(path, "DELETE FROM backends")
    execute(path, "INSERT INTO backends VALUES ('a','myapp','sa','10.0.0.2',80,1,1,100,200,0)")
    assert known(path) == set()
    assert apply(path, Leave("a")) == [False]
    assert len(stored(path)) == 1


def test_what_operators_say_stays(path: Path) -> None:
    put(path)
    execute(path, "UPDATE backends SET healthy = 0, deleted = 1")
    put(path, dataclasses.replace(A, weight=9))
    assert stored(path) == (dataclasses.replace(A, weight=9, healthy=False, deleted=True),)


def test_a_node_of_an_operator_that_was_removed_is_new_again(path: Path) -> None:
    execute(path, "INSERT INTO backends VALUES ('a','x','sa','10.0.0.2',80,0,1,100,200,1)")
    assert put(path) is True
    assert stored(path) == (dataclasses.replace(A, healthy=False),)
    assert known(path) == {"a"}


def test_one_that_is_refused_leaves_the_others_alone(path: Path) -> None:
    execute(path, "CREATE UNIQUE INDEX one_port ON backends (port)")
    more = [dataclasses.replace(A, id=each, port=port) for each, port in (("b", 80), ("c", 82))]
    first, second, third = apply(path, *(Put(each, 10) for each in (A, *more)))
    assert (first, third) == (True, True)
    assert isinstance(second, RefusedError)
    assert known(path) == {"a", "c"}


def test_no_more_than_allowed_are_registered(path: Path) -> None:
    others = [dataclasses.replace(A, id=each) for each in "bcd"]
    outcomes = apply(path, *(Put(each, 2) for each in (A, *others)), Leave("a"), Put(others[2], 2))
    assert outcomes[:2] == [True, True]
    assert isinstance(outcomes[2], CrowdedError)
    assert isinstance(outcomes[3], CrowdedError)
    assert outcomes[4:] == [True, True]
    assert put(path, dataclasses.replace(others[0], weight=3), most=2) is False
    assert known(path) == {"b", "d"}


def test_a_locked_or_missing_database_is_an_error_and_nothing_is_done(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"):
            put(path)
    assert known(path) == set()
    path.unlink()
    with pytest.raises(StoreError, match="does not exist"):
        put(path)
    assert not path.exists()
