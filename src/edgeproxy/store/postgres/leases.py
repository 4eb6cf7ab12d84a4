"""The side table `edgeproxy_leases` on a PostgreSQL server: makes it, changes an old one, reads it.

Whoever writes it holds the advisory lock (`ALONE`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.core.backends.registration import Ownership
from edgeproxy.core.cluster.rows import LEASES
from edgeproxy.store.edits import RefusedError
from edgeproxy.store.leases import KEY, WITHHELD, here_and_elsewhere
from edgeproxy.store.postgres.schema import FUNCTION, TRIGGER, lease_columns

if TYPE_CHECKING:
    from edgeproxy.store.postgres.connection import PostgresConnection

ALONE = f"SELECT pg_advisory_xact_lock(hashtextextended('{LEASES}', 0))"

_KEY = f"PRIMARY KEY ({', '.join(KEY)})"
_TABLE = f"""CREATE TABLE IF NOT EXISTS {LEASES}
    (id TEXT NOT NULL, home TEXT NOT NULL, ended_at BIGINT, {_KEY})"""
_PRESENT_KEY = f"""SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE conrelid = to_regclass('{LEASES}') AND contype = 'p'"""  # noqa: S608
_ENDS = f"""
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
_NOTIFIES = f"""SELECT EXISTS (SELECT FROM pg_trigger
    WHERE tgrelid = to_regclass('{LEASES}') AND tgname = 'edgeproxy_notify')"""  # noqa: S608


async def make(connection: PostgresConnection) -> None:
    """Make what is missing. Raises RefusedError if `backends` allows no trigger."""
    import asyncpg

    if not await lease_columns(connection):
        try:
            await connection.execute(_TABLE)
            await connection.execute(_ENDS)
        except (asyncpg.WrongObjectTypeError, asyncpg.FeatureNotSupportedError) as error:
            raise RefusedError(f"a backend registers only in a plain table: {error}") from None
    if "ended_at" not in await lease_columns(connection):
        await connection.execute(f"ALTER TABLE {LEASES} ADD COLUMN ended_at BIGINT")
    present = await connection.fetchrow(_PRESENT_KEY)
    if present is None or present[1] != _KEY:
        drop = "" if present is None else f'DROP CONSTRAINT "{present[0]}", '
        await connection.execute(f"ALTER TABLE {LEASES} {drop}ADD {_KEY}")
    if not await connection.fetchval(_NOTIFIES):
        if not await connection.fetchval("SELECT to_regproc('edgeproxy_notify') IS NOT NULL"):
            await connection.execute(FUNCTION)
        await connection.execute(TRIGGER.format(table=LEASES))


async def withheld_in(connection: PostgresConnection) -> dict[object, int]:
    """Return when the last lease of each withheld backend has ended, by id."""
    if "ended_at" not in await lease_columns(connection):
        return {}
    return {row[0]: row[1] for row in await connection.fetch(WITHHELD)}


async def ownership_in(connection: PostgresConnection, home: str) -> Ownership:
    """Return who hears the registered backends, as the POP `home` sees it."""
    columns = await lease_columns(connection)
    if not columns:
        return Ownership()
    queries = here_and_elsewhere("$1", has_ends="ended_at" in columns)
    here, elsewhere = [
        frozenset(str(row[0]) for row in await connection.fetch(query, home)) for query in queries
    ]
    withheld = {str(key): ended_at for key, ended_at in (await withheld_in(connection)).items()}
    return Ownership(here, elsewhere, withheld)
