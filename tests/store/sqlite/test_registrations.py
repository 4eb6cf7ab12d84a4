"""Registered backends in a file: the country has a place, nothing is written in vain.

What files and servers have in common is in the conformance suite.
"""

from __future__ import annotations

import dataclasses
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.registration import Outcome, Register
from edgeproxy.errors import StoreError
from edgeproxy.store.sqlite.registrations import Registrations
from edgeproxy.store.sqlite.store import SqliteStore
from tests.store.editing import DOCUMENTED_TABLE, execute

A = Backend("a", "myapp", "eu", "10.0.0.1", 80, weight=2, hard_limit=150)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    execute(tmp_path / "routing.db", DOCUMENTED_TABLE)
    return tmp_path / "routing.db"


def put(path: Path, backend: Backend = A) -> Outcome:
    (outcome,) = Registrations(path, 0.1).apply([Register(backend, 10)])
    return outcome


def rows(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def known(path: Path) -> frozenset[str]:
    return Registrations(path, 0.1).ownership().here


def stored(path: Path) -> tuple[Backend, ...]:
    store = SqliteStore(path)
    with closing(store):
        return store.read().backends


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
