"""Registered backends in an SQLite file: their rows, and the side table that names them.

A registered backend is an ordinary row of `backends`. Its id is also in the side table
`edgeproxy_leases`, together with its home, the POP that hears its heartbeats. So a proxy knows
after a restart which backends must send heartbeats. A registration or a deregistration writes the
side table; a heartbeat does not.

A trigger deletes an id from the side table when any tool deletes the row: a node that an operator
adds later has no lease. If the trigger is missing, the tables were created again, so the side table
is emptied and all rows count as an operator's.

The side table keeps the country, because the documented table has no column for it. If the table
has that column, the country is written there too.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from edgeproxy.core.backends.registration import Edit, Outcome, Row, apply_changes, id_of
from edgeproxy.core.backends.rows import COLUMNS, COUNTRY
from edgeproxy.errors import StoreError
from edgeproxy.store.edits import RefusedError, check_gone, check_usable
from edgeproxy.store.snapshot import LEASES
from edgeproxy.store.sqlite.database import (
    READ_WAIT_SECS,
    connect,
    naming_faults,
    read_columns,
    transaction,
)
from edgeproxy.store.sqlite.nodes import DELETE, SAME_ID, insert, refusals, update

_SIDE_TABLE = (
    f"CREATE TABLE IF NOT EXISTS {LEASES} (id TEXT PRIMARY KEY, home TEXT NOT NULL, country TEXT)",
    f"""CREATE TRIGGER IF NOT EXISTS {LEASES}_end AFTER DELETE ON backends
        BEGIN DELETE FROM {LEASES} WHERE id = OLD.id; END""",  # noqa: S608
    f"DELETE FROM {LEASES}",  # noqa: S608
)
_KNOWN = f"SELECT id FROM {LEASES} WHERE home = ? AND id IN (SELECT id FROM backends)"  # noqa: S608
_FIND = f"""SELECT {", ".join(f"b.{name}" for name in COLUMNS)}, l.country, l.home
    FROM backends b LEFT JOIN {LEASES} l ON l.id = b.id WHERE {SAME_ID.format("b.id")}"""  # noqa: S608
_LEASE = f"""INSERT INTO {LEASES} (id, home, country) VALUES (:id, :home, :country)
    ON CONFLICT (id) DO UPDATE SET home = excluded.home, country = excluded.country"""  # noqa: S608
_COUNT = f"SELECT count(*) FROM {LEASES}"  # noqa: S608


class Registrations:
    """The registered backends of one routing database in a file. For one thread at a time.

    `home` is the name of this POP, for a file that several POPs write.
    """

    def __init__(self, path: Path, wait_secs: float, home: str = "") -> None:
        self._path = path
        self._wait_secs = wait_secs
        self._home = home

    def known(self) -> set[str]:
        """Return the ids of the backends whose home is this POP. Raises StoreError."""
        with naming_faults(self._path), closing(connect(self._path, READ_WAIT_SECS)) as connection:
            if not _has_side_table(connection):
                return set()
            return {str(row[0]) for row in connection.execute(_KNOWN, (self._home,))}

    def apply(self, edits: Sequence[Edit]) -> list[Outcome]:
        """Apply all edits in order, in one transaction; return the outcome of each.

        A refused edit does not affect the others. Raises StoreError if nothing was done.
        """
        try:
            return self._apply(edits)
        except RefusedError as refused:  # of the side table
            return [refused] * len(edits)

    def _apply(self, edits: Sequence[Edit]) -> list[Outcome]:
        with transaction(self._path, self._wait_secs) as connection:
            has_country = COUNTRY in read_columns(connection, self._path)
            for statement in _SIDE_TABLE if not _has_side_table(connection) else ():
                _make(connection, statement)
            (count,) = connection.execute(_COUNT).fetchone()
            rows = dict(_rows_of(connection, {id_of(edit) for edit in edits}))
            outcomes, changes = apply_changes(edits, rows, self._home, count)
            refused: dict[str, StoreError] = {}
            for backend_id, row in changes.items():
                connection.execute("SAVEPOINT edit")
                try:
                    _write(connection, backend_id, row, backend_id in rows, has_country)
                except RefusedError as error:
                    connection.execute("ROLLBACK TO edit")
                    refused[backend_id] = error
                connection.execute("RELEASE edit")
            return [
                refused.get(id_of(edit), outcome)
                for edit, outcome in zip(edits, outcomes, strict=True)
            ]


def _rows_of(connection: sqlite3.Connection, backend_ids: set[str]) -> list[tuple[str, Row]]:
    rows = []
    for backend_id in backend_ids:
        try:
            row = connection.execute(_FIND, {"id": backend_id}).fetchone()
        except UnicodeEncodeError:  # so it equals no id
            continue
        if row is not None:
            *values, country, home = row
            columns: Mapping[str, object] = dict(zip(COLUMNS, values, strict=True))
            rows.append((backend_id, Row({**columns, COUNTRY: country or ""}, home)))
    return rows


def _write(
    connection: sqlite3.Connection,
    backend_id: str,
    row: Row | None,
    exists: bool,
    has_country: bool,
) -> None:
    if row is None:
        with refusals(connection, backend_id):
            connection.execute(DELETE, {"id": backend_id})
        check_gone(dict(_rows_of(connection, {backend_id})).get(backend_id))
        return
    values = {**row.values, "home": row.home, COUNTRY: row.values[COUNTRY] or None}
    names = (*COLUMNS, COUNTRY) if has_country else COLUMNS
    with refusals(connection, backend_id):
        connection.execute(update(names[1:]) if exists else insert(names), values)
    stored = dict(_rows_of(connection, {backend_id})).get(backend_id)
    check_usable(None if stored is None else stored.values)
    connection.execute(_LEASE, values)


def _make(connection: sqlite3.Connection, statement: str) -> None:
    """Make a part of the side table. Raises RefusedError if `backends` allows no trigger."""
    try:
        connection.execute(statement)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
            raise
        raise RefusedError(f"a backend registers only in a plain table: {error}") from None


def _has_side_table(connection: sqlite3.Connection) -> bool:
    names = (LEASES, f"{LEASES}_end")
    count = connection.execute("SELECT count(*) FROM sqlite_master WHERE name IN (?, ?)", names)
    return bool(count.fetchone() == (2,))
