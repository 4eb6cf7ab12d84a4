"""Registered backends on a PostgreSQL server; `sqlite/registrations` is its twin.

The side table `edgeproxy_leases` says which rows are registered backends, and with which POPs. The
first registration creates it. An advisory lock admits one writer at a time, so that no backend is
counted twice. Only changed values are written, and no row is locked before that: an
operator who holds a row delays that row alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

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
from edgeproxy.store.postgres.connection import LOCKED
from edgeproxy.store.postgres.leases import ALONE, make, ownership_in
from edgeproxy.store.postgres.nodes import insert, is_text, refusals, update
from edgeproxy.store.postgres.schema import columns_of, columns_to_read

if TYPE_CHECKING:
    from edgeproxy.store.postgres.connection import PostgresConnection
    from edgeproxy.store.postgres.link import Link

LOCK_WAIT_SECS = 1.0
"""How long to wait for a row that another program holds; all registrations wait that long."""

_LEASE = f"""INSERT INTO {LEASES} (id, home) VALUES ($1, $2)
    ON CONFLICT (id, home) DO UPDATE SET ended_at = NULL"""  # noqa: S608
_END = f"UPDATE {LEASES} SET ended_at = $3 WHERE id = $1 AND home = $2"  # noqa: S608
_DELETE = f"""DELETE FROM backends b USING {LEASES} l WHERE b.id = l.id AND b.id = $1"""  # noqa: S608

_Change = tuple[str, Row | None]
_Statement = tuple[str, tuple[object, ...]]


class PostgresRegistrations:
    """The registered backends of one routing database on a server.

    `home` is the name of this POP in that database.
    """

    def __init__(self, link: Link, home: str) -> None:
        self._link = link
        self._home = home

    def ownership(self) -> Ownership:
        """Return who hears the backends. Raises StoreError."""

        async def work(connection: PostgresConnection) -> Ownership:
            return await ownership_in(connection, self._home)

        return self._link.read(work)

    def apply(self, edits: Sequence[Edit]) -> list[Outcome]:
        """Apply all edits in order, in one transaction; return the outcome of each.

        A refused edit does not affect the others. Raises StoreError if nothing was done.
        """
        try:
            return self._apply(edits)
        except RefusedError as refused:  # of the side table
            return [refused] * len(edits)

    def _apply(self, edits: Sequence[Edit]) -> list[Outcome]:
        async def work(connection: PostgresConnection) -> list[Outcome]:
            await connection.execute(ALONE)
            await make(connection)
            columns = await columns_of(connection, self._link.url)
            backend_ids = {id_of(edit) for edit in edits}
            rows = await _rows_of(connection, columns, list(filter(is_text, backend_ids)))
            count = await connection.fetchval(COUNT)
            outcomes, changes = apply_changes(edits, rows, self._home, count)
            refused = await self._write(connection, columns, rows, list(changes.items()))
            return [
                refused.get(id_of(edit), outcome)
                for edit, outcome in zip(edits, outcomes, strict=True)
            ]

        return self._link.edit(work)

    async def _write(
        self,
        connection: PostgresConnection,
        columns: list[str],
        rows: Mapping[str, Row],
        changes: list[_Change],
    ) -> dict[str, StoreError]:
        """Write all changes but those that the server refuses; return the faults of those."""
        await connection.execute(f"SET LOCAL lock_timeout = {LOCK_WAIT_SECS * 1000:.0f}")
        refused = await self._try(connection, columns, rows, changes)
        if refused is None:
            return {}
        if len(changes) == 1:
            return {changes[0][0]: refused}
        faults = [
            (change[0], await self._try(connection, columns, rows, [change])) for change in changes
        ]
        return {backend_id: fault for backend_id, fault in faults if fault is not None}

    async def _try(
        self,
        connection: PostgresConnection,
        columns: list[str],
        rows: Mapping[str, Row],
        changes: list[_Change],
    ) -> StoreError | None:
        """Write all of these changes, or none and return the fault."""
        import asyncpg

        statements = [
            statement
            for backend_id, row in changes
            for statement in self._statements(backend_id, row, rows.get(backend_id), columns)
        ]
        try:
            async with connection.transaction():
                for sql, group in groupby(sorted(statements, key=_sql), _sql):
                    with refusals():
                        await connection.executemany(sql, [values for _, values in group])
                stored = await _rows_of(connection, columns, [name for name, _ in changes])
                for backend_id, row in changes:
                    found = stored.get(backend_id)
                    if row is None:
                        check_gone(found)
                    elif row.leases[self._home] is None:
                        check_usable(None if found is None else found.values)
        except asyncpg.LockNotAvailableError:
            return StoreError(LOCKED)
        except RefusedError as error:
            return error
        return None

    def _statements(
        self, backend_id: str, row: Row | None, stored: Row | None, columns: list[str]
    ) -> list[_Statement]:
        """Return the statements that turn the row `stored` into `row`, in alphabetical order."""
        statements: list[_Statement] = []
        if stored and (row is None or not stored.leases.keys() <= row.leases.keys()):
            statements.append((_DELETE, (backend_id,)))  # it may have registered again since
            stored = None
        if row is None:
            return statements
        names = [name for name in columns_to_read(columns) if name in (*COLUMNS, COUNTRY)]
        if stored is None:
            values = {name: row.values[name] for name in names}
            statements.append((insert(values), tuple(values.values())))
        elif others := {n: row.values[n] for n in names if row.values[n] != stored.values[n]}:
            statements.append((update(others, columns), (backend_id, *others.values())))
        ended_at = row.leases[self._home]
        if ended_at is not None:
            statements.append((_END, (backend_id, self._home, ended_at)))
        elif stored is None or stored.leases.get(self._home, 0) is not None:
            statements.append((_LEASE, (backend_id, self._home)))
        return statements


async def _rows_of(
    connection: PostgresConnection, columns: list[str], backend_ids: list[str]
) -> dict[str, Row]:
    names = ", ".join(columns_to_read(columns))
    query = f"SELECT id, home, ended_at FROM {LEASES} WHERE id = ANY($1)"  # noqa: S608
    leases: dict[str, dict[str, int | None]] = {}
    for backend_id, home, ended_at in await connection.fetch(query, backend_ids):
        leases.setdefault(backend_id, {})[home] = ended_at
    query = f"SELECT {names} FROM backends WHERE id = ANY($1)"  # noqa: S608
    rows: dict[str, Row] = {}
    for row in await connection.fetch(query, backend_ids):
        values = dict(row)
        values[COUNTRY] = values.get(COUNTRY) or ""
        rows[values["id"]] = Row(values, leases.get(values["id"], {}))
    return rows


def _sql(statement: _Statement) -> Any:
    return statement[0]
