"""Registered backends on a PostgreSQL server; `sqlite/registrations` is its twin.

The side table `edgeproxy_leases` says which rows are registered backends, and the home of each.
The first registration creates it. An advisory lock admits one writer at a time, so that no backend
is counted or moved twice. Only changed values are written, and no row is locked before that: an
operator who holds a row delays that row alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from edgeproxy.core.backends.registration import Edit, Outcome, Row, apply_changes, id_of
from edgeproxy.core.backends.rows import COLUMNS, COUNTRY
from edgeproxy.errors import StoreError
from edgeproxy.store.edits import RefusedError, check_gone, check_usable
from edgeproxy.store.postgres.connection import LOCKED
from edgeproxy.store.postgres.nodes import insert, is_text, refusals, update
from edgeproxy.store.postgres.schema import columns_of, columns_to_read
from edgeproxy.store.snapshot import LEASES

if TYPE_CHECKING:
    from edgeproxy.store.postgres.connection import PostgresConnection
    from edgeproxy.store.postgres.link import Link

LOCK_WAIT_SECS = 1.0
"""How long to wait for a row that another program holds; all registrations wait that long."""

_SIDE_TABLE = f"""
CREATE TABLE IF NOT EXISTS {LEASES} (id TEXT PRIMARY KEY, home TEXT NOT NULL);
DELETE FROM {LEASES};
CREATE OR REPLACE FUNCTION {LEASES}_end() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        DELETE FROM {LEASES};
    ELSE
        DELETE FROM {LEASES} l USING gone WHERE l.id = gone.id;
    END IF;
    RETURN NULL;
END $$;
DROP TRIGGER IF EXISTS {LEASES}_end ON backends;
DROP TRIGGER IF EXISTS {LEASES}_end_all ON backends;
CREATE TRIGGER {LEASES}_end AFTER DELETE ON backends
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION {LEASES}_end();
CREATE TRIGGER {LEASES}_end_all AFTER TRUNCATE ON backends
    FOR EACH STATEMENT EXECUTE FUNCTION {LEASES}_end();
"""  # noqa: S608
_ALONE = f"SELECT pg_advisory_xact_lock(hashtextextended('{LEASES}', 0))"
_IS_THERE = f"""SELECT to_regclass('{LEASES}') IS NOT NULL AND (SELECT count(*) FROM pg_trigger
    WHERE tgrelid = to_regclass('backends') AND tgname LIKE '{LEASES}_end%') = 2"""  # noqa: S608
_KNOWN = f"SELECT id FROM {LEASES} WHERE home = $1 AND id IN (SELECT id FROM backends)"  # noqa: S608
_COUNT = f"SELECT count(*) FROM {LEASES}"  # noqa: S608
_LEASE = f"""INSERT INTO {LEASES} (id, home) VALUES ($1, $2)
    ON CONFLICT (id) DO UPDATE SET home = excluded.home"""  # noqa: S608
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

    def known(self) -> set[str]:
        """Return the ids of the backends whose home is this POP. Raises StoreError."""

        async def work(connection: PostgresConnection) -> set[str]:
            if not await connection.fetchval(_IS_THERE):
                return set()
            return {str(row[0]) for row in await connection.fetch(_KNOWN, self._home)}

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
            await connection.execute(_ALONE)
            if not await connection.fetchval(_IS_THERE):
                await _make(connection)
            columns = await columns_of(connection, self._link.url)
            backend_ids = {id_of(edit) for edit in edits}
            rows = await _rows_of(connection, columns, list(filter(is_text, backend_ids)))
            count = await connection.fetchval(_COUNT)
            outcomes, changes = apply_changes(edits, rows, self._home, count)
            refused = await _write(connection, columns, rows, list(changes.items()))
            return [
                refused.get(id_of(edit), outcome)
                for edit, outcome in zip(edits, outcomes, strict=True)
            ]

        return self._link.edit(work)


async def _make(connection: PostgresConnection) -> None:
    """Make the side table. Raises RefusedError if `backends` allows no trigger."""
    import asyncpg

    try:
        await connection.execute(_SIDE_TABLE)
    except (asyncpg.WrongObjectTypeError, asyncpg.FeatureNotSupportedError) as error:
        raise RefusedError(f"a backend registers only in a plain table: {error}") from None


async def _rows_of(
    connection: PostgresConnection, columns: list[str], backend_ids: list[str]
) -> dict[str, Row]:
    names = ", ".join(f"b.{name}" for name in columns_to_read(columns))
    query = f"""SELECT {names}, l.home FROM backends b LEFT JOIN {LEASES} l ON l.id = b.id
        WHERE b.id = ANY($1)"""  # noqa: S608
    rows: dict[str, Row] = {}
    for row in await connection.fetch(query, backend_ids):
        values = dict(row)
        home = values.pop("home")
        rows[values["id"]] = Row({**values, COUNTRY: values.get(COUNTRY) or ""}, home)
    return rows


async def _write(
    connection: PostgresConnection,
    columns: list[str],
    rows: Mapping[str, Row],
    changes: list[_Change],
) -> dict[str, StoreError]:
    """Write all changes but those that the server refuses; return the faults of those."""
    await connection.execute(f"SET LOCAL lock_timeout = {LOCK_WAIT_SECS * 1000:.0f}")
    refused = await _try(connection, columns, rows, changes)
    if refused is None:
        return {}
    if len(changes) == 1:
        return {changes[0][0]: refused}
    faults = [(change[0], await _try(connection, columns, rows, [change])) for change in changes]
    return {backend_id: fault for backend_id, fault in faults if fault is not None}


async def _try(
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
        for statement in _statements(backend_id, row, rows.get(backend_id), columns)
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
                else:
                    check_usable(None if found is None else found.values)
    except asyncpg.LockNotAvailableError:
        return StoreError(LOCKED)
    except RefusedError as error:
        return error
    return None


def _statements(
    backend_id: str, row: Row | None, stored: Row | None, columns: list[str]
) -> list[_Statement]:
    """Return the statements that turn the row `stored` into `row`."""
    if row is None:
        return [(_DELETE, (backend_id,))]
    names = [name for name in columns_to_read(columns) if name in (*COLUMNS, COUNTRY)]
    statements: list[_Statement] = []
    if stored is None:
        values = {name: row.values[name] for name in names}
        statements.append((insert(values), tuple(values.values())))
    elif others := {n: row.values[n] for n in names if row.values[n] != stored.values[n]}:
        statements.append((update(others, columns), (backend_id, *others.values())))
    if stored is None or stored.home != row.home:
        statements.append((_LEASE, (backend_id, row.home)))
    return statements


def _sql(statement: _Statement) -> Any:
    return statement[0]
