"""The tables that edgeProxy uses on a PostgreSQL server: how it creates and queries them.

Existing parts are left alone, whatever created them: a table with more columns, without the
indexes, without the trigger. Names are not qualified, so that the search path of the user decides
the schema.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.core.backends.rows import COLUMNS, COUNTRY
from edgeproxy.core.cluster.rows import LEASES, ROUTES
from edgeproxy.store.edits import lack_of_columns
from edgeproxy.store.leases import COLUMNS as LEASE_COLUMNS
from edgeproxy.store.postgres.connection import NO_TABLE, PostgresError
from edgeproxy.store.postgres.link import CHANNEL
from edgeproxy.store.postgres.url import PostgresUrl
from edgeproxy.store.snapshot import MAX_ROWS

if TYPE_CHECKING:
    from edgeproxy.store.postgres.connection import PostgresConnection

TABLE = """CREATE TABLE backends (
    id TEXT PRIMARY KEY,
    app TEXT NOT NULL,
    region TEXT NOT NULL,
    country TEXT NOT NULL,
    wg_ip TEXT NOT NULL,
    port INTEGER NOT NULL,
    healthy INTEGER NOT NULL DEFAULT 1,
    weight INTEGER NOT NULL DEFAULT 1,
    soft_limit INTEGER NOT NULL DEFAULT 100,
    hard_limit INTEGER NOT NULL DEFAULT 150,
    deleted INTEGER NOT NULL DEFAULT 0,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT CURRENT_TIMESTAMP
)"""
ROUTES_TABLE = f"CREATE TABLE {ROUTES} (pattern TEXT PRIMARY KEY, app TEXT NOT NULL)"
FUNCTION = f"""CREATE FUNCTION edgeproxy_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('{CHANNEL}', TG_TABLE_NAME);
    RETURN NULL;
END $$"""
TRIGGER = """CREATE TRIGGER edgeproxy_notify
    AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION edgeproxy_notify()"""

_OURS = "tgname = 'edgeproxy_notify' AND tgrelid"

# Each part: its name, the test whether it exists, the statement that creates it; in that order.
_PARTS = (
    ("backends", "to_regclass('backends') IS NOT NULL", TABLE),
    (
        "idx_backends_healthy",
        "to_regclass('idx_backends_healthy') IS NOT NULL",
        "CREATE INDEX idx_backends_healthy ON backends(healthy) WHERE deleted = 0",
    ),
    (
        "idx_backends_region",
        "to_regclass('idx_backends_region') IS NOT NULL",
        "CREATE INDEX idx_backends_region ON backends(region) WHERE deleted = 0",
    ),
    (ROUTES, f"to_regclass('{ROUTES}') IS NOT NULL", ROUTES_TABLE),
    ("edgeproxy_notify()", "to_regproc('edgeproxy_notify') IS NOT NULL", FUNCTION),
    *(
        (
            f"the trigger of {table}",
            f"EXISTS (SELECT FROM pg_trigger WHERE {_OURS} = to_regclass('{table}'))",
            TRIGGER.format(table=table),
        )
        for table in ("backends", ROUTES)
    ),
)
_ENDS_LEASES = f"""(SELECT count(*) = 2 FROM pg_trigger
    WHERE tgrelid = to_regclass('backends') AND tgname LIKE '{LEASES}_end%')"""  # noqa: S608
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('edgeproxy schema', 0))"
FINGERPRINT = (
    "SELECT count(*)::text || ' ' "
    "|| coalesce(sum(hashtextextended(ROW({names})::text, 0)), 0)::text FROM {table}"
)


async def missing_parts(connection: PostgresConnection) -> list[str]:
    """Return the names of the missing parts."""
    tests = await connection.fetchrow("SELECT " + ", ".join(test for _, test, _ in _PARTS))
    assert tests is not None
    return [name for (name, _, _), exists in zip(_PARTS, tests, strict=True) if not exists]


async def make_parts(connection: PostgresConnection) -> list[str]:
    """Create the missing parts, in this transaction; return their names.

    If several proxies do this at once, one creates the parts and the others find them.
    """
    await connection.execute(_LOCK)
    missing = await missing_parts(connection)
    for name, _, statement in _PARTS:
        if name in missing:
            await connection.execute(statement)
    return missing


async def columns_of(connection: PostgresConnection, url: PostgresUrl) -> list[str]:
    """Return the columns of `backends`, at least the documented ones. Raises PostgresError."""
    columns = await columns_in(connection, "backends")
    if not columns:
        raise PostgresError(url, NO_TABLE)
    lack = lack_of_columns(columns)
    if lack is not None:
        raise PostgresError(url, lack)
    return columns


async def has_routes(connection: PostgresConnection) -> bool:
    """Return whether the table of server names exists and can be read."""
    return {"pattern", "app"} <= set(await columns_in(connection, ROUTES))


async def routes_of(connection: PostgresConnection) -> list[tuple[object, object]]:
    """Return all pairs of a server name and its app; none where there is no such table.

    A view that never ends is read up to MAX_ROWS.
    """
    if not await has_routes(connection):
        return []
    query = f"SELECT pattern, app FROM {ROUTES} ORDER BY pattern LIMIT {MAX_ROWS}"  # noqa: S608
    rows = await connection.fetch(query)
    return [(row[0], row[1]) for row in rows]


async def lease_columns(connection: PostgresConnection) -> list[str]:
    """Return the columns of the table of leases; none where no lease counts.

    That is without the table, or without its triggers: then `backends` was made anew.
    """
    return await columns_in(connection, LEASES, _ENDS_LEASES)


async def fingerprint(connection: PostgresConnection, columns: list[str]) -> tuple[str, ...]:
    """Return a fingerprint of the rows, computed by the server: it changes when they change.

    It covers only these columns of `backends`, the ones that are read; others need not be visible.
    That leases count no more changes it, too.
    """
    tables = {"backends": columns}
    if await has_routes(connection):
        tables[ROUTES] = ["pattern", "app"]
    if "ended_at" in await lease_columns(connection):
        tables[LEASES] = list(LEASE_COLUMNS)
    queries = [FINGERPRINT.format(names=", ".join(tables[name]), table=name) for name in tables]
    return tuple([str(await connection.fetchval(query)) for query in queries])


def columns_to_read(columns: list[str]) -> list[str]:
    """Return the columns to read of these, in the documented order."""
    return [name for name in (*COLUMNS, COUNTRY) if name in columns]


async def replace_all(connection: PostgresConnection) -> None:
    """Delete all nodes, and create the missing parts."""
    await make_parts(connection)
    await connection.execute("DELETE FROM backends")


async def columns_in(
    connection: PostgresConnection, table: str, condition: str = "true"
) -> list[str]:
    """Return the columns of a table that the user may read; none without it or the condition."""
    query = f"""SELECT attname::text FROM pg_attribute
        WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped
        AND has_column_privilege(attrelid, attnum, 'SELECT') AND {condition}
        ORDER BY attnum"""  # noqa: S608
    return [row[0] for row in await connection.fetch(query, table)]
