"""Deletions on purpose are marked where somebody looks for the marks."""

from __future__ import annotations

import sqlite3

import pytest

from edgeproxy.store.sqlite.deletions import DELETIONS, mark_deletion


@pytest.fixture
def connection() -> sqlite3.Connection:
    return sqlite3.connect(":memory:")


def test_a_deletion_is_marked_once(connection: sqlite3.Connection) -> None:
    connection.execute(f"CREATE TABLE {DELETIONS} (name, id, PRIMARY KEY (name, id))")
    for _ in range(2):
        mark_deletion(connection, "backends", "a")
    assert connection.execute(f"SELECT * FROM {DELETIONS}").fetchall() == [("backends", "a")]


def test_without_replication_there_is_no_table_of_marks(connection: sqlite3.Connection) -> None:
    mark_deletion(connection, "backends", "a")
    assert connection.execute("SELECT * FROM sqlite_master").fetchall() == []
