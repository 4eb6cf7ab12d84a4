"""The routing database of a storm: how it begins, and transactions on it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from bench.storm.backend import Backend


@contextmanager
def transaction(database: Path) -> Iterator[sqlite3.Connection]:
    """Yield a connection whose edits are in force at the end."""
    with closing(sqlite3.connect(database)) as connection, connection:
        yield connection


def make(database: Path, backends: Sequence[Backend]) -> None:
    """Write a database with these backends, which have their ports."""
    with transaction(database) as connection:
        connection.execute(
            "CREATE TABLE backends (id TEXT PRIMARY KEY, app TEXT, region TEXT, wg_ip TEXT, "
            "port INTEGER, healthy INTEGER, weight INTEGER, soft_limit INTEGER, "
            "hard_limit INTEGER, deleted INTEGER DEFAULT 0)"
        )
        restore(connection, backends)


def restore(connection: sqlite3.Connection, backends: Sequence[Backend]) -> None:
    """Let the rows be as they were at the beginning: nobody is ever too full."""
    connection.executemany(
        "INSERT OR REPLACE INTO backends VALUES (?, 'myapp', 'sa', ?, ?, 1, 2, 50, 0, 0)",
        [(each.id, *each.address) for each in backends],
    )
