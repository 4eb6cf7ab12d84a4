"""Marks of rows that a command or a caller of the API has deleted on purpose.

The bridge between POPs takes many rows that vanish at once for an accident, and restores them. It
makes the table of marks; without replication there is none.
"""

from __future__ import annotations

import sqlite3

DELETIONS = "edgeproxy_deletions"


def mark_deletion(connection: sqlite3.Connection, table: str, row_id: str) -> None:
    """Note that this row is deleted on purpose, in the transaction that deletes it."""
    tables = connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (DELETIONS,))
    if tables.fetchone() is not None:
        statement = f"INSERT OR IGNORE INTO {DELETIONS} (name, id) VALUES (?, ?)"  # noqa: S608
        connection.execute(statement, (table, row_id))
