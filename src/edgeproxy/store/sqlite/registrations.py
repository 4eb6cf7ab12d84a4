"""Registered backends in an SQLite file: their rows, and the side table of their leases.

A registered backend is an ordinary row of `backends`. The side table `edgeproxy_leases` says with
which POPs it registered (`store/leases`). So a proxy knows after a restart which backends must send
heartbeats. A registration, the end of a lease or a deregistration writes the side table; a
heartbeat does not.

A trigger deletes an id from the side table when any tool deletes the row: a node that an operator
adds later has no lease. If the trigger is missing, the tables were created again, so the side table
is emptied and all rows count as an operator's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from contextlib import closing
from pathlib import Path

from edgeproxy.core.backends.registration import (
    Edit,
    Outcome,
    Ownership,
    Row,
    apply_changes,
    id_of,
)
from edgeproxy.core.backends.rows import COLUMNS, COUNTRY
from edgeproxy.core.cluster.rows import LEASES
from edgeproxy.errors import StoreError
from edgeproxy.store.edits import RefusedError, check_gone, check_usable
from edgeproxy.store.leases import COUNT
from edgeproxy.store.sqlite.database import (
    READ_WAIT_SECS,
    connect,
    naming_faults,
    read_columns,
    transaction,
)
from edgeproxy.store.sqlite.deletions import mark_deletion
from edgeproxy.store.sqlite.leases import make, read_ownership
from edgeproxy.store.sqlite.nodes import DELETE, SAME_ID, insert, refusals, update

_FIND = f"SELECT {{}} FROM backends WHERE {SAME_ID.format('id')}"  # noqa: S608
_LEASES = f"SELECT home, CAST(ended_at AS INTEGER), country FROM {LEASES} WHERE id = :id"  # noqa: S608
_LEASE = f"""INSERT INTO {LEASES} (id, home, country, ended_at)
    VALUES (:id, :home, :country, :ended_at) ON CONFLICT (id, home)
    DO UPDATE SET country = excluded.country, ended_at = excluded.ended_at"""  # noqa: S608


class Registrations:
    """The registered backends of one routing database in a file. For one thread at a time.

    `home` is the name of this POP, for a file that several POPs write.
    """

    def __init__(self, path: Path, wait_secs: float, home: str = "") -> None:
        self._path = path
        self._wait_secs = wait_secs
        self._home = home

    def ownership(self) -> Ownership:
        """Return who hears the backends. Raises StoreError."""
        with naming_faults(self._path), closing(connect(self._path, READ_WAIT_SECS)) as connection:
            return read_ownership(connection, self._path, self._home)

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
            names = (*COLUMNS, COUNTRY) if has_country else COLUMNS
            make(connection)
            (count,) = connection.execute(COUNT).fetchone()
            found = {each: self._row(connection, each, names) for each in set(map(id_of, edits))}
            rows = {backend_id: row for backend_id, row in found.items() if row is not None}
            outcomes, changes = apply_changes(edits, rows, self._home, count)
            refused: dict[str, StoreError] = {}
            for backend_id, row in changes.items():
                connection.execute("SAVEPOINT edit")
                try:
                    self._write(connection, backend_id, row, rows.get(backend_id), names)
                except RefusedError as error:
                    connection.execute("ROLLBACK TO edit")
                    refused[backend_id] = error
                connection.execute("RELEASE edit")
            return [
                refused.get(id_of(edit), outcome)
                for edit, outcome in zip(edits, outcomes, strict=True)
            ]

    def _row(
        self, connection: sqlite3.Connection, backend_id: str, names: Collection[str]
    ) -> Row | None:
        """Return a row as it is stored; its country is the one that it named at this home."""
        try:
            row = connection.execute(_FIND.format(", ".join(names)), {"id": backend_id}).fetchone()
        except UnicodeEncodeError:  # so it equals no id
            return None
        if row is None:
            return None
        leases = connection.execute(_LEASES, {"id": backend_id}).fetchall()
        countries = {home: country for home, _, country in leases}
        values: dict[str, object] = {COUNTRY: countries.get(self._home)}
        values |= dict(zip(names, row, strict=True))
        values[COUNTRY] = values[COUNTRY] or ""
        return Row(values, {home: ended_at for home, ended_at, _ in leases})

    def _write(
        self,
        connection: sqlite3.Connection,
        backend_id: str,
        row: Row | None,
        stored: Row | None,
        names: Collection[str],
    ) -> None:
        """Turn the row `stored` into `row`."""
        is_left = stored is not None and (
            row is None or not stored.leases.keys() <= row.leases.keys()
        )
        if is_left:  # it may have registered again since
            with refusals(connection, backend_id):
                connection.execute(DELETE, {"id": backend_id})
            check_gone(self._row(connection, backend_id, names))
            stored = None
        if row is None:
            mark_deletion(connection, "backends", backend_id)
            return
        ended_at = row.leases[self._home]
        values = {**row.values, COUNTRY: row.values[COUNTRY] or None}
        if ended_at is None:
            if stored is None or stored.values != row.values:
                write = insert(names) if stored is None else update([n for n in names if n != "id"])
                with refusals(connection, backend_id):
                    connection.execute(write, values)
            found = self._row(connection, backend_id, names)
            check_usable(None if found is None else found.values)
        connection.execute(_LEASE, {**values, "home": self._home, "ended_at": ended_at})
