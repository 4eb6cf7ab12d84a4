"""The side table `edgeproxy_leases` in an SQLite file: makes it, changes an old one, reads it.

It keeps the country, because the documented table of backends has no column for it. If that table
has one, the country is written there too.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from edgeproxy.core.backends.registration import Ownership
from edgeproxy.core.cluster.rows import LEASES
from edgeproxy.store.edits import RefusedError
from edgeproxy.store.leases import COLUMNS, KEY, WITHHELD, here_and_elsewhere
from edgeproxy.store.sqlite.database import within_bounds

TABLE = f"""CREATE TABLE {LEASES} (id TEXT NOT NULL, home TEXT NOT NULL, country TEXT,
    ended_at INTEGER, PRIMARY KEY (id, home))"""
TRIGGER = f"""CREATE TRIGGER {LEASES}_end AFTER DELETE ON backends
    BEGIN DELETE FROM {LEASES} WHERE id = OLD.id; END"""  # noqa: S608
_INSERT = f"INSERT INTO {LEASES} (id, home, country, ended_at) VALUES (?, ?, ?, ?)"  # noqa: S608


def make(connection: sqlite3.Connection) -> None:
    """Make what is missing. Raises RefusedError if `backends` allows no trigger."""
    columns = _columns(connection)
    key = tuple(sorted((name for name in columns if columns[name]), key=columns.__getitem__))
    if key == KEY and "ended_at" in columns and _has_trigger(connection):
        return
    kept = []
    if columns and _has_trigger(connection):  # else they are leases of another table
        ended_at = "ended_at" if "ended_at" in columns else "NULL"
        kept = connection.execute(
            f"SELECT id, home, country, {ended_at} FROM {LEASES}"  # noqa: S608
        ).fetchall()
    try:
        connection.execute(f"DROP TABLE IF EXISTS {LEASES}")
        connection.execute(TABLE)
        if not _has_trigger(connection):
            connection.execute(TRIGGER)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
            raise
        raise RefusedError(f"a backend registers only in a plain table: {error}") from None
    connection.executemany(_INSERT, kept)


def adopt(connection: sqlite3.Connection, home: str) -> None:
    """Change an old side table, and take over the leases of when this POP had no name."""
    if not _columns(connection):
        return
    make(connection)
    connection.execute(f"UPDATE OR IGNORE {LEASES} SET home = ? WHERE home = ''", (home,))  # noqa: S608
    connection.execute(f"DELETE FROM {LEASES} WHERE home = ''")  # noqa: S608


def end_all_of(connection: sqlite3.Connection, home: str, ended_at: int) -> int:
    """End the leases of a POP that never comes back; return how many that were."""
    if "ended_at" not in _columns(connection):
        return 0
    return connection.execute(
        f"UPDATE {LEASES} SET ended_at = ? WHERE home = ? AND ended_at IS NULL",  # noqa: S608
        (ended_at, home),
    ).rowcount


def read_withheld(connection: sqlite3.Connection, path: Path) -> dict[object, int]:
    """Return when the last lease of each withheld backend has ended, by id."""
    if not _has_trigger(connection) or not set(COLUMNS) <= _columns(connection).keys():
        return {}
    return dict(within_bounds(connection.execute(WITHHELD), LEASES, path))


def read_countries(connection: sqlite3.Connection, path: Path) -> dict[object, object]:
    """Return the countries that registered backends named, by id.

    Where they named several, it is that of the first home by name, the same for every reader.
    """
    columns = _columns(connection)
    if not columns:
        return {}
    live = "AND ended_at IS NULL ORDER BY home DESC" if set(COLUMNS) <= columns.keys() else ""
    rows = connection.execute(
        f"SELECT id, country FROM {LEASES} WHERE country IS NOT NULL {live}"  # noqa: S608
    )
    return {row[0]: row[1] for row in within_bounds(rows, LEASES, path)}


def read_ownership(connection: sqlite3.Connection, path: Path, home: str) -> Ownership:
    """Return who hears the registered backends, as the POP `home` sees it."""
    connection.execute("BEGIN")
    if not _has_trigger(connection):
        return Ownership()
    queries = here_and_elsewhere(":home", has_ends="ended_at" in _columns(connection))
    here, elsewhere = (
        frozenset(str(row[0]) for row in connection.execute(query, {"home": home}))
        for query in queries
    )
    withheld = {str(key): end for key, end in read_withheld(connection, path).items()}
    return Ownership(here, elsewhere, withheld)


def _columns(connection: sqlite3.Connection) -> dict[str, int]:
    """Return the columns of the side table with their places in its key, 0 outside of it."""
    found = connection.execute("SELECT name, pk FROM pragma_table_info(?)", (LEASES,))
    return {str(name): int(place) for name, place in found}


def _has_trigger(connection: sqlite3.Connection) -> bool:
    names = (LEASES, f"{LEASES}_end")
    count = connection.execute("SELECT count(*) FROM sqlite_master WHERE name IN (?, ?)", names)
    return bool(count.fetchone() == (2,))
