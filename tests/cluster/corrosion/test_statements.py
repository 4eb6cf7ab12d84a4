"""Edits as statements: run here by SQLite itself."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import pytest

from edgeproxy.cluster.corrosion.configuration import schema_text
from edgeproxy.cluster.corrosion.statements import FENCED, TOKENS, commit_statements
from edgeproxy.core.cluster.rows import BACKENDS, LEASES, ROUTES, TABLES, Edit, Key, Values, id_of

BACKEND: Values = {
    "app": "myapp",
    "region": "sa",
    "country": None,
    "wg_ip": "10.50.1.1",
    "port": 8080,
    "healthy": 1,
    "deleted": 0,
    "weight": 1.5,
    "soft_limit": 50,
    "hard_limit": 100,
}
A = Key(BACKENDS, "a")


@pytest.fixture
def database() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(schema_text())
    return connection


def commit(
    database: sqlite3.Connection, edits: Sequence[Edit], token: str, after: str = ""
) -> None:
    """Do what Corrosion does: all statements, or none."""
    database.execute("BEGIN")
    try:
        for text, parameters in commit_statements(edits, token, after):
            database.execute(text, parameters)
    except BaseException:
        database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")


def row(database: sqlite3.Connection, key: Key = A) -> Values | None:
    table = TABLES[key.table]
    query = f"SELECT {', '.join((*table.keys, *table.columns))} FROM {key.table}"
    for found in database.execute(query):
        keys, values = found[: len(table.keys)], found[len(table.keys) :]
        if id_of(keys) == key.id:
            return dict(zip(table.columns, values, strict=True))
    return None


def test_a_new_row_is_inserted_as_it_is(database: sqlite3.Connection) -> None:
    commit(database, [Edit(A, BACKEND)], "t")
    assert row(database) == BACKEND


def test_only_the_columns_of_an_edit_change(database: sqlite3.Connection) -> None:
    commit(database, [Edit(A, BACKEND)], "t1")
    commit(database, [Edit(A, {"weight": 3})], "t2", "t1")
    assert row(database) == {**BACKEND, "weight": 3}


def test_a_new_row_that_another_pop_has_made_too_is_overwritten(
    database: sqlite3.Connection,
) -> None:
    commit(database, [Edit(A, BACKEND)], "t1")
    commit(database, [Edit(A, {**BACKEND, "port": 1})], "t2", "t1")
    assert row(database) == {**BACKEND, "port": 1}


def test_an_edit_of_some_columns_revives_no_row(database: sqlite3.Connection) -> None:
    commit(database, [Edit(A, {"weight": 3})], "t")
    assert row(database) is None


def test_a_row_with_a_key_of_two_columns_is_deleted(database: sqlite3.Connection) -> None:
    keys = [Key(LEASES, id_of((backend, "sa"))) for backend in "ab"]
    edits = [Edit(key, {"country": "BR", "ended_at": None}) for key in keys]
    commit(database, [*edits, Edit(Key(ROUTES, "*"), {"app": "x"})], "t1")
    commit(database, [Edit(keys[0], None)], "t2", "t1")
    assert [row(database, key) is None for key in keys] == [True, False]


def test_a_commit_after_another_token_is_refused_whole(database: sqlite3.Connection) -> None:
    commit(database, [], "fence")
    with pytest.raises(sqlite3.IntegrityError, match=FENCED):
        commit(database, [Edit(A, BACKEND)], "late", after="")
    assert row(database) is None
    assert database.execute(f"SELECT token FROM {TOKENS}").fetchone() == ("fence",)
