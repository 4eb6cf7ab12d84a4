"""The rows that all POPs must have: what is in a file, and what edits should lead to.

What edits should lead to is found by making them, one after the other, in a database in memory that
nothing replicates.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.cluster.rows import BACKENDS, TABLES
from edgeproxy.store.sqlite.database import SCHEMA

Rows = Mapping[str, list[tuple[Any, ...]]]
"""The rows of each table, in the order of their keys."""


class InForce(NamedTuple):
    """What of a backend a proxy tells."""

    id: str
    healthy: bool
    weight: int
    soft_limit: int


def insertion(backends: Iterable[Backend]) -> str:
    """Return the statement that adds these backends."""
    rows = [
        f"       ('{each.id}', '{each.app}', '{each.region}', '{each.wg_ip}', {each.port},"
        f" {each.healthy:d}, {each.weight}, {each.soft_limit}, {each.hard_limit}, 0)"
        for each in backends
    ]
    return f"INSERT INTO {BACKENDS} VALUES\n" + ",\n".join(rows)


def setting(column: str, value: int, backend_id: str) -> str:
    """Return the statement that sets a column of a backend."""
    return f"UPDATE {BACKENDS} SET {column} = {value} WHERE id = '{backend_id}'"  # noqa: S608


def deletion(backend_id: str) -> str:
    """Return the statement that deletes a backend."""
    return f"DELETE FROM {BACKENDS} WHERE id = '{backend_id}'"  # noqa: S608


def rows_of(path: Path) -> Rows:
    """Return the rows of a routing database. Raises sqlite3.Error."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        return _rows(connection)


def rows_after(edits: Iterable[str]) -> Rows:
    """Return the rows of an empty database after these statements."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(SCHEMA)
        for edit in edits:
            connection.executescript(edit)
        return _rows(connection)


def in_force_with(rows: Rows) -> set[InForce]:
    """Return what a proxy with these rows tells of its backends."""
    backends = (Backend(*row) for row in rows[BACKENDS])
    return {InForce(each.id, bool(each.healthy), each.weight, each.soft_limit) for each in backends}


def _rows(connection: sqlite3.Connection) -> Rows:
    made = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    return {
        name: sorted(connection.execute(f"SELECT * FROM {name}")) if name in made else []  # noqa: S608
        for name in TABLES
    }
