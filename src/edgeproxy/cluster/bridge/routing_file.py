"""The routing database as the bridge sees it: compared with the shadow in SQL, and written.

Reading and writing are short transactions of their own, because a program that does not wait for
locks must find the file free. Between a comparison and a write somebody may edit the file, so
`write` refuses if anything has changed since the last `look`.

The file is attached to the shadow's connection anew for each look, so no cache holds rows of an
earlier file. Rows whose key is no text or occurs twice, and rows with a value that is no number, no
UTF-8 text or too long, belong to this POP alone.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from edgeproxy.cluster.bridge.row_writer import RowWriter
from edgeproxy.cluster.bridge.shadow import Shadow
from edgeproxy.core.cluster.capture import Differences, Lineage
from edgeproxy.core.cluster.cells import MAX_ID_BYTES, is_text
from edgeproxy.core.cluster.rows import (
    BACKENDS,
    LEASES,
    ROUTES,
    TABLES,
    Key,
    Table,
    Values,
    id_of,
)
from edgeproxy.store.edits import lack_of_columns
from edgeproxy.store.sqlite import leases
from edgeproxy.store.sqlite.database import (
    READ_WAIT_SECS,
    ROUTES_TABLE,
    SCHEMA,
    DatabaseError,
    TableMissingError,
    check_integrity,
    check_kind,
    naming_faults,
)
from edgeproxy.store.sqlite.deletions import DELETIONS
from edgeproxy.store.sqlite.edit_watch import stamp_of

MARKER_TABLE = "edgeproxy_bridge"
MAX_TEXT_CHARS = 16_384


class MovedError(DatabaseError):
    """Somebody has changed the file since the last look at it."""


class Look(NamedTuple):
    """What a comparison has found."""

    differences: Differences
    lineage: Lineage
    is_replaced: bool


class RoutingFile:
    """One routing database file. For the thread of the bridge."""

    def __init__(self, path: Path, shadow: Shadow) -> None:
        self.path = path
        self._shadow = shadow
        self._connection = shadow.connection
        self._rows = RowWriter(shadow.connection)
        self._is_attached = False
        self._stamp: tuple[int, ...] | None = None
        self._data_version = 0

    @property
    def refused(self) -> Mapping[Key, str]:
        """The rows that the tables of this file did not take, with the reason."""
        return self._rows.refused

    def has_changed(self) -> bool:
        """Return whether somebody may have changed the file since the last look or write."""
        if not self._is_attached or stamp_of(self.path) != self._stamp:
            return True
        with naming_faults(self.path):
            return self._version() != self._data_version

    def close(self) -> None:
        """Let go of the file."""
        if self._is_attached:
            self._is_attached = False
            with suppress(sqlite3.Error):
                self._connection.execute("DETACH r")

    def marker(self) -> str:
        """Return the marker of the file, "" without one. Raises DatabaseError."""
        self._attach()
        with naming_faults(self.path):
            return self._marker()

    # -- reading ---------------------------------------------------------------------

    @property
    def identity(self) -> str:
        """Which file this is: another one that takes its place has another identity."""
        return "" if self._stamp is None else f"{self._stamp[0]}:{self._stamp[1]}"

    def look(self, *, restores: bool = False) -> Look:
        """Compare the file with the shadow.

        Raises TableMissingError for one without `backends`, unless that is to be restored, and
        DatabaseError.
        """
        self.close()
        stamp = stamp_of(self.path)
        self._attach()
        with naming_faults(self.path), self._reading():
            self._data_version = self._version()
            marker = self._marker()
            tables = self._tables()
            if BACKENDS not in tables and not (restores and self._shadow.marker):
                raise TableMissingError(self.path, "has no table `backends`: create it")
            found = Differences(meant=self._meant())
            for name, table in TABLES.items():
                found.counts[name] = self._shadow.count(name)
                columns = tables.get(name)
                if columns is None:
                    found.gone |= self._shadow.keys_of(name)
                else:
                    self._compare(name, table, columns, found)
            if BACKENDS in tables and (found.present or found.gone):
                # What is in a table and not in its index is gone only for some queries.
                check = "integrity_check" if found.gone else "quick_check"
                check_integrity(self._connection, self.path, f"r.{check}")
            # Without its trigger no lease counts: the table of backends was made anew.
            is_anew = LEASES in tables and not self._has(f"{LEASES}_end", "trigger")
        self._stamp = stamp
        is_other = self._shadow.file not in ("", self.identity)
        is_replaced = is_other or is_anew or BACKENDS not in tables
        return Look(found, self._lineage(marker), is_replaced)

    def _lineage(self, marker: str) -> Lineage:
        if marker and marker == self._shadow.marker:
            return Lineage.CURRENT
        return Lineage.EARLIER if marker and self._shadow.knows(marker) else Lineage.UNKNOWN

    def _compare(
        self, name: str, table: Table, columns: Collection[str], found: Differences
    ) -> None:
        shared = [column for column in table.columns if column in columns]
        same_key = " AND ".join(f"s.{column} = b.{column}" for column in table.keys)
        differs = " OR ".join(f"b.{column} IS NOT s.{column}" for column in shared)
        first = table.keys[0]
        listed = ", ".join(f"b.{column}" for column in (*table.keys, *shared))
        query = (
            f"SELECT {listed} FROM r.{name} b LEFT JOIN main.{name} s ON {same_key} "  # noqa: S608
            f"WHERE s.{first} IS NULL OR {differs}"
        )
        twice = self._twice(name, table)
        rows = self._connection.execute(query).fetchall()
        new = 0
        for row in rows:
            keys, values = row[: len(table.keys)], row[len(table.keys) :]
            is_named = all(isinstance(each, str) for each in keys)
            key = Key(name, id_of(keys)) if is_named else None
            before = None if key is None else self._shadow.row(key)
            new += before is None
            if key is None or key in twice or not _is_plain(key, values):
                continue
            # What the table has no column for stays what it is elsewhere.
            kept = before or dict.fromkeys(table.columns)
            found.present[key] = {**kept, **dict(zip(shared, values, strict=True))}
            if before is not None:
                found.known[key] = before
        (count,) = self._connection.execute(f"SELECT count(*) FROM r.{name}").fetchone()  # noqa: S608
        if twice or count - new != found.counts[name]:
            found.gone |= self._gone(name, table)

    def _gone(self, name: str, table: Table) -> set[Key]:
        keys = ", ".join(table.keys)
        query = f"SELECT {keys} FROM main.{name} EXCEPT SELECT {keys} FROM r.{name}"  # noqa: S608
        return {Key(name, id_of(row)) for row in self._connection.execute(query)}

    def _twice(self, name: str, table: Table) -> set[Key]:
        """Return the keys that several rows share, in a table that allows it."""
        for index in self._connection.execute(f"PRAGMA r.index_list({name})").fetchall():
            if index[2] and not index[4]:  # unique, and not partial
                members = self._connection.execute(f"PRAGMA r.index_info({index[1]!r})").fetchall()
                if {member[2] for member in members} <= set(table.keys):
                    return set()
        keys = ", ".join(table.keys)
        query = f"SELECT {keys} FROM r.{name} GROUP BY {keys} HAVING count(*) > 1"  # noqa: S608
        return {
            Key(name, id_of(row))
            for row in self._connection.execute(query)
            if all(isinstance(each, str) for each in row)
        }

    def _tables(self) -> dict[str, list[str]]:
        """Return the columns of the replicated tables that there are, in lower case."""
        found = {}
        for name in TABLES:
            rows = self._connection.execute(f"PRAGMA r.table_info({name})").fetchall()
            columns = [str(row[1]).lower() for row in rows]
            if set(TABLES[name].keys) <= set(columns):
                found[name] = columns
        lack = lack_of_columns(found[BACKENDS]) if BACKENDS in found else None
        if lack is not None:
            raise DatabaseError(self.path, lack)
        if "ended_at" not in found.get(LEASES, ["ended_at"]):
            del found[LEASES]  # of an earlier release
        return found

    def _meant(self) -> set[Key]:
        if not self._has(DELETIONS):
            return set()
        rows = self._connection.execute(f"SELECT name, id FROM r.{DELETIONS}")  # noqa: S608
        return {Key(str(name), str(row_id)) for name, row_id in rows}

    def _marker(self) -> str:
        if not self._has(MARKER_TABLE):
            return ""
        found = self._connection.execute(f"SELECT marker FROM r.{MARKER_TABLE}").fetchone()  # noqa: S608
        return "" if found is None else str(found[0])

    def _has(self, name: str, kind: str = "table") -> bool:
        query = "SELECT 1 FROM r.sqlite_master WHERE type = ? AND name = ?"
        return self._connection.execute(query, (kind, name)).fetchone() is not None

    # -- writing ---------------------------------------------------------------------

    def write(
        self, rows: Mapping[Key, Values | None], marker: str, meant: Collection[Key] = ()
    ) -> dict[Key, Values | None]:
        """Write rows and the marker in one transaction; return what the tables made of them.

        `meant` are deletions that need no mark any more. Raises MovedError if somebody has changed
        the file since the last look, and DatabaseError.
        """
        with naming_faults(self.path), self._writing():
            if stamp_of(self.path) != self._stamp or self._version() != self._data_version:
                raise MovedError(self.path, "was changed meanwhile")
            self._make_tables(rows)
            written = self._rows.write(rows, self._tables())
            for key in meant:
                mark = f"DELETE FROM r.{DELETIONS} WHERE name = ? AND id = ?"  # noqa: S608
                self._connection.execute(mark, key)
            self._connection.execute(f"DELETE FROM r.{MARKER_TABLE}")  # noqa: S608
            insert = f"INSERT INTO r.{MARKER_TABLE} (marker) VALUES (?)"  # noqa: S608
            self._connection.execute(insert, (marker,))
            is_known = not self._triggers_act(rows)
        if is_known:
            self._know_again()
        return written

    def _triggers_act(self, rows: Mapping[Key, Values | None]) -> bool:
        """Return whether more than these rows may have changed by writing them."""
        if None in rows.values():
            return True  # the leases of a backend go with it
        query = "SELECT 1 FROM r.sqlite_master WHERE type = 'trigger' AND name <> ? LIMIT 1"
        return self._connection.execute(query, (f"{LEASES}_end",)).fetchone() is not None

    def _know_again(self) -> None:
        """Take the stamp of what was just written for no change by somebody else.

        Who writes meanwhile changes the version, which is always looked at, and who replaces the
        file changes its identity.
        """
        stamp = stamp_of(self.path)
        if stamp is not None and self._stamp is not None and stamp[:2] == self._stamp[:2]:
            self._stamp = stamp

    def _make_tables(self, rows: Mapping[Key, Values | None]) -> None:
        run = self._connection.execute
        if BACKENDS not in self._tables():
            run(SCHEMA.replace("CREATE TABLE ", "CREATE TABLE r.", 1))
        if any(key.table == ROUTES for key in rows):
            run(ROUTES_TABLE.replace("IF NOT EXISTS ", "IF NOT EXISTS r.", 1))
        if any(key.table == LEASES for key in rows) or self._shadow.count(LEASES):
            run(leases.TABLE.replace("CREATE TABLE ", "CREATE TABLE IF NOT EXISTS r.", 1))
            run(leases.TRIGGER.replace("CREATE TRIGGER ", "CREATE TRIGGER IF NOT EXISTS r.", 1))
        run(f"CREATE TABLE IF NOT EXISTS r.{MARKER_TABLE} (marker TEXT)")
        run(
            f"CREATE TABLE IF NOT EXISTS r.{DELETIONS} "
            "(name TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY (name, id))"
        )

    # -- the connection --------------------------------------------------------------

    def _attach(self) -> None:
        if self._is_attached:
            return
        check_kind(self.path)
        with naming_faults(self.path):
            self._connection.execute(f"PRAGMA busy_timeout = {READ_WAIT_SECS * 1000:.0f}")
            self._connection.execute("ATTACH ? AS r", (f"{self.path.absolute().as_uri()}?mode=rw",))
        self._is_attached = True

    def _version(self) -> int:
        (version,) = self._connection.execute("PRAGMA r.data_version").fetchone()
        return int(version)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._connection.execute("COMMIT")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise


def _is_plain(key: Key, values: Collection[object]) -> bool:
    """Return whether a row can be replicated."""
    if not is_text(key.id, MAX_ID_BYTES):
        return False
    for value in values:
        if isinstance(value, str):
            if len(value) > MAX_TEXT_CHARS or any("\ud800" <= each <= "\udfff" for each in value):
                return False
        elif isinstance(value, bytes) or (isinstance(value, float) and not math.isfinite(value)):
            return False
    return True
