"""The side table of leases in a file: which country counts, and what an old table becomes.

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
from edgeproxy.core.backends.registration import End, Register
from edgeproxy.store.sqlite.leases import adopt, end_all_of
from edgeproxy.store.sqlite.registrations import Registrations
from edgeproxy.store.sqlite.store import SqliteStore
from tests.store.editing import DOCUMENTED_TABLE, execute

A = Backend("a", "myapp", "eu", "10.0.0.1", 80, weight=2, hard_limit=150)
OLD_TABLE = """
    CREATE TABLE edgeproxy_leases (id TEXT PRIMARY KEY, home TEXT NOT NULL, country TEXT);
    CREATE TRIGGER edgeproxy_leases_end AFTER DELETE ON backends
        BEGIN DELETE FROM edgeproxy_leases WHERE id = OLD.id; END;
    INSERT INTO backends VALUES ('a', 'myapp', 'eu', '10.0.0.1', 80, 1, 2, 100, 150, 0);
    INSERT INTO edgeproxy_leases VALUES ('a', 'one', 'AR');"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    execute(tmp_path / "routing.db", DOCUMENTED_TABLE)
    return tmp_path / "routing.db"


def put(path: Path, country: str | None, home: str) -> None:
    backend = dataclasses.replace(A, country=country)
    Registrations(path, 0.1, home).apply([Register(backend, 10)])


def end(path: Path, home: str) -> None:
    Registrations(path, 0.1, home).apply([End("a", 1000)])


def countries(path: Path) -> list[str | None]:
    with closing(SqliteStore(path)) as store:
        return [each.country for each in store.read().backends]


def rows(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def test_the_country_is_that_of_a_live_lease_the_same_for_every_pop(path: Path) -> None:
    put(path, None, "one")
    put(path, "BR", "three")
    put(path, "AR", "two")
    assert countries(path) == ["BR"]
    end(path, "three")
    assert countries(path) == ["AR"]
    end(path, "two")
    assert countries(path) == [None]
    put(path, "US", "one")
    assert countries(path) == ["US"]


def test_each_home_keeps_the_country_that_was_named_there(path: Path) -> None:
    put(path, "AR", "one")
    put(path, "BR", "two")
    before = rows(path, "SELECT * FROM edgeproxy_leases")
    put(path, "AR", "one")
    assert rows(path, "SELECT * FROM edgeproxy_leases") == before
    assert before == [("a", "one", "AR", None), ("a", "two", "BR", None)]


def test_in_a_column_for_the_country_the_last_one_counts(path: Path) -> None:
    execute(path, "ALTER TABLE backends ADD COLUMN country TEXT")
    put(path, "AR", "one")
    put(path, "BR", "two")
    assert countries(path) == ["BR"]
    put(path, "AR", "one")
    assert countries(path) == ["AR"]


def test_an_old_table_keeps_its_leases_with_their_countries(path: Path) -> None:
    execute(path, OLD_TABLE)
    assert countries(path) == ["AR"]
    put(path, "BR", "two")
    leases = [("a", "one", "AR", None), ("a", "two", "BR", None)]
    assert rows(path, "SELECT * FROM edgeproxy_leases ORDER BY home") == leases
    key = "SELECT name FROM pragma_table_info('edgeproxy_leases') WHERE pk > 0 ORDER BY pk"
    assert rows(path, key) == [("id",), ("home",)]
    execute(path, "DELETE FROM backends")
    assert rows(path, "SELECT * FROM edgeproxy_leases") == []


def test_an_old_table_is_not_changed_by_who_only_reads(path: Path) -> None:
    execute(path, OLD_TABLE)
    before = path.read_bytes()
    assert Registrations(path, 0.1, "one").ownership().here == {"a"}
    assert countries(path) == ["AR"]
    assert path.read_bytes() == before


def test_an_end_of_another_type_harms_nobody(path: Path) -> None:
    put(path, None, "one")
    end(path, "one")
    execute(path, "UPDATE edgeproxy_leases SET ended_at = 'long ago'")
    assert countries(path) == []
    assert Registrations(path, 0.1, "one").ownership().withheld == {"a": 0}


def test_the_leases_of_a_pop_that_is_forgotten_end(path: Path) -> None:
    for home in ("lost", "here"):
        Registrations(path, 0.1, home).apply([Register(A, 10)])
    only_there = dataclasses.replace(A, id="b")
    Registrations(path, 0.1, "lost").apply([Register(only_there, 10)])
    with closing(sqlite3.connect(path)) as connection:
        assert end_all_of(connection, "lost", 5) == 2
        assert end_all_of(connection, "lost", 6) == 0
        connection.commit()
    with closing(SqliteStore(path)) as store:
        assert [each.id for each in store.read().backends] == ["a"]


def test_the_leases_of_a_pop_without_a_name_are_taken_over(path: Path) -> None:
    Registrations(path, 0.1).apply([Register(A, 10)])
    with closing(sqlite3.connect(path)) as connection:
        adopt(connection, "sa")
        connection.commit()
    assert Registrations(path, 0.1, "sa").ownership().here == {"a"}
    assert Registrations(path, 0.1).ownership().here == set()
