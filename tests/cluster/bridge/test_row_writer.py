"""Rows are set as far as their tables take them, many at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from edgeproxy.cluster.bridge.row_writer import RowWriter
from edgeproxy.core.cluster.rows import ROUTES, Key, Values

TABLES = {ROUTES: ["pattern", "app"]}


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("ATTACH ':memory:' AS r")
        yield connection


def make(connection: sqlite3.Connection, app: str = "app TEXT", key: str = "PRIMARY KEY") -> None:
    connection.execute(f"CREATE TABLE r.{ROUTES} (pattern TEXT {key}, {app})")


def key(name: str) -> Key:
    return Key(ROUTES, name)


def routes(**apps: str | None) -> dict[Key, Values | None]:
    return {key(name): None if app is None else {"app": app} for name, app in apps.items()}


def in_table(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    return connection.execute(f"SELECT * FROM r.{ROUTES} ORDER BY rowid").fetchall()


def test_rows_are_made_changed_and_removed(connection: sqlite3.Connection) -> None:
    make(connection)
    rows = RowWriter(connection)
    assert rows.write(routes(a="x", b="x"), TABLES) == routes(a="x", b="x")
    assert rows.write(routes(a="y", b=None, c="z"), TABLES) == routes(a="y", b=None, c="z")
    assert in_table(connection) == [("a", "y"), ("c", "z")]


def test_a_refused_row_holds_up_no_other(connection: sqlite3.Connection) -> None:
    make(connection, "app TEXT CHECK (app <> 'no')")
    rows = RowWriter(connection)
    written = rows.write(routes(a="x", b="no", c="z"), TABLES)
    assert written == routes(a="x", b=None, c="z")
    assert in_table(connection) == [("a", "x"), ("c", "z")]
    assert rows.refused == {key("b"): "CHECK constraint failed: app <> 'no'"}
    rows.write(routes(a="x", b="yes"), TABLES)
    assert not rows.refused
    assert in_table(connection) == [("a", "x"), ("c", "z"), ("b", "yes")]


def test_a_refused_change_leaves_the_row_as_it_was(connection: sqlite3.Connection) -> None:
    make(connection, "app TEXT CHECK (app <> 'no')")
    rows = RowWriter(connection)
    rows.write(routes(a="x"), TABLES)
    assert rows.write(routes(a="no"), TABLES) == routes(a="x")


def test_what_a_table_makes_of_a_row_is_returned(connection: sqlite3.Connection) -> None:
    make(connection, "app TEXT COLLATE NOCASE")
    connection.execute(
        f"CREATE TRIGGER r.low AFTER INSERT ON {ROUTES} BEGIN "
        f"UPDATE {ROUTES} SET app = lower(app) WHERE rowid = new.rowid; END"
    )
    assert RowWriter(connection).write(routes(a="X", b="Y"), TABLES) == routes(a="x", b="y")


def test_a_table_without_a_key_gets_no_row_twice(connection: sqlite3.Connection) -> None:
    make(connection, key="")
    rows = RowWriter(connection)
    rows.write(routes(a="x", b="x"), TABLES)
    rows.write(routes(a="y", b="x"), TABLES)
    assert in_table(connection) == [("a", "y"), ("b", "x")]


def test_any_other_fault_is_raised(connection: sqlite3.Connection) -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        RowWriter(connection).write(routes(a="x"), TABLES)
